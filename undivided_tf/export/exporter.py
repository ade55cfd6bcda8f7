"""Exports a trained model in one of several formats."""

import pathlib
from typing import Any

from undivided_tf import accounting
from undivided_tf.export import litert, onnx, parts, saved_model
from undivided_tf.export.config import ExportConfig
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
