"""Folders of Hugging Face's BERT: config.json, safetensors, vocabulary and casing."""

import math
import pathlib
from typing import Any

import numpy as np

from undivided_tf.config import EncoderConfig
from undivided_tf.convert import heads, names
from undivided_tf.convert.checkpoint import Checkpoint, Foreign, match
from undivided_tf.convert.tensor_files import (
    SINGLE,
    SafetensorsReader,
    open_folder,
    read_object,
    write_tensors,
)
from undivided_tf.convert.vocabularies import (
    TOKENIZER_CONFIG,
    VOCABULARY,
    embedding_rows,
    read_tokenizer,
)
from undivided_tf.errors import InputError
from undivided_tf.models.heads import CLASSIFICATION, MULTI_LABEL, REGRESSION, ClassifierHead
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer

CONFIG = "config.json"
# Our own key: the vocabulary belongs to the weights, whatever their number of rows.
VOCABULARY_HASH = "vocabulary_hash"
# Our own type, for models that BERT cannot express. `transformers` refuses it; under the type
# "bert" it would fill missing blocks with random weights.
MODEL_TYPE = "undivided_bert"
_OUR_KEYS = (
    "block_pattern",
    "norm_first",
    "half_layer_norms",
    "attention_normalization",
    "share_intermediate",
    "position_type",
    "rotary_base",
    "query_key_norm",
)
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Fields whose names and meanings are the same here and there.
_SHARED_KEYS = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
)
_SUFFIXES = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "scale": "weight"}
_CLASSIFIER, _QUESTIONS = "BertForSequenceClassification", "BertForQuestionAnswering"
_MASKED_LM = "BertForMaskedLM"
_ARCHITECTURES = (
    (_CLASSIFIER, {"classifier_head"}),
    (_QUESTIONS, {"span_head"}),
    ("BertForPreTraining", {"masked_lm_head", "next_sentence_head"}),
    (_MASKED_LM, {"masked_lm_head"}),
)
_PROBLEM_TYPES = {
    CLASSIFICATION: "single_label_classification",
    REGRESSION: "regression",
    MULTI_LABEL: "multi_label_classification",
}
_DECODER = "cls.predictions.decoder"
_ENCODER_PARTS = ("embeddings.", "encoder.", "pooler.", "final_layer_norm.")


def recognise(folder: pathlib.Path) -> bool:
    """Whether the folder has Hugging Face's config."""
    return (folder / CONFIG).is_file() and "model_type" in read_object(folder / CONFIG)


def open_checkpoint(folder: pathlib.Path, do_lower_case: bool | None = None) -> Checkpoint:
    """Opens a folder of BertModel or of a BERT class with heads.

    Args:
        folder: config.json, model.safetensors or shards with their index, and vocab.txt or
            tokenizer.json.
        do_lower_case: the casing; None: see `vocabularies.read_tokenizer`.

    Raises:
        InputError: another architecture, a bad file, or parts that do not fit together.
    """
    settings = read_object(folder / CONFIG)
    tokenizer = read_tokenizer(folder, CONFIG, do_lower_case)
    reader = _RenamedReader(open_folder(folder), folder)
    table = reader.shapes.get("embeddings.word_embeddings.weight", ())
    config = encoder_config(settings, folder / CONFIG, tokenizer, table)
    needed = list(names.encoder_tensors(config))
    classifier, spans = None, None
    if any(name.startswith("cls.predictions.") for name in reader.shapes):
        needed += names.masked_lm_tensors(config)
    if "cls.seq_relationship.weight" in reader.shapes:
        needed += names.next_sentence_tensors(config)
    if _is_sequence_classifier(settings, reader):
        outputs = reader.shapes["classifier.weight"][0]
        declared = _classifier_head(settings, outputs, folder / CONFIG, config)
        classifier = heads.classifier(folder, declared)
        needed += names.classifier_tensors(config, classifier)
    if len(reader.shapes.get("qa_outputs.weight", ())) == 2:
        spans = heads.spans(folder, config)
        needed += names.span_tensors(config)
    tensors, coverage = match(
        folder, needed, _foreign, reader, names.pooler_tensors(config), _is_encoder
    )
    _check_ties(reader, coverage, folder)
    return Checkpoint("huggingface", config, tokenizer, tensors, coverage, classifier, spans)


