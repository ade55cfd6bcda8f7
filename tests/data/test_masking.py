import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies

from undivided_tf.data import masking, masking_units, streams
from undivided_tf.data.corpus import records
from undivided_tf.data.corpus.config import RecordsConfig
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
    unit=strategies.sampled_from(["token", "whole_word", "span"]),
)
def test_properties_of_masked_batches(length, seed, prob, cap, unit):
    ids = toy_rows(20, length, seed=abs(seed) % 1000)
    batch = mask(ids, (seed, 7), masked_lm_prob=prob, max_predictions=cap, masking_unit=unit)
    slots = masking.prediction_slots(length, prob, cap)
    assert batch["masked_positions"].shape == (20, slots)
    for i, row in enumerate(ids):
        used = batch["masked_weights"][i] == 1
        positions = batch["masked_positions"][i]
        real = (row != TOKENIZER.pad_id).sum()
        candidates = (~TOKENIZER.is_special[row]).sum()
        wanted = min(max(1, round(real * prob)), slots)
        assert used.sum() <= wanted
        assert unit != "token" or used.sum() == min(wanted, candidates)
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
    batch = mask(ids, seed, masked_lm_prob=prob, masking_unit="whole_word")
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


@pytest.mark.parametrize("unit", ["token", "whole_word"])
def test_shares_of_replacements_and_of_positions(unit):
    rng = np.random.default_rng(0)
    ids = rng.choice(ORDINARY, (4000, 22)).astype(np.int32)
    ids[:, 0], ids[:, -1] = 2, 3
    batch = mask(ids, masked_lm_prob=0.2, masking_unit=unit)
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
    if unit == "token":
        places = np.bincount(batch["masked_positions"][used], minlength=22)[1:-1]
        assert (abs(places - n / 20) < 5 * np.sqrt(n / 20)).all() and n == 4000 * 4


def test_spans_have_the_lengths_of_spanbert():
    starts = masking_units._span_starts(
        tf.constant([400, 300]), tf.constant([1, 2], tf.int64)
    ).numpy()
    assert starts[:, 0].all()
    sizes = np.concatenate([np.diff(np.flatnonzero(row[:-1])) for row in starts])
    counts = np.bincount(sizes, minlength=11)[1:]
    share = 0.2 * 0.8 ** np.arange(10)  # np.random.choice(range(1, 11), p=share / share.sum())
    expected = share / share.sum() * len(sizes)
    assert len(counts) == 10 and len(sizes) > 30_000
    assert ((counts - expected) ** 2 / expected).sum() < 40  # Chi-squared, 9 degrees.
    assert sizes.mean() == pytest.approx(3.8, abs=0.05)


def test_spans_are_whole_words_and_are_replaced_alike():
    ids = np.tile(np.concatenate([[2], ORDINARY, ORDINARY[:18], [3]]), (300, 1)).astype(np.int32)
    batch = mask(ids, masked_lm_prob=0.3, masking_unit="span")
    words = reference_words(ids[0])
    runs, mixed = [], 0
    for i, row in enumerate(ids):
        chosen = np.zeros(len(row), bool)
        chosen[batch["masked_positions"][i][batch["masked_weights"][i] == 1]] = True
        assert all(chosen[word].all() or not chosen[word].any() for word in words)
        edges = np.flatnonzero(np.diff(np.pad(chosen.astype(int), 1)))
        for begin, end in edges.reshape(-1, 2):
            runs.append(end - begin)
            hidden = (batch["token_ids"][i, begin:end] == TOKENIZER.mask_id).sum()
            mixed += 0 < hidden < end - begin
    # Single tokens would give runs of mean length 1 / (1 - 0.3). A run of two spans may be mixed.
    assert np.mean(runs) > 3 and mixed < 0.25 * len(runs)


def test_masking_rate_moves_on_a_line(folder):
    tokenizer = records.read_tokenizer(folder)
    options = {"batch_size": 64, "seed": 3, "masked_lm_prob": 0.15, "num_train_steps": 5}
    falling = masking.pretraining_batches(folder, tokenizer, initial_masked_lm_prob=0.75, **options)
    constant = list(masking.pretraining_batches(folder, tokenizer, **options).take(5))
    for step, batch in enumerate(falling.take(5)):
        rate = 0.75 - 0.6 * step / 4
        assert batch["masked_positions"].shape == (64, 6)
        tokens = batch["padding_mask"].numpy().sum(1)
        wanted = np.maximum(1, np.round(np.float32(tokens * np.float32(rate))))
        got = batch["masked_weights"].numpy().sum(1)
        assert (abs(got - np.minimum(wanted, tokens - 2)) <= 1).all()
        np.testing.assert_array_equal(batch["padding_mask"], constant[step]["padding_mask"])
    np.testing.assert_array_equal(batch["token_ids"], constant[4]["token_ids"])


def test_masking_rate_stays_until_its_line_begins():
    rates = [float(masking.masked_lm_prob_at(step, 0.1, 0.5, 10, 5)) for step in range(11)]
    np.testing.assert_allclose(rates, [0.5] * 6 + [0.4, 0.3, 0.2, 0.1, 0.1], rtol=1e-6)


def test_dropped_blocks_are_a_function_of_seed_and_step(folder):
    tokenizer = records.read_tokenizer(folder)
    options = {"batch_size": 500, "seed": 3}
    plain = masking.pretraining_batches(folder, tokenizer, **options)
    options |= {"intermediate_blocks": 4, "intermediate_drop_rate": 0.25}
    whole = list(masking.pretraining_batches(folder, tokenizer, **options).take(3))
    tail = masking.pretraining_batches(folder, tokenizer, start_step=2, **options)
    scales = [batch["intermediate_scales"].numpy() for batch in whole]
    np.testing.assert_array_equal(next(iter(tail))["intermediate_scales"], scales[2])
    assert not np.array_equal(scales[0], scales[1])
    assert set(np.unique(scales)) == {np.float32(0), np.float32(1 / 0.75)}
    assert np.mean(scales) == pytest.approx(1, abs=0.05)  # 6,000 draws: four deviations are 0.03.
    first = next(iter(plain))
    assert "intermediate_scales" not in first
    for name in first:  # The masks are those without dropped blocks.
        np.testing.assert_array_equal(first[name], whole[0][name])


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
        assert batch["padding_mask"][total:].any(axis=1).all()  # Attention has a token to see.
        for name in batch:
            np.testing.assert_array_equal(batch[name][:total], found[1][name])
    few = masking.validation_batches(folder, tokenizer, batch_size=2, max_rows=3)
    assert sum(batch["masked_weights"].numpy().any(axis=1).sum() for batch in few) == 3
