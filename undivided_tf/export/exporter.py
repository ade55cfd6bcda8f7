"""Exports a trained model in one of several formats."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.export import litert, onnx, parts, saved_model
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.texts import without_padding
from undivided_tf.models import checkpoints
from undivided_tf.support import files

REPORT = "export.json"
_FORMATS = {"saved_model": saved_model, "litert": litert, "onnx": onnx}


def export(directory: pathlib.Path, config: ExportConfig) -> dict[str, Any]:
    """Writes a model and export.json into a new directory.

    Args:
        directory: the directory to make, usually a path of `files.atomic_path`.
        config: see `ExportConfig`; its `output_dir` is ignored.

    Returns:
        The content of export.json.

    Raises:
        InputError: no checkpoint at `config.input`, a signature whose head is missing, or more word
            pieces than the encoder has positions.
    """
    loaded = parts.load(config.input, config.dtype)
    loaded.choose(config.signatures)
    directory.mkdir()
    encoder = loaded.encoder.config
    written = _FORMATS[config.output_format].write(directory, loaded, config)
    report = {
        "kind": "export",
        "config": config.to_dict(),
        "checkpoint_format": loaded.format,
        "encoder": encoder.to_dict(),
        "parameters": accounting.count_parameters(encoder),
        "classifier": loaded.classifier_head and loaded.classifier_head.to_dict(),
        "span_predictor": loaded.span_head and loaded.span_head.to_dict(),
        **written,
    }
    files.write_json(directory / REPORT, report)
    return report


def on_texts(
    directory: pathlib.Path, report: dict[str, Any], name: str
) -> Callable[..., dict[str, np.ndarray]]:
    """A signature of an export as a function of texts, run as a serving program would run it.

    Args:
        directory: directory of the export.
        report: the content of its export.json.
        name: one of `embed`, `classify` and `classify_pair`, if the export has it.

    Returns:
        A function from a list of texts, and for pairs a list of the second texts, to arrays by
        name. Formats that take ids get them from the export's vocab.txt.
    """
    output_format = report["config"]["output_format"]
    signature = report["signatures"][name]
    run = _FORMATS[output_format].runner(directory, name)
    if output_format == "saved_model":
        return lambda *texts: run(**dict(zip(signature["inputs"], texts, strict=True)))
    tokenizer = checkpoints.read_tokenizer(directory, EncoderConfig.from_dict(report["encoder"]))
    config = ExportConfig.from_dict(report["config"])

    # As a graph, since the tokenizer has many small operations; one for all batch sizes.
    @tf.function(autograph=False, reduce_retracing=True)
    def encode(texts):
        return without_padding(
            tokenizer.encode(*texts, max_seq_length=signature["max_seq_length"]), config
        )

    def run_on_texts(*texts):
        inputs = encode([tf.constant(strings, tf.string) for strings in texts])
        return run(**{key: value.numpy() for key, value in inputs.items()})

    return run_on_texts
