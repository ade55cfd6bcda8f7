"""A small encoder with random weights, and texts of its vocabulary."""

import numpy as np

from undivided_tf.analysis.subjects import Subject
from undivided_tf.config import EncoderConfig
from undivided_tf.data.tasks.tasks import Rows
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh")


def subject(seed=1, **changes):
    """An encoder with large weights, so that its blocks have an effect."""
    tokenizer = Tokenizer(PIECES)
    config = EncoderConfig(
        vocab_size=len(PIECES), hidden_size=8, num_attention_heads=2, intermediate_size=16,
        block_pattern="AAI", max_position_embeddings=64, initializer_range=0.5,
        vocabulary_hash=tokenizer.vocabulary_hash,
    )  # fmt: skip
    return Subject(Encoder(config.replace(**changes), seed=seed), tokenizer, seed)


def rows(count=11, longest=8):
    """Texts of one to `longest` letters."""
    rng = np.random.default_rng(0)
    return Rows(
        [" ".join(rng.choice(list(PIECES[5:]), rng.integers(1, longest + 1))) for _ in range(count)]
    )
