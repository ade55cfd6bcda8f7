"""Folders of KerasHub's BERT presets: config.json, model.weights.h5, tokenizer.json."""

import pathlib
import re
from typing import Any

import keras
import keras_hub
import numpy as np
from absl import logging

from undivided_tf.accounting import count_parameters
from undivided_tf.config import EncoderConfig
from undivided_tf.convert import heads, names
from undivided_tf.convert.checkpoint import Checkpoint, Foreign, match
from undivided_tf.convert.tensor_files import as_float32, read_object
from undivided_tf.convert.vocabularies import embedding_rows, log_casing, require_options
from undivided_tf.errors import InputError
from undivided_tf.models.heads import MULTI_LABEL, ClassifierHead
from undivided_tf.models.weights import named_weights
from undivided_tf.pattern import BlockPattern
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.weights.h5", "tokenizer.json"
VOCABULARY = "assets/tokenizer/vocabulary.txt"
_CLASS = "BertBackbone"
# Files of a task model: a backbone with a head.
TASK, TASK_WEIGHTS, PREPROCESSOR = "task.json", "task.weights.h5", "preprocessor.json"
_CLASSIFIER = "BertTextClassifier"
# Values that the backbone fixes, since it has no arguments for them.
_FIXED = {
    "layer_norm_eps": 1e-12,
    "norm_first": False,
    "half_layer_norms": False,
    "attention_normalization": "softmax",
    "share_intermediate": False,
    "position_type": "absolute",
    "query_key_norm": False,
}
_TOKENIZER_OPTIONS = {
    "split": (True,),
    "split_on_cjk": (True,),
    "suffix_indicator": ("##",),
    "oov_token": ("[UNK]",),
    "special_tokens_in_strings": (False,),
}
_SIZES = {
    "vocabulary_size": "vocab_size",
    "num_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
    "num_segments": "type_vocab_size",
}
_MODULES = {
    "embeddings.word_embeddings": "token_embedding",
    "embeddings.position_embeddings": "position_embedding",
    "embeddings.token_type_embeddings": "segment_embedding",
    "embeddings.LayerNorm": "embeddings_layer_norm",
    "attention.self.query": "self_attention_layer/query",
    "attention.self.key": "self_attention_layer/key",
    "attention.self.value": "self_attention_layer/value",
    "attention.output.dense": "self_attention_layer/attention_output",
    "attention.output.LayerNorm": "self_attention_layer_norm",
    "intermediate.dense": "feedforward_intermediate_dense",
    "output.dense": "feedforward_output_dense",
    "output.LayerNorm": "feedforward_layer_norm",
    "pooler.dense": "pooled_dense",
    "classifier": "logits",
}


def recognise(folder: pathlib.Path) -> bool:
    """Whether the folder has the config of a BertBackbone."""
    path = folder / CONFIG
    return path.is_file() and read_object(path).get("class_name") == _CLASS


def open_checkpoint(folder: pathlib.Path, do_lower_case: bool | None = None) -> Checkpoint:
    """Opens a folder that `save_to_preset` of BertBackbone or BertTextClassifier wrote.

    The format does not name the labels of a classifier. They are taken from classifier.json, if it
    exists, and are called LABEL_0, LABEL_1 ... otherwise.

    Args:
        folder: the preset.
        do_lower_case: the casing; None: `lowercase` of tokenizer.json.

    Raises:
        InputError: an invalid file, an option that our tokenizer lacks, or parts that do not fit
            together.
    """
    settings = _read_config(folder / CONFIG)
    tokenizer = _read_tokenizer(folder, do_lower_case)
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} has no {WEIGHTS}")
    files.check_fetched(folder / WEIGHTS)
    try:
        config = EncoderConfig.from_dict(
            {
                **{ours: settings[theirs] for theirs, ours in _SIZES.items()},
                "block_pattern": f"(AI)*{settings['num_layers']}",
                "hidden_dropout_prob": settings["dropout"],
                "attention_probs_dropout_prob": settings["dropout"],
                "hidden_activation": "gelu_tanh",
                "vocabulary_hash": tokenizer.vocabulary_hash,
                "do_lower_case": tokenizer.do_lower_case,
            }
        )
    except KeyError as error:
        raise InputError(f"{folder / CONFIG}: the key {error} is missing") from error
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from error
    embedding_rows(config.vocab_size, (), tokenizer, folder / CONFIG, False, "vocabulary_size")
    # Check before memory is allocated; half precision takes two bytes per weight.
    if 2 * count_parameters(config) > (folder / WEIGHTS).stat().st_size:
        raise InputError(f"{folder / CONFIG} describes more weights than {WEIGHTS} can hold")
    # Built from the sizes. The file names a class, but it could name any class.
    backbone = _backbone(config)
    try:
        backbone.load_weights(folder / WEIGHTS)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from error
    model, needed, head = backbone, list(names.encoder_tensors(config)), None
    if (folder / TASK).is_file():
        head = _head(folder, config)
        needed += names.classifier_tensors(config, head)
        model = keras_hub.models.BertTextClassifier(backbone, head.outputs)
        try:
            model.load_task_weights(str(folder / TASK_WEIGHTS))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder / TASK_WEIGHTS} does not fit {TASK}: {error}") from error
    tensors, coverage = match(folder, needed, _foreign(config), _Reader(model, folder / WEIGHTS))
    return Checkpoint("keras_hub", config, tokenizer, tensors, coverage, head)


