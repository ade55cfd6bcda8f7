"""Loads a checkpoint: encoder, tokenizer and heads, which decide the signatures of its export."""

import dataclasses

from undivided_tf.convert import converter
from undivided_tf.errors import InputError
from undivided_tf.export.config import SIGNATURES
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import INPUTS, PAIR, SINGLE, ClassifierHead, SpanHead
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.span_predictor import SpanPredictor
from undivided_tf.tokenization import Tokenizer

_OF_PAIRS = ("classify_pair", "answer")


@dataclasses.dataclass(frozen=True)
class Parts:
    """A loaded checkpoint.

    Attributes:
        encoder: Encoder. With its weights.
        tokenizer: Tokenizer. The encoder's.
        format: name of the checkpoint's format.
        has_pooler: whether the checkpoint has the weights of the pooler.
        masked_lm: Pretrainer with the masked-language-model head, or None.
        classifier: Classifier, or None.
        classifier_head: description of the classifier's inputs and outputs, or None.
        span_predictor: SpanPredictor, or None.
        span_head: description of the span predictor's windows, or None.
    """

    encoder: Encoder
    tokenizer: Tokenizer
    format: str
    has_pooler: bool
    masked_lm: Pretrainer | None
    classifier: Classifier | None
    classifier_head: ClassifierHead | None
    span_predictor: SpanPredictor | None
    span_head: SpanHead | None

    @property
    def signatures(self) -> tuple[str, ...]:
        """The signatures that the weights support; for a classifier those of its kind of input."""
        inputs = ()
        if self.classifier_head:
            inputs = (self.classifier_head.input,) if self.classifier_head.input else tuple(INPUTS)
        is_supported = {
            "classify": SINGLE in inputs,
            "classify_pair": PAIR in inputs,
            "answer": self.span_head is not None,
            "fill_mask": self.masked_lm is not None,
            "embed": True,
        }
        if self.encoder.config.type_vocab_size < 2:
            is_supported |= dict.fromkeys(_OF_PAIRS, False)
        return tuple(name for name in SIGNATURES if is_supported[name])

    def choose(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The signatures to export.

        Args:
            names: names of signatures; empty: all that the weights support.

        Raises:
            InputError: a head is missing or takes another kind of input.
        """
        if any(name in _OF_PAIRS for name in names):
            self.encoder.config.require_segments(2)
        missing = [name for name in names if name not in self.signatures]
        if self.classifier_head and any(name.startswith("classify") for name in missing):
            raise InputError(
                f"the classifier was trained on {INPUTS[self.classifier_head.input]}, but the "
                f"signature {missing[0]} takes others: the weights support "
                f"{', '.join(self.signatures)}"
            )
        if missing:
            raise InputError(
                f"the checkpoint has no head for the signature {', '.join(missing)}: the weights "
                f"support {', '.join(self.signatures)}"
            )
        return tuple(name for name in SIGNATURES if name in (names or self.signatures))

    def length_of(self, name: str, max_seq_length: int) -> int:
        """Number of word pieces of a text, or of a window, in a signature.

        Args:
            name: name of the signature.
            max_seq_length: the number; 0: as in fine-tuning, or else all positions of the encoder.

        Raises:
            InputError: the encoder has fewer positions.
        """
        head = {
            "classify": self.classifier_head,
            "classify_pair": self.classifier_head,
            "answer": self.span_head,
        }.get(name)
        config = self.encoder.config
        length = max_seq_length or (head.max_seq_length if head else config.max_position_embeddings)
        config.require_length(length)
        return length


def load(path: str, dtype: str = "float32") -> Parts:
    """Loads a checkpoint of any format with all known heads.

    Args:
        path: see `convert.load`.
        dtype: type of the weights and the computation of the encoder and the
            masked-language-model head, `float32` or `bfloat16`. Other heads stay in float32.

    Raises:
        InputError: see `convert.load`; or the head of a fine-tuned model is missing.
    """
    source = converter.open_checkpoint(converter.locate(path))
    encoder = converter.build_encoder(source, dtype)
    masked_lm, classifier, span_predictor = None, None, None
    if "masked_lm_head" in source.heads:
        masked_lm = Pretrainer(encoder)
        converter.assign(masked_lm.masked_lm_head, source)
    if source.classifier:
        classifier = converter.build_classifier(source, encoder)
    if source.spans:
        span_predictor = converter.build_span_predictor(source, encoder)
    return Parts(
        encoder=encoder,
        tokenizer=source.tokenizer,
        format=source.format,
        has_pooler=not any(name.startswith("encoder/pooler/") for name in source.coverage.initial),
        masked_lm=masked_lm,
        classifier=classifier,
        classifier_head=source.classifier,
        span_predictor=span_predictor,
        span_head=source.spans,
    )
