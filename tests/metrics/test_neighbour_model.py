"""The neighbour model against a dense second implementation, and by hand."""

import math

import numpy as np
import pytest
import scipy.sparse

from undivided_tf.data import masking
from undivided_tf.data.corpus import counts, records
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.metrics.neighbour_model import NeighbourModel


def dense(unigrams, bigrams, is_target):
    """P(x | l, r) by the formulas as they are written, one pair of neighbours at a time."""
    table = bigrams.toarray().astype(float)
    targets = np.flatnonzero(is_target)
    counted = unigrams[targets]
    kinds = (counted > 0).sum()
    unigram = (counted + kinds / len(targets)) / (counted.sum() + kinds)

    def smoothed(row):
        row = row[targets]
        if not row.sum():
            return unigram
        return (row + (row > 0).sum() * unigram) / (row.sum() + (row > 0).sum())

    def distribution(left, right):
        product = smoothed(table[left]) * smoothed(table[:, right]) / unigram
        return dict(zip(targets, product / product.sum(), strict=True))

    return distribution


def made_up(seed, size=12, specials=5):
    generator = np.random.default_rng(seed)
    table = generator.poisson(0.7, (size, size))
    table[:, 0] = table[0] = table[4] = table[:, 4] = 0  # [PAD] and [MASK].
    table[7] = 0  # A piece that was never seen as a left neighbour.
    is_target = np.arange(size) >= specials
    unigrams = np.where(is_target, table.sum(axis=0), 0)
    return unigrams, scipy.sparse.csr_array(table), is_target


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_a_dense_implementation_for_all_pairs(seed):
    unigrams, bigrams, is_target = made_up(seed)
    model, distribution = (make(unigrams, bigrams, is_target) for make in (NeighbourModel, dense))
    size, targets = len(unigrams), np.flatnonzero(is_target)
    for left in range(size):
        for right in range(size):
            shape = np.ones(len(targets), int)
            found = model.log_probabilities(left * shape, right * shape, targets)
            expected = distribution(left, right)
            np.testing.assert_allclose(found, [math.log(expected[x]) for x in targets], atol=1e-10)
            assert np.exp(found).sum() == pytest.approx(1, abs=1e-12)


def test_by_hand():
    """Pieces 1 and 2 can be masked, 0 is a neighbour only; the row 0 1 2 1 0."""
    table = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    is_target = np.array([False, True, True])
    model = NeighbourModel(np.array([0, 2, 1]), scipy.sparse.csr_array(table), is_target)
    one = (2 + 2 / 2) / (3 + 2)  # P(1); P(2) is the rest.
    forward = (1 + one) / 2, (0 + 1 - one) / 2  # Right of 2: once 1.
    backward = (0 + one) / 2, (1 + 1 - one) / 2  # Left of 1 stood a 2 once (and 0, no target).
    product = [f * b / u for f, b, u in zip(forward, backward, (one, 1 - one), strict=True)]
    found = model.log_probabilities(np.array([2]), np.array([1]), np.array([1]))
    assert found[0] == pytest.approx(math.log(product[0] / sum(product)), abs=1e-12)


def test_a_masked_neighbour_has_no_effect():
    unigrams, bigrams, is_target = made_up(3)
    model, distribution = (make(unigrams, bigrams, is_target) for make in (NeighbourModel, dense))
    mask, pad = np.array([4]), np.array([0])
    for piece in np.flatnonzero(is_target):
        x = np.array([piece])
        both = model.log_probabilities(mask, mask, x)
        assert both == model.log_probabilities(pad, mask, x)
        unigram = (unigrams[piece] + (unigrams > 0).sum() / 7) / (unigrams.sum() + 7)
        assert (unigrams > 0).sum() == 7 and both[0] == pytest.approx(math.log(unigram))
        left = model.log_probabilities(np.array([6]), mask, x)
        assert left[0] == pytest.approx(math.log(distribution(6, 4)[piece]), abs=1e-10)


def test_special_pieces_cannot_be_predicted():
    model = NeighbourModel(*made_up(0))
    with pytest.raises(ValueError, match="piece 3 is special and is never predicted"):
        model.log_probabilities(np.array([6, 6]), np.array([6, 6]), np.array([6, 3]))


def test_counts_of_nothing_give_the_uniform_distribution():
    none = scipy.sparse.csr_array((4, 4), dtype=np.int64)
    model = NeighbourModel(np.zeros(4, int), none, np.array([False, True, True, True]))
    found = model.log_probabilities(np.array([1, 0]), np.array([2, 0]), np.array([3, 1]))
    np.testing.assert_allclose(found, math.log(1 / 3))


@pytest.mark.parametrize("unit", ["token", "whole_word", "span"])
def test_losses_on_real_text_equal_the_dense_implementation(shared_data, tmp_path, unit):
    """A slice of WikiText: held-out rows as an encoder sees them, under every masking unit."""
    path = shared_data / "wikitext-2" / "wiki.valid.tokens"
    text = tmp_path / "text.txt"
    lines = [line for line in path.read_text().splitlines() if len(line) > 200][:150]
    text.write_text("\n\n".join(lines))
    config = RecordsConfig(
        input_files=(str(text),), output_dir=str(tmp_path / "r"), vocab_size=600,
        max_seq_length=32, num_shards=2, validation_fraction=0.05,
    )  # fmt: skip
    records.create_records(config)
    tokenizer = records.read_tokenizer(config.output_dir)
    found = counts.read_counts(config.output_dir)
    model = NeighbourModel(*found, ~tokenizer.is_special)
    distribution = dense(*found, ~tokenizer.is_special)
    (batch,) = masking.validation_batches(
        config.output_dir, tokenizer, batch_size=8, max_rows=8, masked_lm_prob=0.3,
        masking_unit=unit,
    )  # fmt: skip
    batch = {name: value.numpy() for name, value in batch.items()}
    losses = model.masked_losses(batch)
    assert losses.shape == batch["masked_weights"].shape and losses.dtype == np.float32
    checked = 0
    for row, slot in np.ndindex(losses.shape):
        if not batch["masked_weights"][row, slot]:
            assert losses[row, slot] == 0
            continue
        place, ids = batch["masked_positions"][row, slot], batch["token_ids"][row]
        left, right, x = ids[place - 1], ids[place + 1], batch["masked_ids"][row, slot]
        expected = distribution(left, right)
        exact = model.log_probabilities(*(np.array([i]) for i in (left, right, x)))[0]
        assert exact == pytest.approx(math.log(expected[x]), abs=1e-10)
        assert losses[row, slot] == pytest.approx(-exact, rel=1e-6)
        checked += 1
    assert checked > 50
