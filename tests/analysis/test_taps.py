import numpy as np
import pytest
import toys

from undivided_tf.analysis import extraction, taps, words
from undivided_tf.config import EncoderConfig
from undivided_tf.data.tasks.tasks import Rows
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


def test_all_tokens_are_returned_if_enough_are_requested(encoder, tokenizer):
    text = TEXTS[3]
    (batch,) = tokens(encoder, tokenizer, [text], tokens_per_example=99)
    for name, expected in alone(encoder, tokenizer, text).items():
        np.testing.assert_allclose(batch[name], expected[1:-1], atol=1e-5)


def test_the_draw_depends_on_seed_and_row_alone(encoder, tokenizer):
    def embeddings(**options):
        batches = tokens(encoder, tokenizer, **options)
        return np.concatenate([batch["embeddings"] for batch in batches])

    whole = embeddings()
    np.testing.assert_allclose(embeddings(batch_size=5), whole, atol=1e-6)
    np.testing.assert_allclose(embeddings(taps=["embeddings"]), whole, atol=1e-6)
    assert np.abs(embeddings(seed=8) - whole).max() > 0.01
    same = embeddings(texts=[TEXTS[3]] * 6).reshape(6, 2, -1)
    assert len(np.unique(same.round(4), axis=0)) > 1  # Equal texts have different draws.


def test_two_encoders_are_read_at_the_same_tokens(encoder, tokenizer):
    # Same embeddings (same seed and sizes), other blocks: equal draws give equal embeddings.
    other = Encoder(encoder.config.replace(block_pattern="AI"), seed=1)
    for mine, others in zip(tokens(encoder, tokenizer), tokens(other, tokenizer), strict=True):
        np.testing.assert_allclose(mine["embeddings"], others["embeddings"], atol=1e-6)


def test_only_the_requested_taps_are_returned_in_their_order(encoder, tokenizer):
    names = ["block_01/intermediate", "embeddings"]
    assert list(pooled(encoder, tokenizer, Rows(TEXTS), taps=names)[0]) == names


def test_minibatches_are_computed_lazily(encoder, tokenizer):
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


def test_invalid_requests_are_refused(encoder, tokenizer):
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


# === Contributions and attention probabilities ===


def wide_encoder(**changes):
    config = EncoderConfig(
        vocab_size=len(PIECES), hidden_size=8, num_attention_heads=2, intermediate_size=16,
        block_pattern="AAI", max_position_embeddings=16, initializer_range=0.5,
    )  # fmt: skip
    return Encoder(config.replace(**changes), seed=1)


@pytest.mark.parametrize("norm_first", [False, True])
def test_contributions_are_what_blocks_add_to_the_stream(tokenizer, norm_first):
    encoder = wide_encoder(norm_first=norm_first)
    inputs = tokenizer.encode(TEXTS, max_seq_length=LENGTH)
    values = encoder(inputs, training=False, return_taps=True)["taps"]
    added = extraction.block_contributions(encoder, values, inputs["padding_mask"])
    names = list(values)
    assert list(added) == names[1:]
    for before, name, block in zip(names, names[1:], encoder.blocks, strict=False):
        summed = values[before] + added[name]
        expected = summed if norm_first else block.layer_norm(summed)
        np.testing.assert_allclose(values[name], expected, atol=1e-4)


def test_attention_probabilities_reproduce_the_block(tokenizer):
    encoder = wide_encoder()
    stream = list(
        taps.attention_probabilities(
            encoder, tokenizer, Rows(TEXTS), batch_size=3, max_seq_length=LENGTH
        )
    )
    assert [len(ids) for _, ids in stream] == [3, 3, 1]
    probabilities, ids = stream[0]
    assert list(probabilities) == ["block_00/attention", "block_01/attention"]
    inputs = tokenizer.encode(TEXTS[:3], max_seq_length=LENGTH)
    np.testing.assert_array_equal(ids, inputs["token_ids"])
    hidden = encoder(inputs, return_taps=True)["taps"]["block_00/attention"]
    block, found = encoder.blocks[1], probabilities["block_01/attention"]
    assert found.shape == (3, 2, LENGTH, LENGTH)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    assert np.all(found[~np.asarray(inputs["padding_mask"], bool)[:, None, None].repeat(2, 1)
        .repeat(LENGTH, 2)] == 0)  # fmt: skip
    values = np.asarray(block.value(hidden)).reshape(3, LENGTH, 2, 4)
    context = np.einsum("bhqk,bkhd->bqhd", found, values).reshape(3, LENGTH, 8)
    expected = block.layer_norm(hidden + block.output_dense(context))
    np.testing.assert_allclose(block(hidden, inputs["padding_mask"]), expected, atol=1e-5)


