"""Recognises the format of a checkpoint, loads it, and writes it in another format."""

import importlib.metadata
import pathlib
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.config import EncoderConfig
from undivided_tf.convert import google, huggingface, keras_hub_presets, names, ours
from undivided_tf.convert.checkpoint import Checkpoint, LazyTensor
from undivided_tf.convert.config import ConversionConfig
from undivided_tf.errors import InputError
from undivided_tf.layers import initializers
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.span_predictor import SpanPredictor
from undivided_tf.models.weights import WEIGHTS, named_weights, require_finite
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer
from undivided_tf.workdir import new_directory

REPORT = "conversion.json"
_WHEEL = "wheel:"
_FORMATS = {
    "undivided": ours,
    "huggingface": huggingface,
    "google": google,
    "keras_hub": keras_hub_presets,
}


def load(path: str | pathlib.Path, do_lower_case: bool | None = None) -> tuple[Encoder, Tokenizer]:
    """Loads the encoder of a checkpoint of any known format; logs its tensors and its fingerprint.

    Args:
        path: a Hugging Face folder, Google's TensorFlow checkpoint, a KerasHub preset, a
            checkpoint or workdir of this package, or `wheel:NAME`, an installed package that
            contains a Hugging Face folder.
        do_lower_case: whether the vocabulary is uncased; None: as the checkpoint declares, or else
            as its vocabulary suggests.

    Returns:
        The encoder with its weights, and its tokenizer.

    Raises:
        InputError: an unknown format, or invalid files.
    """
    folder = locate(path)
    source = open_checkpoint(folder, do_lower_case)
    encoder = build_encoder(source)
    logging.info("%s, %s\n%s", folder, source.format, source.coverage)
    logging.info("fingerprint %s", fingerprint(encoder))
    return encoder, source.tokenizer


def convert(config: ConversionConfig) -> dict[str, Any]:
    """Writes a checkpoint in another format.

    Args:
        config: `config.output_dir` must not exist.

    Returns:
        The content of conversion.json: formats, pattern, casing, `surplus_rows` (word embeddings
        without a word piece), heads, left-out parts, coverage and fingerprint.

    Raises:
        InputError: see `load`; `output_dir` exists; or the encoder or a fine-tuned head has no
            counterpart in the format.
    """
    output = new_directory(config.output_dir)
    folder = locate(config.input)
    given = {"true": True, "false": False}.get(config.do_lower_case)
    source = open_checkpoint(folder, given)
    # Check the weights before anything is written.
    numbers = fingerprint(build_encoder(source))
    if not np.isfinite(numbers).all():
        raise InputError(f"{folder}: the weights give activations that are not finite")
    heads = source.heads
    if config.encoder_only:
        source = source.without_heads()
    report = {
        "kind": "conversion",
        "format": source.format,
        "output_format": config.output_format,
        "pattern": source.config.block_pattern,
        "do_lower_case": source.tokenizer.do_lower_case,
        "surplus_rows": source.config.vocab_size - source.tokenizer.vocab_size,
        "left_out": [name for name in heads if name not in source.heads],
        "coverage": vars(source.coverage),
        "fingerprint": numbers,
    }
    write(output, source, config.output_format, REPORT, report)
    logging.info("%s, %s\n%s", folder, source.format, source.coverage)
    logging.info("fingerprint %s", numbers)
    return report


def write(
    output: pathlib.Path, source: Checkpoint, output_format: str, name: str, report: dict[str, Any]
) -> None:
    """Writes a checkpoint in a format, with a report.

    Args:
        output: the directory, written atomically.
        source: the weights.
        output_format: one of `config.OUTPUT_FORMATS`.
        name: file name of the report.
        report: its content. The names of parts that the format cannot hold are added to `left_out`.
            `heads` becomes the list of the heads that were written.

    Raises:
        InputError: the encoder or a fine-tuned head has no counterpart in the format.
    """
    with files.atomic_path(output) as partial:
        left_out = _FORMATS[output_format].write(partial, source)
        report["left_out"] = [*report.get("left_out", []), *left_out]
        report["heads"] = [head for head in source.heads if head not in left_out]
        files.write_json(partial / name, report)


