"""LiteRT files (`.tflite`) that take token ids: with float32, float16 and 8-bit weights."""

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.export import library_tokenizer, reference, signatures
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.inference import LITERT
from undivided_tf.export.parts import Parts

# `dynamic_range`: 8-bit weights; activations are quantised at run time.
FILES = {
    "float32": "model.tflite",
    "float16": "model_float16.tflite",
    "dynamic_range": "model_dynamic_range.tflite",
}


def write(directory: pathlib.Path, parts: Parts, config: ExportConfig) -> dict[str, Any]:
    """Writes the three files and the tokenizer, and compares each file with the Keras models.

    Args:
        directory: an existing directory.
        parts: the weights, in float32.
        config: see `ExportConfig`.

    Returns:
        `files` (bytes by name) and for each of `signatures` its `inputs`, `outputs`,
        `max_seq_length` and `differences`, the largest difference from the Keras models by file.
    """
    exported = signatures.of_ids(
        parts.choose(config.signatures), parts, LITERT, config.max_seq_length
    )
    module, graphs = signatures.trace(exported)
    differences: dict[str, dict[str, float]] = {name: {} for name in graphs}
    with tempfile.TemporaryDirectory() as temporary:
        tf.saved_model.save(module, temporary, graphs)
        for kind, file in FILES.items():
            content = _convert(temporary, list(graphs), kind)
            (directory / file).write_bytes(content)
            interpreter = tf.lite.Interpreter(model_content=content)
            for signature in exported:
                name = signature.name
                run = interpreter.get_signature_runner(name)
                differences[name][file] = reference.largest_difference_of_ids(
                    parts, name, signature.max_seq_length, run
                )
    library_tokenizer.write(directory, parts.tokenizer, exported)
    return {
        "files": {file: (directory / file).stat().st_size for file in FILES.values()},
        "signatures": {
            signature.name: signature.describe(differences=differences[signature.name])
            for signature in exported
        },
    }


def _convert(saved_model: str, signatures: list[str], kind: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=signatures)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def runner(directory: pathlib.Path, name: str) -> Callable[..., dict[str, np.ndarray]]:
    """A signature of the float32 file: from arrays of ids by name to arrays by name."""
    interpreter = tf.lite.Interpreter(model_path=str(directory / FILES["float32"]))
    return interpreter.get_signature_runner(name)