# === Words ===


def test_words_are_means_over_their_pieces(encoder):
    tokenizer = Tokenizer((*PIECES[:5], "cat", "##s", "dog", "##ged", "sat", ",", "##.", "."))
    other = Encoder(encoder.config.replace(vocab_size=tokenizer.vocab_size), seed=3)
    sentences = [["Cats", "sat", ","], ["dogged", "cat"], ["cat"]]
    places = [np.array([0, 2]), np.array([0]), np.array([0])]
    found = list(
        taps.word_activations(
            other, tokenizer, sentences, places, batch_size=2, max_seq_length=LENGTH
        )
    )
    assert [len(batch["embeddings"]) for batch in found] == [3, 1]
    first, second = (alone(other, tokenizer, " ".join(words)) for words in sentences[:2])
    for name in found[0]:
        # [CLS] cat ##s sat , [SEP] and [CLS] dog ##ged cat [SEP]
        expected = [first[name][1:3].mean(0), first[name][4], second[name][1:3].mean(0)]
        np.testing.assert_allclose(found[0][name], expected, atol=1e-5)


def test_words_that_are_cut_off_are_known_without_an_encoder():
    tokenizer = Tokenizer((*PIECES[:5], "cat", "##s", "sat"))
    sentences = [["cat", "cats", "sat"], ["cats", "\u200d", "cat"], []]
    for length, expected in (
        (4, [[True, False, False], [True, False, False], []]),
        (5, [[True, True, False], [True, False, True], []]),
        (9, [[True, True, True], [True, False, True], []]),
    ):
        seen = words.seen(tokenizer, sentences, length)
        assert [list(mask) for mask in seen] == expected, length
    shorter = Tokenizer((*PIECES[:5], "c", "##a", "##t", "##s", "sat"))
    both = words.seen_by_all([tokenizer, shorter], sentences, 6)
    assert [list(mask) for mask in both] == [[True, False, False], [True, False, False], []]


def test_words_are_drawn_by_seed_and_row_alone():
    allowed = [np.array([True, False, True, True]), np.array([False]), np.ones(9, bool)]
    drawn = taps.draw_words(allowed, 2, seed=3)
    assert [len(places) for places in drawn] == [2, 0, 2]
    for places, mask in zip(drawn, allowed, strict=True):
        assert np.all(mask[places]) and np.all(np.diff(places) > 0)
    again = taps.draw_words(allowed, 2, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert len({tuple(taps.draw_words(allowed, 2, seed=s)[2]) for s in range(20)}) > 5
    assert [len(places) for places in taps.draw_words(allowed, 0, seed=3)] == [3, 0, 9]


def test_text_is_split_into_words_and_punctuation():
    assert words.split("It's 3.5 km, ok?") == "It ' s 3 . 5 km , ok ?".split()


# === Memory ===

MEMORY = """
import sys
import psutil
from undivided_tf.analysis import taps
from undivided_tf.config import EncoderConfig
from undivided_tf.data.tasks.tasks import Rows
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer
pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b")
encoder = Encoder(EncoderConfig(vocab_size=7, hidden_size=256, num_attention_heads=2,
    intermediate_size=256, block_pattern="A*2", max_position_embeddings=32), seed=1)
process = psutil.Process()
for count in (200, 200, 2000):
    read = peak = 0
    for batch in taps.token_activations(encoder, Tokenizer(pieces), Rows(["a b " * 15] * count),
            tokens_per_example=30, batch_size=20, max_seq_length=32, seed=1):
        read += sum(x.nbytes for x in batch.values())
        peak = max(peak, process.memory_info().rss)
    print(read >> 20, peak >> 20)
"""


def test_memory_does_not_grow_with_the_number_of_examples():
    done = toys.run_python(MEMORY)
    assert done.returncode == 0, done.stderr
    _, once, tenfold = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    assert (once[0], tenfold[0]) == (17, 175)  # MiB that were read.
    assert tenfold[1] - once[1] < 20, done.stdout
