import numpy as np
import pytest

from undivided_tf.analysis import taps
from undivided_tf.config import EncoderConfig
from undivided_tf.data.tasks import Rows
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer

WORDS = "the a cat dog sat ran on mat far home".split()
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
TEXTS = [
    "the cat sat",
    "a dog ran far",
    "on",
    "the dog sat on the mat",
    "home a cat ran",
    "",
    "mat",
]
LENGTH = 12


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(PIECES)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(
        EncoderConfig(
            vocab_size=len(PIECES), hidden_size=8, num_attention_heads=2, intermediate_size=16,
            block_pattern="AAI", max_position_embeddings=16,
        ),
        seed=1,
    )  # fmt: skip


def alone(encoder, tokenizer, text, second=None):
    """Taps of one text without any padding, special tokens included: `(tokens, hidden)`."""
    pair = None if second is None else [second]
    inputs = tokenizer.encode([text], pair, max_seq_length=LENGTH)
    length = int(np.sum(inputs["padding_mask"]))
    inputs = {name: value[:, :length] for name, value in inputs.items()}
    outputs = encoder(inputs, training=False, return_taps=True)
    return {name: np.asarray(tap[0]) for name, tap in outputs["taps"].items()}


def tokens(encoder, tokenizer, texts=TEXTS, **options):
    chosen = {"tokens_per_example": 2, "batch_size": 3, "max_seq_length": LENGTH, "seed": 7}
    return list(taps.token_activations(encoder, tokenizer, Rows(texts), **{**chosen, **options}))


def pooled(encoder, tokenizer, rows, **options):
    chosen = {"pooling": "mean", "batch_size": 3, "max_seq_length": LENGTH}
    return list(taps.pooled_activations(encoder, tokenizer, rows, **{**chosen, **options}))


@pytest.mark.parametrize(
    ("pooling", "reduce"),
    [("first", lambda x: x[0]), ("mean", lambda x: x.mean(0)), ("max", lambda x: x.max(0))],
)
def test_pooling_sees_no_padding(encoder, tokenizer, pooling, reduce):
    batches = pooled(encoder, tokenizer, Rows(TEXTS), pooling=pooling)
    assert [len(batch["embeddings"]) for batch in batches] == [3, 3, 1]
    assert list(batches[0]) == list(encoder.config.pattern.tap_names)
    for name in batches[0]:
        expected = [reduce(alone(encoder, tokenizer, text)[name]) for text in TEXTS]
        got = np.concatenate([batch[name] for batch in batches])
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_pairs_are_encoded_as_pairs(encoder, tokenizer):
    batch = pooled(encoder, tokenizer, Rows(["a cat", "home"], ["the mat", "far"]))[0]
    expected = alone(encoder, tokenizer, "a cat", "the mat")["block_01/intermediate"].mean(0)
    np.testing.assert_allclose(batch["block_01/intermediate"][0], expected, atol=1e-5)


def test_token_draw_takes_real_tokens_of_each_text(encoder, tokenizer):
    batches = tokens(encoder, tokenizer)
    # Two of each text; "on" and "mat" have one, the empty text none.
    assert [len(batch["embeddings"]) for batch in batches] == [2 + 2 + 1, 2 + 2 + 0, 1]
    rows = iter(np.concatenate([batch["block_01/attention"] for batch in batches]))
    for text in TEXTS:
        content = alone(encoder, tokenizer, text)["block_01/attention"][1:-1]
        places = [
            np.flatnonzero(np.abs(content - row).max(1) < 1e-5)[0]
            for _, row in zip(range(min(2, len(content))), rows, strict=False)
        ]
        assert places == sorted(set(places))  # Each at most once, in the order of the text.


def test_all_tokens_when_enough_are_asked_for(encoder, tokenizer):
    text = TEXTS[3]
    for special, cut in ((True, slice(None)), (False, slice(1, -1))):
        (batch,) = tokens(encoder, tokenizer, [text], tokens_per_example=99, special_tokens=special)
        for name, expected in alone(encoder, tokenizer, text).items():
            np.testing.assert_allclose(batch[name], expected[cut], atol=1e-5)


def test_the_draw_depends_on_seed_and_row_alone(encoder, tokenizer):
    def embeddings(**options):
        batches = tokens(encoder, tokenizer, **options)
        return np.concatenate([batch["embeddings"] for batch in batches])

    whole = embeddings()
    np.testing.assert_allclose(embeddings(batch_size=5), whole, atol=1e-6)
    np.testing.assert_allclose(embeddings(taps=["embeddings"]), whole, atol=1e-6)
    assert np.abs(embeddings(seed=8) - whole).max() > 0.01
    same = embeddings(texts=[TEXTS[3]] * 6).reshape(6, 2, -1)
    assert len(np.unique(same.round(4), axis=0)) > 1  # Equal texts are not drawn alike.


def test_another_encoder_is_seen_at_the_same_tokens(encoder, tokenizer):
    # Same embeddings (same seed and sizes), other blocks: equal draws give equal embeddings.
    other = Encoder(encoder.config.replace(block_pattern="AI"), seed=1)
    for mine, others in zip(tokens(encoder, tokenizer), tokens(other, tokenizer), strict=True):
        np.testing.assert_allclose(mine["embeddings"], others["embeddings"], atol=1e-6)


def test_only_the_taps_asked_for_in_their_order(encoder, tokenizer):
    names = ["block_01/intermediate", "embeddings"]
    assert list(pooled(encoder, tokenizer, Rows(TEXTS), taps=names)[0]) == names


def test_minibatches_are_made_when_asked_for(encoder, tokenizer):
    class Counting:
        is_special, calls = tokenizer.is_special, 0

        def encode(self, *texts, **options):
            self.calls += 1
            return tokenizer.encode(*texts, **options)

    counting = Counting()
    stream = taps.pooled_activations(
        encoder, counting, Rows(TEXTS * 100), pooling="mean", batch_size=2, max_seq_length=LENGTH
    )
    next(stream), next(stream)
    assert counting.calls == 2


def test_what_cannot_be_extracted_is_refused(encoder, tokenizer):
    names = "embeddings, block_00/attention, block_01/attention, block_01/intermediate"
    with pytest.raises(InputError, match=f"unknown tap 'block_9'; the taps of A\\*2I are: {names}"):
        tokens(encoder, tokenizer, taps=["block_9"])
    with pytest.raises(InputError, match="the split is empty"):
        tokens(encoder, tokenizer, [])
    with pytest.raises(InputError, match="max_seq_length 20 is more than .* 16"):
        tokens(encoder, tokenizer, max_seq_length=20)
    with pytest.raises(InputError, match="pooling must be one of first, mean, max"):
        pooled(encoder, tokenizer, Rows(TEXTS), pooling="median")


def test_a_diverged_encoder_is_named_by_its_first_bad_tap(encoder, tokenizer):
    broken = Encoder(encoder.config, seed=1)
    kernel = broken.blocks[1].weights[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(InputError, match="tap block_01/attention: activations are not finite"):
        tokens(broken, tokenizer)
