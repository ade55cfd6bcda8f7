"""What a checkpoint holds: an encoder, a tokenizer, and the heads that decide what it can do."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from undivided_tf import files
from undivided_tf.convert import converter
from undivided_tf.convert.tensor_files import SafetensorsReader
from undivided_tf.errors import InputError
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.span_predictor import SpanPredictor
from undivided_tf.recipes import SIGNATURES
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import checkpoints, classifiers
from undivided_tf.training.span_finetuning import SPAN_PREDICTOR
from undivided_tf.training.weights import WEIGHTS, named_weights

_OF_PAIRS = ("classify_pair", "answer")


@dataclasses.dataclass(frozen=True)
class Parts:
    """A checkpoint, loaded.

    Attributes:
        encoder: Encoder. With its weights.
        tokenizer: Tokenizer. The encoder's.
        format: name of the checkpoint's format.
        has_pooler: whether the pooler was trained; a checkpoint may lack it.
        masked_lm: Pretrainer with the masked-language-model head, or None.
        classifier: Classifier, or None.
        classifier_length: word pieces an example when the classifier was trained; 0: not said.
        span_predictor: SpanPredictor, or None.
        windows: how its windows were made in training: `max_seq_length`, `doc_stride`,
            `max_query_length`, `version_2_with_negative` and `null_score_diff_threshold`.
    """

    encoder: Encoder
    tokenizer: Tokenizer
    format: str
    has_pooler: bool
    masked_lm: Pretrainer | None
    classifier: Classifier | None
    classifier_length: int
    span_predictor: SpanPredictor | None
    windows: dict[str, Any]

    @property
    def signatures(self) -> tuple[str, ...]:
        """What the weights support."""
        needs = {
            "classify": self.classifier,
            "classify_pair": self.classifier,
            "answer": self.span_predictor,
            "fill_mask": self.masked_lm,
            "embed": self.encoder,
        }
        found = tuple(name for name in SIGNATURES if needs[name] is not None)
        if self.encoder.config.type_vocab_size < 2:
            found = tuple(name for name in found if name not in _OF_PAIRS)
        return found

    def choose(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """The signatures to export.

        Args:
            asked: names; none: all that the weights support.

        Raises:
            InputError: the head of one is missing.
        """
        if any(name in _OF_PAIRS for name in asked):
            self.encoder.config.require_segments(2)
        missing = [name for name in asked if name not in self.signatures]
        if missing:
            raise InputError(
                f"the checkpoint has no head for the signature {', '.join(missing)}: its weights "
                f"support {', '.join(self.signatures)}"
            )
        return tuple(name for name in SIGNATURES if name in (asked or self.signatures))

    def windows_of(self, length: int) -> dict[str, Any]:
        """`windows` for another length, in which a question and its context still have room."""
        about = {**self.windows, "max_seq_length": length}
        about["max_query_length"] = min(about["max_query_length"], (length - 3) // 2)
        room = length - about["max_query_length"] - 3
        about["doc_stride"] = min(about["doc_stride"], room)
        if min(about["max_query_length"], room) < 1:
            raise InputError(
                f"max_seq_length {length} is too short for a question, a context and three "
                "special tokens: give at least 5"
            )
        return about


def load(path: str, dtype: str = "float32") -> Parts:
    """Loads a checkpoint of any format, with all heads that are known here.

    Args:
        path: as for `convert.load`.
        dtype: what the weights of the encoder and of the masked-language-model head become, and
            what these compute in; `float32` or `bfloat16`. The other heads stay in float32.

    Raises:
        InputError: as for `convert.load`; or a fine-tuned model whose head is missing.
    """
    folder = converter.locate(path)
    source = converter.open_source(folder)
    encoder = converter.build_encoder(source, dtype)
    arrays = {name: read for name, (_, read) in source.tensors.items()}
    masked_lm, classifier, span_predictor, length, windows = None, None, None, 0, {}
    if source.labels:
        classifier = Classifier(encoder, source.labels)
    if source.format == "undivided":
        folder = checkpoints.resolve(folder)
        reader = SafetensorsReader([folder / WEIGHTS])
        arrays |= {name: lambda n=name: reader.read(n) for name in source.coverage.unused}
        if (folder / classifiers.CLASSIFIER).exists():
            about = classifiers.read_about(folder)
            classifier = Classifier(encoder, about["labels"], about["pooling"])
            length = about["max_seq_length"]
        if (folder / SPAN_PREDICTOR).exists():
            span_predictor = SpanPredictor(encoder)
            windows = _windows(folder)
    if "masked_lm_head/output_bias" in arrays:
        masked_lm = Pretrainer(encoder)
        _assign(masked_lm.masked_lm_head, arrays, folder)
    for model in (classifier, span_predictor):
        if model:
            _assign(model.head, arrays, folder)
    return Parts(
        encoder=encoder,
        tokenizer=source.tokenizer,
        format=source.format,
        has_pooler=not any(name.startswith("encoder/pooler/") for name in source.coverage.initial),
        masked_lm=masked_lm,
        classifier=classifier,
        classifier_length=length,
        span_predictor=span_predictor,
        windows=windows,
    )


def _windows(folder) -> dict[str, Any]:
    """What span_predictor.json says, and the threshold that the run beside it has tuned."""
    about = {"null_score_diff_threshold": 0.0, **files.read_json(folder / SPAN_PREDICTOR)}
    run = folder.parent / "run.json"
    if run.exists():
        about["null_score_diff_threshold"] = files.read_json(run)["null_score_diff_threshold"]
    return about


def _assign(layer: Any, arrays: dict[str, Callable[[], np.ndarray]], where: Any) -> None:
    for name, variable in named_weights(layer.weights).items():
        if name not in arrays:
            raise InputError(f"{where} lacks the weight {name} of the head that it describes")
        value = arrays[name]()
        if tuple(value.shape) != tuple(variable.shape):
            raise InputError(
                f"{where}: {name} has the shape {value.shape}, the head needs "
                f"{tuple(variable.shape)}"
            )
        variable.assign(value)
