"""ONNX files that take token ids, one file per signature; needs the extra `onnx`."""

import importlib
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.errors import InputError
from undivided_tf.export import reference, signatures
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.inference import ONNX
from undivided_tf.export.parts import Parts
from undivided_tf.models import checkpoints

OPSET = 17


def write(directory: pathlib.Path, parts: Parts, config: ExportConfig) -> dict[str, Any]:
    """Writes `SIGNATURE.onnx` for each signature, and the vocabulary; compares each file.

    Args:
        directory: an existing directory.
        parts: the weights, in float32.
        config: see `ExportConfig`.

    Returns:
        As `litert.write`.

    Raises:
        InputError: tf2onnx or onnxruntime is not installed.
    """
    _, tf2onnx = packages()
    made = signatures.of_ids(parts.choose(config.signatures), parts, ONNX, config.max_seq_length)
    files, about = {}, {}
    for signature in made:
        path = directory / f"{signature.name}.onnx"
        function = tf.function(signature.function, signature.specs, autograph=False)
        tf2onnx.convert.from_function(
            function, input_signature=signature.specs, opset=OPSET, output_path=str(path)
        )
        files[path.name] = path.stat().st_size
        difference = reference.largest_difference_of_ids(
            parts, signature.name, signature.max_seq_length, runner(directory, signature.name)
        )
        about[signature.name] = signature.describe(differences={path.name: difference})
    parts.tokenizer.save(directory / checkpoints.VOCABULARY)
    return {"files": files, "signatures": about}


def runner(directory: pathlib.Path, name: str) -> Callable[..., dict[str, np.ndarray]]:
    """A signature of an export: from arrays of ids by name to arrays by name."""
    session = _imported("onnxruntime").InferenceSession(directory / f"{name}.onnx")
    outputs = [output.name for output in session.get_outputs()]
    return lambda **inputs: dict(zip(outputs, session.run(outputs, inputs), strict=True))


def packages() -> tuple[Any, Any]:
    """onnxruntime and tf2onnx; InputError where one is not installed."""
    return _imported("onnxruntime"), _imported("tf2onnx")


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"output_format onnx needs the package {error.name}: pip install undivided_tf[onnx]"
        ) from error
