"""ONNX files that take token ids, one file per signature; needs the extra `onnx`."""

import importlib
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.export import library_tokenizer, reference, signatures
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.inference import ONNX
from undivided_tf.export.parts import Parts
from undivided_tf.support import extras

OPSET = 17


def write(directory: pathlib.Path, parts: Parts, config: ExportConfig) -> dict[str, Any]:
    """Writes `SIGNATURE.onnx` for each signature and the tokenizer, and compares each file.

    Args:
        directory: an existing directory.
        parts: the weights, in float32.
        config: see `ExportConfig`.

    Returns:
        See `litert.write`.

    Raises:
        InputError: tf2onnx or onnxruntime is not installed.
    """
    _, tf2onnx = packages()
    exported = signatures.of_ids(
        parts.choose(config.signatures), parts, ONNX, config.max_seq_length
    )
    files, descriptions = {}, {}
    for signature in exported:
        path = directory / f"{signature.name}.onnx"
        function = tf.function(signature.function, signature.specs, autograph=False)
        model, _ = tf2onnx.convert.from_function(
            function, input_signature=signature.specs, opset=OPSET
        )
        _divide_before_erf(model.graph)
        path.write_bytes(model.SerializeToString())
        files[path.name] = path.stat().st_size
        difference = reference.largest_difference_of_ids(
            parts, signature.name, signature.max_seq_length, runner(directory, signature.name)
        )
        descriptions[signature.name] = signature.describe(differences={path.name: difference})
    library_tokenizer.write(directory, parts.tokenizer, exported)
    return {"files": files, "signatures": descriptions}


def runner(directory: pathlib.Path, name: str) -> Callable[..., dict[str, np.ndarray]]:
    """A signature of an export: from arrays of ids by name to arrays by name."""
    with extras.needed("output_format onnx", "onnx"):
        onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(directory / f"{name}.onnx")
    outputs = [output.name for output in session.get_outputs()]
    return lambda **inputs: dict(zip(outputs, session.run(outputs, inputs), strict=True))


def _divide_before_erf(graph: Any) -> None:
    """Writes GELU's `erf(x * 0.7071)` as `erf(x / 1.4142)`, in place.

    TensorFlow's constant folding replaces the division by a product, but onnxruntime computes GELU
    by one kernel only where it finds the division.
    """
    helper = importlib.import_module("onnx").numpy_helper
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    divisor = np.array(np.sqrt(2.0), np.float32)
    for erf in (node for node in graph.node if node.op_type == "Erf"):
        scaled = producers.get(erf.input[0])
        if scaled is None or scaled.op_type != "Mul" or scaled.input[1] not in constants:
            continue
        factor = helper.to_array(constants[scaled.input[1]])
        if factor.size == 1 and np.isclose(factor, 1 / divisor, rtol=1e-6).all():
            name = f"{scaled.name}/divisor"
            graph.initializer.append(helper.from_array(divisor, name))
            scaled.op_type, scaled.input[1] = "Div", name


def packages() -> tuple[Any, Any]:
    """onnxruntime and tf2onnx; InputError where one is not installed."""
    with extras.needed("output_format onnx", "onnx"):
        return importlib.import_module("onnxruntime"), importlib.import_module("tf2onnx")
