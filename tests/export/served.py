"""A tiny checkpoint with every head, for the tests of exports."""

import toys

from undivided_tf.export.parts import Parts
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import ClassifierHead, SpanHead
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.span_predictor import SpanPredictor
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

WINDOWS = {
    "max_seq_length": toys.LENGTH,
    "doc_stride": 4,
    "max_query_length": 5,
    "version_2_with_negative": False,
    "null_score_diff_threshold": 0.0,
}


def tokenizer():
    """Words of the toy corpus, and letters."""
    return Tokenizer((*SPECIAL_TOKENS, *toys.FILLERS, "o", "##o", "##s", "."))


def encoder_config(**changes):
    """A block of each kind; large initial values, so that outputs differ."""
    words = tokenizer()
    return toys.encoder_config(
        vocab_size=words.vocab_size,
        vocabulary_hash=words.vocabulary_hash,
        initializer_range=0.5,
        **changes,
    )


def parts(labels=("no", "yes", "maybe"), pooling="mean", about=None, options=None, **windows):
    """Everything that a checkpoint may hold, with random weights.

    `about` is of the classifier, `options` are the encoder's.
    """
    kind = "classification" if labels else "regression"
    head = {"kind": kind, "labels": labels, "pooling": pooling, "max_seq_length": toys.LENGTH}
    head = ClassifierHead(**{**head, **(about or {})})
    encoder = Encoder(encoder_config(**(options or {})), seed=3)
    return Parts(
        encoder=encoder,
        tokenizer=tokenizer(),
        format="undivided",
        has_pooler=True,
        masked_lm=Pretrainer(encoder),
        classifier=Classifier(encoder, head.labels, pooling, seed=3, kind=head.kind),
        classifier_head=head,
        span_predictor=SpanPredictor(encoder, seed=3),
        span_head=SpanHead(**{**WINDOWS, **windows}),
    )