def locate(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of a checkpoint.

    Args:
        path: the folder, or `wheel:NAME`: the folder with vocab.txt in an installed package.

    Raises:
        InputError: there is no such folder or package.
    """
    if not str(path):
        raise InputError("a checkpoint is needed: --input=FOLDER")
    name = str(path).removeprefix(_WHEEL)
    if name == str(path):
        if not pathlib.Path(path).is_dir():
            raise InputError(f"there is no folder {path}")
        return pathlib.Path(path)
    try:
        members = importlib.metadata.files(name) or []
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise InputError(f"no package {name} is installed: pip install --no-deps {name}") from error
    folders = {
        pathlib.Path(str(member.locate())).parent
        for member in members
        if member.name == "vocab.txt"
    }
    if len(folders) != 1:
        raise InputError(f"the package {name} has {len(folders)} folders with vocab.txt, not one")
    return folders.pop()


def input_files(path: str) -> dict[str, pathlib.Path]:
    """The files of a checkpoint of any format, by name.

    Raises:
        InputError: there is no such folder or package.
    """
    folder = locate(path)
    if ours.recognise(folder):
        return checkpoints.input_files(str(folder))
    hidden = (p for p in folder.iterdir() if p.name.startswith("."))
    return {p.name: p for p in sorted({*folder.iterdir()} - {*hidden}) if p.is_file()}


def open_checkpoint(folder: pathlib.Path, do_lower_case: bool | None = None) -> Checkpoint:
    """Opens a checkpoint of any format; missing optional weights get initial values.

    Args:
        folder: the checkpoint.
        do_lower_case: as for `load`.

    Raises:
        InputError: an unknown format, or invalid files.
    """
    for module in _FORMATS.values():
        if module.recognise(folder):
            source = module.open_checkpoint(folder, do_lower_case)
            source.tensors |= _initial_tensors(source.config, source.coverage.initial)
            return source
    raise InputError(
        f"{folder} is not a checkpoint of a known format: Hugging Face folders have a config.json "
        f"with model_type, Google's have {google.CONFIG}, KerasHub presets have a config.json with "
        f"BertBackbone, and ours have {WEIGHTS}"
    )


def fingerprint(encoder: Encoder) -> list[float]:
    """Six numbers from a forward pass over fixed ids; equal weights give equal numbers.

    Returns:
        Mean, standard deviation and largest magnitude of the sequence output, and the first three
        values of the pooled output, rounded to five digits.
    """
    config = encoder.config
    length = min(16, config.max_position_embeddings)
    ids = (np.arange(2 * length, dtype="int32").reshape(2, length) * 97) % config.vocab_size
    mask = np.ones_like(ids)
    mask[1, length // 2 :] = 0
    outputs = encoder({"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": mask})
    sequence = np.asarray(outputs["sequence_output"])[mask == 1]
    pooled = np.asarray(outputs["pooled_output"])[0, :3]
    values = [sequence.mean(), sequence.std(), np.abs(sequence).max(), *pooled]
    return [round(float(value), 5) for value in values]


def build_encoder(source: Checkpoint, dtype: str = "float32") -> Encoder:
    """Builds the encoder under a Keras dtype policy and reads its weights one at a time."""
    with initializers.unset():
        encoder = Encoder(source.config, dtype=dtype)
    assign(encoder, source)
    if dtype != "float32":  # float16 overflows above 65,504.
        for path, variable in named_weights(encoder.weights).items():
            require_finite({path: np.asarray(variable)}, f"the weights as {dtype}")
    return encoder


def build_classifier(source: Checkpoint, encoder: Encoder) -> Classifier:
    """Builds the classifier on the given encoder, in float32."""
    model = Classifier.from_head(encoder, source.classifier)
    assign(model.head, source)
    return model


def build_span_predictor(source: Checkpoint, encoder: Encoder) -> SpanPredictor:
    """Builds the span predictor on the given encoder, in float32."""
    model = SpanPredictor(encoder)
    assign(model.head, source)
    return model


def assign(layer: Any, source: Checkpoint) -> None:
    """Assigns the weights of the checkpoint to an encoder or the layer of a head, by name."""
    for path, variable in named_weights(layer.weights).items():
        variable.assign(source.tensors[path].read())


def _initial_tensors(config: EncoderConfig, paths: list[str]) -> dict[str, LazyTensor]:
    """Initial values of the weights of these names."""
    initial = {}
    for tensor in names.encoder_tensors(config):
        if tensor.path in paths:
            initialize = (
                initializers.truncated_normal(config.initializer_range, 0, tensor.path)
                if tensor.part == "kernel"
                else np.zeros
            )
            initial[tensor.path] = LazyTensor(
                tensor.shape, lambda f=initialize, shape=tensor.shape: np.asarray(f(shape))
            )
    return initial
