import numpy as np
import pytest

from undivided_tf.errors import InputError
from undivided_tf.metrics import classification


def naive_macro_f1(predictions, labels, num_labels):
    scores = []
    for c in range(num_labels):
        hits = sum(p == c and t == c for p, t in zip(predictions, labels, strict=True))
        wrong = sum((p == c) != (t == c) for p, t in zip(predictions, labels, strict=True))
        if hits or wrong:
            scores.append(2 * hits / (2 * hits + wrong))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("num_labels", [2, 5, 11])
def test_scores_agree_with_their_definitions(num_labels):
    rng = np.random.default_rng(num_labels)
    labels = rng.integers(0, num_labels, 60)
    predictions = np.where(rng.random(60) < 0.6, labels, rng.integers(0, num_labels, 60))
    scores = classification.score(predictions, labels, num_labels)
    assert scores["accuracy"] == pytest.approx(np.mean(predictions == labels))
    assert scores["f1_macro"] == pytest.approx(naive_macro_f1(predictions, labels, num_labels))


@pytest.mark.filterwarnings("error")
def test_constant_predictions_have_scores():
    scores = classification.score([1, 1, 1, 1], [0, 1, 2, 1], 3)
    assert scores == pytest.approx({"accuracy": 0.5, "f1_macro": (0 + 2 / 3 + 0) / 3})


@pytest.mark.filterwarnings("error")
def test_a_class_without_labels_and_predictions_does_not_count():
    assert classification.score([0, 1], [0, 1], 5) == {"accuracy": 1.0, "f1_macro": 1.0}


def test_the_majority_class_is_that_of_the_training_split():
    assert classification.majority_accuracy([2, 2, 0], [0, 0, 0, 2]) == 0.25
    assert classification.majority_accuracy([1, 0], [0, 0, 1]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0, 1], None, "no labels"),
        ([0, 1], [0, -1], r"labels\[1\] is -1: the split is not labelled"),
        ([0, 3], [0, 1], r"predictions\[1\] is 3, but there are 3 classes"),
        ([0], [0, 1], "1 predictions for 2 labels"),
        ([], [], "expected class ids"),
        ([0.5, 0.5], [0, 1], "expected class ids"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions, labels, message):
    with pytest.raises(InputError, match=message):
        classification.score(predictions, labels, 3)