def _head(folder: pathlib.Path, config: EncoderConfig) -> ClassifierHead:
    """The classifier that task.json describes.

    Raises:
        InputError: another task, or an activation without a head here.
    """
    path = folder / TASK
    name, settings = read_object(path).get("class_name"), _read_config(path)
    outputs, activation = settings.get("num_classes"), settings.get("activation")
    if name != _CLASSIFIER or type(outputs) is not int or not 1 <= outputs < 2**20:
        raise InputError(
            f"{path}: a {name!r} of {outputs!r} classes; known here: {_CLASSIFIER}. Without {TASK} "
            "only the backbone is read"
        )
    head = heads.undescribed(outputs, config)
    if activation == "sigmoid":
        labels = heads.default_labels(outputs)
        head = head.replace(kind=MULTI_LABEL, labels=labels)
    elif activation not in (None, "linear", *(("softmax",) if outputs > 1 else ())):
        raise InputError(
            f"{path}: activation is {activation!r} for {outputs} outputs; known here: linear, "
            "softmax of several outputs, sigmoid"
        )
    path = folder / PREPROCESSOR
    length = _read_config(path).get("sequence_length") if path.is_file() else None
    if type(length) is int and 2 < length <= config.max_position_embeddings:
        head = head.replace(max_seq_length=length)
    return heads.classifier(folder, head, has_names=False)


def write(directory: pathlib.Path, source: Checkpoint) -> list[str]:
    """Writes a preset that `from_preset` of BertBackbone or BertTextClassifier loads.

    KerasHub's BERT has only the tanh approximation of GELU. For exact GELU a warning is logged, and
    activations differ by about 1e-3. A written classifier returns logits, or probabilities if
    several labels may hold at once; classifier.json has its other settings.

    Returns:
        Names of the left-out heads, those of pre-training.

    Raises:
        InputError: the encoder or a fine-tuned head has no counterpart in the format.
    """
    config = source.config
    layers = max(config.pattern.num_attention, 1)
    if config.pattern != BlockPattern.parse(f"(AI)*{layers}"):
        raise InputError(f"KerasHub's BERT cannot have the pattern {config.pattern}")
    for key, value in _FIXED.items():
        if getattr(config, key) != value:
            raise InputError(f"KerasHub's BERT has only {key} {value}")
    if config.hidden_activation == "relu":
        raise InputError("KerasHub's BERT has only hidden_activation gelu_tanh")
    if config.hidden_activation == "gelu":
        logging.warning(
            "KerasHub's BERT has only the tanh approximation of GELU: outputs differ slightly"
        )
    head = source.classifier
    unsupported = "a span predictor" if source.spans else ""
    if head and head.pooling != "first":
        unsupported = f"a classifier with pooling {head.pooling}"
    if unsupported:
        raise InputError(
            f"KerasHub's BERT has no counterpart for {unsupported}; --encoder_only leaves the head "
            "out"
        )
    left_out = [name for name in source.heads if name != "classifier_head"]
    if left_out:
        logging.warning("KerasHub's BERT has no %s: left out", ", ".join(left_out))
    vocabulary, lower = list(source.tokenizer.vocabulary), source.tokenizer.do_lower_case
    stripped = [piece for piece in vocabulary if piece != piece.rstrip()]
    if stripped:
        logging.warning(
            "KerasHub strips white space from the end of word pieces when it reads a vocabulary, "
            "so its tokenizer will change these pieces: %s; the file is correct",
            stripped,
        )
    tokenizer = keras_hub.models.BertTokenizer(
        vocabulary=vocabulary, lowercase=lower, strip_accents=lower
    )
    model, tensors = _backbone(config), list(names.encoder_tensors(config))
    if head:
        tensors += names.classifier_tensors(config, head)
        model = keras_hub.models.BertTextClassifier(
            model,
            head.outputs,
            preprocessor=keras_hub.models.BertTextClassifierPreprocessor(
                tokenizer, sequence_length=head.max_seq_length
            ),
            activation="sigmoid" if head.kind == MULTI_LABEL else None,
        )
    variables = named_weights(model.weights)
    foreign = _foreign(config)
    for tensor in tensors:
        stored = foreign(tensor)
        variables[stored.name].assign(source.tensors[tensor.path].read().reshape(stored.shape))
    model.save_to_preset(str(directory))
    if head:
        head.write(directory)
    else:
        tokenizer.save_to_preset(str(directory))
    return left_out