# === Config ===


def encoder_config(
    settings: dict[str, Any], path: pathlib.Path, tokenizer: Tokenizer, table: tuple[int, ...]
) -> EncoderConfig:
    """The architecture that Hugging Face's config describes.

    Args:
        settings: the content of the config.
        path: of its file.
        tokenizer: of the same folder.
        table: shape of the word embeddings, `()` if the weights have none. Their rows are the
            `vocab_size` of the result, which may exceed that of the tokenizer: see
            `vocabularies.embedding_rows`.

    Raises:
        InputError: another architecture, or a value that has no counterpart here.
    """

    def refuse(key: str, known: str):
        raise InputError(f"{path}: {key} is {settings.get(key)!r}; known here: {known}")

    if settings.get("model_type") not in ("bert", MODEL_TYPE):
        refuse("model_type", f"bert, {MODEL_TYPE}")
    is_ours = settings["model_type"] == MODEL_TYPE
    positions = settings.get("position_type", "absolute") if is_ours else "absolute"
    if settings.get("position_embedding_type", positions) != positions:
        refuse("position_embedding_type", positions)
    if not is_ours:  # Type "bert" with our keys is a contradiction.
        for key in _OUR_KEYS:
            default = getattr(EncoderConfig, key)
            if key != "block_pattern" and settings.get(key, default) != default:
                refuse(key, f"{default!r} with model_type bert")
    for key in ("is_decoder", "add_cross_attention"):
        if settings.get(key):
            refuse(key, "false: encoders only")
    activation = settings.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        refuse("hidden_act", ", ".join(_ACTIVATIONS))
    layers = settings.get("num_hidden_layers", 12)
    if type(layers) is not int or layers < 1:
        refuse("num_hidden_layers", "a number from 1")
    values = {key: settings[key] for key in _SHARED_KEYS if key in settings}
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            refuse(key, "finite numbers")
    if is_ours:
        values |= {key: settings[key] for key in _OUR_KEYS if key in settings}
    else:
        values["block_pattern"] = f"(AI)*{layers}"
    try:
        config = EncoderConfig.from_dict(
            {
                **values,
                "hidden_activation": _ACTIVATIONS[activation],
                "vocabulary_hash": tokenizer.vocabulary_hash,
                "do_lower_case": tokenizer.do_lower_case,
            }
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    declared = settings.get(VOCABULARY_HASH)
    if declared is not None and declared != tokenizer.vocabulary_hash:
        raise InputError(
            f"{path}: {VOCABULARY_HASH} is {str(declared)[:12]}, but the vocabulary beside it has "
            f"{tokenizer.vocabulary_hash[:12]}: restore the vocabulary that belongs to the weights"
        )
    rows = embedding_rows(config.vocab_size, table, tokenizer, path, declared is not None)
    return config.replace(vocab_size=rows)


def _is_encoder(name: str) -> bool:
    # Old versions store the constant 0, 1, 2 ... with the weights.
    return name.startswith(_ENCODER_PARTS) and name != "embeddings.position_ids"


def _is_sequence_classifier(settings: dict[str, Any], reader: "_RenamedReader") -> bool:
    """Whether the head `classifier` is for sequences, not for tokens or multiple choice."""
    architectures = settings.get("architectures") or [_CLASSIFIER]
    if not isinstance(architectures, list):
        raise InputError(f"{CONFIG}: architectures must be a list, got {architectures!r}")
    return _CLASSIFIER in architectures and len(reader.shapes.get("classifier.weight", ())) == 2


def _classifier_head(
    settings: dict[str, Any], outputs: int, path: pathlib.Path, config: EncoderConfig
) -> ClassifierHead:
    """The sequence classifier that config.json describes.

    A head with one output and no problem_type is a regression, as in the training of
    `transformers`.

    Raises:
        InputError: labels that do not fit the head, or a problem_type without a head here.
    """
    declared = settings.get("problem_type")
    kinds = {theirs: ours for ours, theirs in _PROBLEM_TYPES.items()}
    kinds[None] = REGRESSION if outputs == 1 else CLASSIFICATION
    if declared is not None and (not isinstance(declared, str) or declared not in kinds):
        raise InputError(
            f"{path}: problem_type is {declared!r}; known here: "
            + ", ".join(_PROBLEM_TYPES.values())
        )
    kind = kinds[declared]
    if (kind == REGRESSION) != (outputs == 1) and kind != MULTI_LABEL:
        raise InputError(
            f"{path}: problem_type {declared} does not fit {outputs} outputs: a regression has one "
            'score, a classification two labels or more. With "architectures": ["BertModel"] only '
            "the encoder is read"
        )
    labels = _labels(settings, outputs, path)
    if kind == REGRESSION and labels == heads.default_labels(1):
        labels = ()
    task = settings.get("finetuning_task")
    pooling = settings.get("pooling", "first") if settings["model_type"] == MODEL_TYPE else "first"
    try:
        return ClassifierHead(
            kind=kind,
            labels=labels,
            pooling=pooling,
            max_seq_length=_max_seq_length(path.with_name(TOKENIZER_CONFIG), config),
            task=task if isinstance(task, str) else "",
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _max_seq_length(path: pathlib.Path, config: EncoderConfig) -> int:
    """Word pieces per text: `transformers` truncates at model_max_length of the tokenizer."""
    positions = config.max_position_embeddings
    declared = read_object(path).get("model_max_length") if path.exists() else None
    return declared if type(declared) is int and 2 < declared <= positions else positions


def _labels(settings: dict[str, Any], outputs: int, path: pathlib.Path) -> tuple[str, ...]:
    declared = settings.get("id2label") or dict(enumerate(heads.default_labels(outputs)))
    try:
        declared = {str(index): label for index, label in declared.items()}
        labels = tuple(declared[str(i)] for i in range(len(declared)))
    except (KeyError, AttributeError) as error:
        raise InputError(f"{path}: id2label does not number the labels from 0") from error
    if len(labels) != outputs or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{path}: id2label has {len(labels)} labels, the head {outputs}")
    return labels


# === Writing ===


def write(directory: pathlib.Path, source: Checkpoint) -> list[str]:
    """Writes a folder that `transformers` can load if it has the architecture.

    `transformers` has post-norm encoders with the pattern `(AI)*L`, and classifiers that pool the
    first token. Other models get the type `undivided_bert` and the keys `_OUR_KEYS`; `transformers`
    refuses this type. `open_checkpoint` reads both types. Values without a key in the format, such
    as a score range, are in classifier.json or span_predictor.json.

    Returns:
        Names of left-out weights: the pooler, in architectures of `transformers` without one.
    """
    config, classifier = source.config, source.classifier
    pooling = classifier.pooling if classifier else "first"
    directory.mkdir()
    layers = max(config.pattern.num_attention, 1)
    bert = EncoderConfig(block_pattern=f"(AI)*{layers}")
    our_values = {key: getattr(config, key) for key in _OUR_KEYS}
    is_bert = pooling == "first" and all(
        value == getattr(bert, key) for key, value in our_values.items()
    )
    architecture = next(
        (name for name, needs in _ARCHITECTURES if needs <= set(source.heads)), "BertModel"
    )
    activations = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    files.write_json(
        directory / CONFIG,
        {
            "model_type": "bert" if is_bert else MODEL_TYPE,
            "architectures": [architecture],
            "num_hidden_layers": layers,
            "hidden_act": activations[config.hidden_activation],
            "position_embedding_type": config.position_type,
            "pad_token_id": source.tokenizer.pad_id,
            **{key: getattr(config, key) for key in _SHARED_KEYS},
            VOCABULARY_HASH: source.tokenizer.vocabulary_hash,
            **({} if is_bert else our_values),
            **({} if pooling == "first" else {"pooling": pooling}),
            **(_classifier_settings(classifier) if classifier else {}),
        },
    )
    prefix = "bert." if source.heads else ""
    without_pooler = is_bert and architecture in (_QUESTIONS, _MASKED_LM)
    left_out = [*names.pooler_tensors(config)] if without_pooler else []
    tensors = [
        *(tensor for tensor in names.encoder_tensors(config) if tensor not in left_out),
        *names.head_tensors(config, source.tensors, classifier),
    ]

    def theirs(tensor: names.Tensor):
        stored, read = _foreign(tensor), source.tensors[tensor.path].read
        scope = "" if stored.name.startswith(("cls.", "classifier.", "qa_outputs.")) else prefix
        return scope + stored.name, stored.shape, lambda: read().T if stored.transposed else read()

    write_tensors(directory / SINGLE, map(theirs, tensors))
    source.tokenizer.save(directory / VOCABULARY)
    lengths = [head.max_seq_length for head in (classifier, source.spans) if head]
    tokenizer_config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": source.tokenizer.do_lower_case,
        "model_max_length": min([config.max_position_embeddings, *lengths]),
    }
    special = ("pad", "unk", "cls", "sep", "mask")
    tokens = {f"{name}_token": f"[{name.upper()}]" for name in special}
    files.write_json(directory / TOKENIZER_CONFIG, {**tokenizer_config, **tokens})
    for head in (classifier, source.spans):
        if head:
            head.write(directory)
    return [tensor.path for tensor in left_out]


def _classifier_settings(classifier: ClassifierHead) -> dict[str, Any]:
    """The keys of config.json that describe a sequence classifier."""
    labels = classifier.labels or heads.default_labels(classifier.outputs)
    return {
        "problem_type": _PROBLEM_TYPES[classifier.kind],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        **({"finetuning_task": classifier.task} if classifier.task else {}),
    }


# === Names ===


def _foreign(tensor: names.Tensor) -> Foreign:
    """Kernels are transposed, since PyTorch's `Linear` has (outputs, inputs)."""
    name = f"{tensor.module}.{_SUFFIXES.get(tensor.part, 'bias')}"
    if tensor.part == "kernel":
        return Foreign(name, tensor.shape[::-1], transposed=True)
    return Foreign(name, tensor.shape)


class _RenamedReader:
    """Reads without the prefix `bert.`, and renames `gamma` and `beta` of old LayerNorms."""

    def __init__(self, reader: SafetensorsReader, folder: pathlib.Path):
        self._reader, self._names = reader, {}
        for name in reader.shapes:
            ours = name.removeprefix("bert.")
            for old, new in (("gamma", "weight"), ("beta", "bias")):
                if ours.endswith(f"LayerNorm.{old}"):
                    ours = ours.removesuffix(old) + new
            if ours in self._names:
                raise InputError(f"{folder}: {name} and {self._names[ours]} are the same weight")
            self._names[ours] = name
        if "cls.predictions.bias" not in self._names and f"{_DECODER}.bias" in self._names:
            self._names["cls.predictions.bias"] = self._names.pop(f"{_DECODER}.bias")
        self.shapes = {ours: reader.shapes[name] for ours, name in self._names.items()}

    def read(self, name: str) -> np.ndarray:
        return self._reader.read(self._names[name])


def _check_ties(reader: _RenamedReader, coverage: Any, folder: pathlib.Path) -> None:
    """Checks that the masked-language-model head is tied to the word embeddings."""
    twins = {
        f"{_DECODER}.weight": "embeddings.word_embeddings.weight",
        f"{_DECODER}.bias": "cls.predictions.bias",
    }
    for name, twin in twins.items():
        if name in coverage.unused and twin in coverage.loaded:
            if not np.array_equal(reader.read(name), reader.read(twin)):
                raise InputError(
                    f"{folder}: {name} differs from {twin}; our masked-language-model head uses "
                    "the same weights for both, so it cannot hold this model"
                )
            coverage.unused.remove(name)
            coverage.tied.append(name)
