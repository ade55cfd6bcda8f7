import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies

from undivided_tf.data import masking, records, streams
from undivided_tf.recipes import RecordsConfig
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer([*SPECIAL_TOKENS, *"abcdefghijkl", *(f"##{letter}" for letter in "mnopqrst")])
ORDINARY = np.flatnonzero(~TOKENIZER.is_special)


def toy_rows(rows, length, seed=0):
    """Rows `[CLS] pieces [SEP] pieces [SEP] [PAD] ...` of all lengths."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((rows, length), np.int32)
    for row in ids:
        size = rng.integers(4, length + 1)
        row[:size] = rng.choice([*ORDINARY, TOKENIZER.unk_id], size)
        row[0], row[size - 1], row[rng.integers(1, size)] = 2, 3, 3
    return ids


def mask(ids, seed=(1, 2), **arguments):
    batch = masking.mask_tokens(tf.constant(ids), seed=seed, tokenizer=TOKENIZER, **arguments)
    return {name: value.numpy() for name, value in batch.items()}


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    length=strategies.sampled_from([8, 19, 40]),
    seed=strategies.integers(-(2**40), 2**40),
    prob=strategies.sampled_from([0.05, 0.15, 0.5]),
    cap=strategies.sampled_from([0, 1, 4]),
    whole_word=strategies.booleans(),
)
def test_properties_of_masked_batches(length, seed, prob, cap, whole_word):
    ids = toy_rows(20, length, seed=abs(seed) % 1000)
    batch = mask(ids, (seed, 7), masked_lm_prob=prob, max_predictions=cap, whole_word=whole_word)
    slots = masking.prediction_slots(length, prob, cap)
    assert batch["masked_positions"].shape == (20, slots)
    for i, row in enumerate(ids):
        used = batch["masked_weights"][i] == 1
        positions = batch["masked_positions"][i]
        real = (row != TOKENIZER.pad_id).sum()
        candidates = (~TOKENIZER.is_special[row]).sum()
        wanted = min(max(1, round(real * prob)), slots)
        assert used.sum() <= wanted if whole_word else used.sum() == min(wanted, candidates)
        assert set(batch["masked_weights"][i]) <= {0.0, 1.0}
        assert (np.diff(positions[used]) > 0).all() and used[: used.sum()].all()
        assert not TOKENIZER.is_special[row[positions[used]]].any()
        assert (batch["masked_ids"][i][used] == row[positions[used]]).all()
        assert not positions[~used].any() and not batch["masked_ids"][i][~used].any()
        others = np.setdiff1d(np.arange(length), positions[used])
        assert (batch["token_ids"][i][others] == row[others]).all()
        assert batch["padding_mask"][i].sum() == real and not batch["segment_ids"][i].any()


def reference_words(row):
    """Words of a row as google-research/bert's create_pretraining_data.py finds them."""
    words = []
    for position, index in enumerate(row):
        if TOKENIZER.is_special[index]:
            continue
        continues = position and TOKENIZER.is_continuation[index]
        if continues and words and words[-1][-1] == position - 1:
            words[-1].append(position)
        else:
            words.append([position])
    return words


@pytest.mark.parametrize("prob", [0.1, 0.3])
def test_whole_words_are_taken_greedily_as_bert_does(prob):
    ids = toy_rows(200, 24, seed=4)
    seed = tf.constant([3, 4], tf.int64)
    batch = mask(ids, seed, masked_lm_prob=prob, whole_word=True)
    order_seed = tf.random.experimental.stateless_split(seed, 3)[0]
    score = tf.random.stateless_uniform(ids.shape, order_seed).numpy()
    sizes = set()
    for i, row in enumerate(ids):
        budget = max(1, round((row != 0).sum() * prob))
        # The score of a word is the random number at its index in the row, specials counted.
        starts = [
            TOKENIZER.is_special[index]
            or not TOKENIZER.is_continuation[index]
            or TOKENIZER.is_special[row[position - 1]]
            for position, index in enumerate(row)
        ]
        index_of = np.cumsum(starts) - 1
        words = sorted(reference_words(row), key=lambda word: score[i, index_of[word[0]]])
        expected = []
        for word in words:  # The loop of create_masked_lm_predictions.
            if len(expected) + len(word) <= budget:
                expected += word
                sizes.add(len(word))
        used = batch["masked_weights"][i] == 1
        assert batch["masked_positions"][i][used].tolist() == sorted(expected)
    assert sizes >= {1, 2}


def test_masks_are_a_function_of_the_seed():
    ids = toy_rows(10, 20)
    first, again, other = mask(ids, (1, 2)), mask(ids, (1, 2)), mask(ids, (1, 3))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["masked_positions"], other["masked_positions"])


