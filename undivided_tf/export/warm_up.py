"""Requests with which TensorFlow Serving compiles an export when it loads it.

References:
    tensorflow/serving, docs "SavedModel Warmup": a TFRecord file of PredictionLog messages in
    assets.extra, at most 1,000.
"""

import importlib
import pathlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from undivided_tf.errors import InputError
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.parts import Parts
from undivided_tf.export.signatures import Signature
from undivided_tf.support import extras

FILE = "assets.extra/tf_serving_warmup_requests"  # In the folder of a version.


def write(
    version: pathlib.Path, signatures: Sequence[Signature], parts: Parts, config: ExportConfig
) -> None:
    """Writes a request of each signature, length and batch size.

    Args:
        version: folder of the SavedModel, `directory/1`.
        signatures: of texts.
        parts: gives the tokenizer.
        config: its `pad_to` and `batch_sizes` name the shapes.

    Raises:
        InputError: tensorflow-serving-api is not installed, or no word is one piece.
    """
    with extras.needed("warm_up", "serving"):
        logs, predict, models = (
            importlib.import_module(f"tensorflow_serving.apis.{name}_pb2")
            for name in ("prediction_log", "predict", "model")
        )
    (version / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(version / FILE)) as writer:
        for name, texts in _requests(signatures, parts, config):
            request = predict.PredictRequest(
                model_spec=models.ModelSpec(signature_name=name),
                inputs={key: tf.make_tensor_proto(strings) for key, strings in texts.items()},
            )
            log = logs.PredictionLog(predict_log=logs.PredictLog(request=request))
            writer.write(log.SerializeToString())


def _requests(
    signatures: Sequence[Signature], parts: Parts, config: ExportConfig
) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """The name of a signature and its inputs, for each length and batch size."""
    word = _word(parts.tokenizer.vocabulary)
    for signature in signatures:
        longest = signature.max_seq_length
        for length in (*(size for size in config.pad_to if size < longest), longest):
            # [CLS], and a [SEP] after each text; of two texts the first is a single word.
            words = length - 1 - len(signature.inputs)
            counts = [1, words - 1] if len(signature.inputs) == 2 else [words]
            for batch in config.batch_sizes:
                yield (
                    signature.name,
                    {
                        key: [" ".join([word] * count)] * batch
                        for key, count in zip(signature.inputs, counts, strict=True)
                    },
                )


def _word(vocabulary: Sequence[str]) -> str:
    """A word that is one piece."""
    for piece in vocabulary:
        if piece.isascii() and piece.isalpha() and piece == piece.lower():
            return piece
    raise InputError("warm_up needs a word that is one piece, but the vocabulary has none")