def _read_tokenizer(folder: pathlib.Path, do_lower_case: bool | None) -> Tokenizer:
    path = folder / TOKENIZER
    options = _read_config(path)
    lower = options.get("lowercase")
    if not isinstance(lower, bool):
        raise InputError(f"{path}: lowercase is {lower!r}, expected true or false")
    require_options(path, options, _TOKENIZER_OPTIONS)
    strips = options.get("strip_accents", False)
    if strips and not lower:
        raise InputError(
            f"{path}: strip_accents is {strips!r} with lowercase False; our tokenizer strips "
            "accents only from text that it lower-cases, so words would be split differently"
        )
    lower = log_casing(lower, do_lower_case, path)
    if lower and not strips:
        # KerasHub's default, even for its presets of Google's weights, trained without accents.
        logging.warning(
            "%s: strip_accents is false with lowercase true: KerasHub keeps accents; our tokenizer "
            "strips them, as BERT does, so words with accents are split differently",
            path,
        )
    return Tokenizer(folder / VOCABULARY, lower)


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    """The `config` of a serialised Keras object."""
    config = read_object(path).get("config")
    if not isinstance(config, dict):
        raise InputError(f"{path} has no config")
    return config


def _backbone(config: EncoderConfig) -> Any:
    sizes = {theirs: getattr(config, ours) for theirs, ours in _SIZES.items()}
    return keras_hub.models.BertBackbone(
        num_layers=config.pattern.num_attention, dropout=config.hidden_dropout_prob, **sizes
    )


def _foreign(config: EncoderConfig):
    """Our names and shapes in KerasHub; projections to and from heads have an axis for heads."""
    split = (config.num_attention_heads, config.hidden_size // config.num_attention_heads)

    def foreign(tensor: names.Tensor) -> Foreign:
        layer, shape = re.match(r"encoder\.layer\.(\d+)\.(.*)", tensor.module), tensor.shape
        scope = f"transformer_layer_{layer[1]}/" if layer else ""
        module = layer[2] if layer else tensor.module
        if module.startswith("attention.self."):
            shape = (*shape[:-1], *split)
        elif module == "attention.output.dense" and tensor.part == "kernel":
            shape = (*split, shape[-1])
        return Foreign(f"{scope}{_MODULES[module]}/{tensor.part}", shape)

    return foreign


class _Reader:
    """Reads the weights of a model by their paths; `path` is their file, for errors."""

    def __init__(self, model: keras.Model, path: pathlib.Path):
        self._path = path
        self._variables = named_weights(model.weights)
        self.shapes = {name: tuple(v.shape) for name, v in self._variables.items()}

    def read(self, name: str) -> np.ndarray:
        return as_float32(np.asarray(self._variables[name]), name, self._path)