@pytest.mark.parametrize("whole_word", [False, True])
def test_shares_of_what_replaces_a_piece_and_of_where(whole_word):
    rng = np.random.default_rng(0)
    ids = rng.choice(ORDINARY, (4000, 22)).astype(np.int32)
    ids[:, 0], ids[:, -1] = 2, 3
    batch = mask(ids, masked_lm_prob=0.2, whole_word=whole_word)
    used = batch["masked_weights"] == 1
    after = np.take_along_axis(batch["token_ids"], batch["masked_positions"], 1)[used]
    before = batch["masked_ids"][used]
    n = len(before)
    drawn = after[(after != TOKENIZER.mask_id) & (after != before)]
    # Five standard deviations; a random piece equals the old one once in len(ORDINARY).
    for count, share in (
        ((after == TOKENIZER.mask_id).sum(), 0.8),
        ((after == before).sum(), 0.1 + 0.1 / len(ORDINARY)),
    ):
        assert abs(count / n - share) < 5 * np.sqrt(share * (1 - share) / n)
    counts = np.bincount(drawn, minlength=TOKENIZER.vocab_size)
    assert not counts[TOKENIZER.is_special].any()
    expected = len(drawn) / len(ORDINARY)
    assert ((counts[ORDINARY] - expected) ** 2 / expected).sum() < 60  # Chi-squared, 19 degrees.
    if not whole_word:
        places = np.bincount(batch["masked_positions"][used], minlength=22)[1:-1]
        assert (abs(places - n / 20) < 5 * np.sqrt(n / 20)).all() and n == 4000 * 4


def test_row_without_candidates_gets_no_predictions():
    batch = mask(np.array([[2, 3, 0, 0], [2, 1, 3, 0]], np.int32))
    assert not batch["masked_weights"].any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("masking")
    text = "\n\n".join(f"document {i} has {i * i} words and {i % 7} ideas" for i in range(60))
    (root / "corpus.txt").write_text(text)
    config = RecordsConfig(
        input_files=(str(root / "corpus.txt"),), output_dir=str(root / "records"),
        vocab_size=60, max_seq_length=8, num_shards=4, validation_fraction=0.1,
    )  # fmt: skip
    records.create_records(config)
    return root / "records"


def test_batches_depend_on_seed_and_step_alone(folder):
    tokenizer = records.read_tokenizer(folder)
    options = {"batch_size": 16, "seed": 3, "masked_lm_prob": 0.3}
    rows = records.read_metadata(folder)["train"]["rows"]
    steps = 2 * rows // 16 + 3
    whole = list(masking.pretraining_batches(folder, tokenizer, **options).take(steps))
    for start in (1, steps - 2):
        tail = masking.pretraining_batches(folder, tokenizer, start_step=start, **options)
        for there, here in zip(whole[start:], tail.take(steps - start), strict=True):
            for name in there:
                np.testing.assert_array_equal(there[name], here[name])
    original = streams.training_rows(folder, seed=3).batch(16)
    for step, row in enumerate(original.take(3)):
        batch, ids = whole[step], row["token_ids"]
        masked = masking.mask_tokens(ids, seed=(3, step), tokenizer=tokenizer, masked_lm_prob=0.3)
        np.testing.assert_array_equal(batch["token_ids"], masked["token_ids"])


def test_batches_have_static_shapes(folder):
    tokenizer = records.read_tokenizer(folder)
    for make in (masking.pretraining_batches, masking.validation_batches):
        arguments = {"seed": 0} if make is masking.pretraining_batches else {}
        spec = make(
            folder, tokenizer, batch_size=4, max_predictions=2, masked_lm_prob=0.3, **arguments
        ).element_spec
        assert {name: tuple(tensor.shape) for name, tensor in spec.items()} == {
            **dict.fromkeys(("token_ids", "segment_ids", "padding_mask"), (4, 8)),
            **dict.fromkeys(("masked_positions", "masked_ids", "masked_weights"), (4, 2)),
        }
        assert {n: t.dtype.name for n, t in spec.items()} == {
            **dict.fromkeys(spec, "int32"),
            "masked_weights": "float32",
        }


def test_validation_batches_do_not_depend_on_the_batch_size(folder):
    tokenizer = records.read_tokenizer(folder)
    total = records.read_metadata(folder)["validation"]["rows"]
    found = {}
    for size in (1, 4, total + 3):
        batches = list(masking.validation_batches(folder, tokenizer, batch_size=size))
        found[size] = {n: np.concatenate([b[n] for b in batches]) for n in batches[0]}
    for size, batch in found.items():
        assert len(batch["token_ids"]) % size == 0
        assert not batch["masked_weights"][total:].any()
        assert batch["padding_mask"][total:].any(axis=1).all()  # Attention sees a sound row.
        for name in batch:
            np.testing.assert_array_equal(batch[name][:total], found[1][name])
    few = masking.validation_batches(folder, tokenizer, batch_size=2, max_rows=3)
    assert sum(batch["masked_weights"].numpy().any(axis=1).sum() for batch in few) == 3
