"""A SavedModel that takes raw strings: the tokenizer is part of its graph."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.export import reference, signatures, texts, warm_up
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.inference import XLA, InferenceEncoder
from undivided_tf.export.parts import Parts, load

VERSION = "1"  # TensorFlow Serving loads the folder with the highest number.


def write(directory: pathlib.Path, parts: Parts, config: ExportConfig) -> dict[str, Any]:
    """Writes `directory/1`, the layout of TensorFlow Serving, and compares it with the reference.

    Args:
        directory: an existing directory.
        parts: the weights in `config.dtype`.
        config: see `ExportConfig`.

    Returns:
        `files` (bytes by name) and for each of `signatures` its `inputs`, `outputs`,
        `max_seq_length` and `largest_difference` from the reference in float32.
    """
    chosen = parts.choose(config.signatures)
    encode = _encode(parts, config)
    exported = [signatures.of_texts(name, parts, encode, config) for name in chosen]
    module, graphs = signatures.trace(exported)
    path = directory / VERSION
    default = graphs[chosen[0]]  # TensorFlow Serving uses it if a request names none.
    tf.saved_model.save(
        module, str(path), {**graphs, tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: default}
    )
    if config.warm_up:
        warm_up.write(path, exported, parts, config)
    served = tf.saved_model.load(str(path)).signatures
    sizes = {
        str(member.relative_to(directory)): member.stat().st_size
        for member in sorted(path.rglob("*"))
        if member.is_file()
    }
    float32_parts = parts if config.dtype == "float32" else load(config.input)
    return {
        "files": sizes,
        "signatures": {
            signature.name: signature.describe(
                largest_difference=reference.largest_difference(
                    signature.name,
                    served[signature.name],
                    float32_parts,
                    signature.max_seq_length,
                    config.max_answer_length,
                )
            )
            for signature in exported
        },
    }


def runner(directory: pathlib.Path, name: str) -> Callable[..., dict[str, np.ndarray]]:
    """A signature of an export: from arrays of strings by name to arrays by name."""
    served = tf.saved_model.load(str(directory / VERSION)).signatures[name]

    def run(**strings):
        outputs = served(**{key: tf.constant(value) for key, value in strings.items()})
        return {key: value.numpy() for key, value in outputs.items()}

    return run


def _encode(parts: Parts, config: ExportConfig):
    if not config.jit_compile:
        return InferenceEncoder(parts.encoder)
    # XLA cannot compile operations on strings, so only the encoder is compiled.
    encode = tf.function(InferenceEncoder(parts.encoder, XLA), jit_compile=True, autograph=False)
    if not config.batch_sizes:
        return encode

    def encode_filled(inputs, positions=None):
        """Encodes a batch that is filled up with rows of padding, whose outputs are dropped."""
        rows = tf.shape(inputs["token_ids"])[0]
        missing = texts.next_size(tf.maximum(rows, 1), config.batch_sizes) - rows

        def fill(value):
            return tf.pad(value, [[0, missing], [0, 0]])

        filled = {name: fill(value) for name, value in inputs.items()}
        outputs = encode(filled, None if positions is None else fill(positions))
        return {name: value[:rows] for name, value in outputs.items()}

    return encode_filled
