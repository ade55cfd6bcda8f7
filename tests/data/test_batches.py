import numpy as np
import pytest

from undivided_tf.data import batches
from undivided_tf.data.tasks.rows import Rows
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer((*SPECIAL_TOKENS, *"abcdefghij"))
# Row i has 1 + i % 9 words.
TEXTS = [" ".join("abcdefghij"[: 1 + i % 9]) for i in range(50)]


def encoded():
    return batches.encode(Rows(TEXTS, None, np.arange(50, dtype=np.int32)), TOKENIZER, 16)


@pytest.mark.parametrize("multiple", [0, 4])
def test_every_epoch_has_each_row_once_in_an_order_of_its_seed(multiple):
    def labels(seed):
        dataset = batches.training_batches(
            encoded(), batch_size=5, epochs=2, seed=seed, pad_to_multiple_of=multiple
        )
        found = np.concatenate([label.numpy() for _, label in dataset])
        return found[:50].tolist(), found[50:].tolist()

    first, second = labels(1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second and first != sorted(first)
    assert labels(1) == (first, second) and labels(2) != (first, second)


def test_left_over_rows_differ_between_epochs():
    dataset = batches.training_batches(encoded(), batch_size=8, epochs=6, seed=1)
    seen = [labels.numpy() for _, labels in dataset]
    assert len(seen) == 36
    assert len({frozenset(np.concatenate(seen[i : i + 6]).tolist()) for i in range(0, 36, 6)}) > 1
    assert set(np.concatenate(seen).tolist()) == set(range(50))


@pytest.mark.parametrize("multiple", [0, 4])
def test_inputs_and_labels_of_a_batch_are_of_the_same_rows(multiple):
    whole = encoded()
    dataset = batches.training_batches(
        whole, batch_size=5, epochs=1, seed=3, pad_to_multiple_of=multiple
    )
    for inputs, labels in dataset:
        width = inputs["token_ids"].shape[1]
        assert TOKENIZER.decode(inputs["token_ids"].numpy()) == [TEXTS[i] for i in labels]
        longest = whole.lengths[labels.numpy()].max()
        assert width == (min(16, -(-longest // 4) * 4) if multiple else 16)
        for name, ids in inputs.items():
            np.testing.assert_array_equal(ids, whole.inputs[name].numpy()[labels, :width])


def test_rows_of_similar_length_are_batched_together():
    def padding(multiple):
        dataset = batches.training_batches(
            encoded(), batch_size=5, epochs=1, seed=3, pad_to_multiple_of=multiple
        )
        return sum(int((inputs["padding_mask"] == 0).numpy().sum()) for inputs, _ in dataset)

    assert padding(4) < 0.3 * padding(0)


@pytest.mark.parametrize("multiple", [0, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
def test_predictions_return_to_the_order_of_the_rows(multiple, batch_size):
    dataset, where = batches.prediction_batches(
        encoded(), batch_size=batch_size, pad_to_multiple_of=multiple
    )
    outputs = np.concatenate([inputs["padding_mask"].numpy().sum(1) for inputs in dataset])
    assert len(outputs) % batch_size == 0
    np.testing.assert_array_equal(outputs[where], encoded().lengths)
