"""TensorFlow checkpoints of google-research/bert: bert_config.json and bert_model.ckpt."""

import glob
import pathlib

import numpy as np
import tensorflow as tf

from undivided_tf.convert import heads, huggingface, names, vocabularies
from undivided_tf.convert.checkpoint import Checkpoint, Foreign, match
from undivided_tf.convert.tensor_files import as_float32, read_object
from undivided_tf.errors import InputError
from undivided_tf.support import files

CONFIG = "bert_config.json"
_TRANSPOSED_HEADS = {  # Scopes of the heads whose kernels are (outputs, inputs).
    "cls.seq_relationship": "cls/seq_relationship/",
    "classifier": "",
    "qa_outputs": "cls/squad/",
}
_OPTIMIZER = ("/adam_m", "/adam_v")


def recognise(folder: pathlib.Path) -> bool:
    """Whether the folder has Google's config."""
    return (folder / CONFIG).is_file()


def open_checkpoint(folder: pathlib.Path, do_lower_case: bool | None = None) -> Checkpoint:
    """Opens a folder with bert_config.json, one TensorFlow checkpoint and vocab.txt.

    The format does not name the labels of a classifier, so they are called LABEL_0, LABEL_1 ..., as
    by Hugging Face. A head with one output is a regression.

    Args:
        folder: the checkpoint.
        do_lower_case: the casing; None: see `vocabularies.read_tokenizer`.

    Raises:
        InputError: another architecture, a bad file, or parts that do not fit together.
    """
    settings = {"layer_norm_eps": 1e-12, **read_object(folder / CONFIG), "model_type": "bert"}
    tokenizer = vocabularies.read_tokenizer(folder, CONFIG, do_lower_case)
    reader = _Reader(folder)
    table = reader.shapes.get("bert/embeddings/word_embeddings", ())
    config = huggingface.encoder_config(settings, folder / CONFIG, tokenizer, table)
    needed = list(names.encoder_tensors(config))
    classifier, spans = None, None
    if "cls/predictions/output_bias" in reader.shapes:
        needed += names.masked_lm_tensors(config)
    if "cls/seq_relationship/output_weights" in reader.shapes:
        needed += names.next_sentence_tensors(config)
    if len(reader.shapes.get("output_weights", ())) == 2:
        classifier = heads.undescribed(reader.shapes["output_weights"][0], config)
        needed += names.classifier_tensors(config, classifier)
    if "cls/squad/output_weights" in reader.shapes:
        spans = heads.spans(folder, config)
        needed += names.span_tensors(config)
    tensors, coverage = match(
        folder, needed, _foreign, reader, names.pooler_tensors(config), _is_encoder
    )
    return Checkpoint("google", config, tokenizer, tensors, coverage, classifier, spans)


def _is_encoder(name: str) -> bool:
    return name.startswith("bert/") and not name.endswith(_OPTIMIZER)


def _foreign(tensor: names.Tensor) -> Foreign:
    """Kernels are (inputs, outputs) as ours, except in most heads."""
    module, part, shape = tensor.module, tensor.part, tensor.shape
    if module in _TRANSPOSED_HEADS:
        scope = _TRANSPOSED_HEADS[module]
        if part == "kernel":
            return Foreign(f"{scope}output_weights", shape[::-1], transposed=True)
        return Foreign(f"{scope}output_bias", shape)
    if module == "cls.predictions":
        return Foreign("cls/predictions/output_bias", shape)
    scope = "" if module.startswith("cls.") else "bert/"
    name = scope + module.replace("encoder.layer.", "encoder/layer_").replace(".", "/")
    return Foreign(name if part == "embeddings" else f"{name}/{part}", shape)


class _Reader:
    """The variables of a TensorFlow checkpoint."""

    def __init__(self, folder: pathlib.Path):
        indices = sorted(folder.glob("*.index"))
        if len(indices) != 1:
            raise InputError(
                f"{folder} has {len(indices)} TensorFlow checkpoints (*.index), not one"
            )
        self._path = indices[0].with_suffix("")
        for path in (indices[0], *folder.glob(f"{glob.escape(self._path.name)}.data-*")):
            files.check_fetched(path)
        try:
            self._reader = tf.train.load_checkpoint(str(self._path))
            self.shapes = {
                name: tuple(shape)
                for name, shape in self._reader.get_variable_to_shape_map().items()
            }
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise InputError(f"{self._path} is not a TensorFlow checkpoint: {error}") from error

    def read(self, name: str) -> np.ndarray:
        try:
            array = self._reader.get_tensor(name)
        except IndexError as error:  # The reader's error for an offset out of range.
            raise InputError(
                f"{self._path}: {name} is beyond the end of the .data file, which is truncated "
                f"({error}): fetch it again"
            ) from error
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise InputError(f"{self._path}: {name} cannot be read: {error}") from error
        if not tf.as_dtype(array.dtype).is_floating:
            raise InputError(f"{self._path}: {name} holds {array.dtype}, weights are floats")
        return as_float32(array, name, self._path)
