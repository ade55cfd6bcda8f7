import numpy as np
import pytest

from undivided_tf.data.tasks.rows import Rows, Task
from undivided_tf.errors import InputError
from undivided_tf.metrics import classification
from undivided_tf.training import scores

NLI = Task("MNLI", ("entailment", "neutral", "contradiction"), True, lambda split: None, "mnli")
COLA = Task("CoLA", ("no", "yes"), False, lambda split: None, "cola")
STSB = Task("STS-B", (), True, lambda split: None, "stsb", score_range=(0.0, 5.0))
OWN = Task("own", ("a", "b"), False, lambda split: None)


def one_hot(ids, classes):
    return np.eye(classes)[np.asarray(ids)]


def test_each_task_has_its_metrics_and_one_that_tables_show():
    found = scores.score(COLA, one_hot([0, 1, 1], 2), np.array([0, 1, 0]))
    assert set(found) == {"accuracy", "f1_macro", "matthews_correlation"}
    assert set(scores.score(OWN, one_hot([0], 2), np.array([0]))) == {"accuracy", "f1_macro"}
    assert set(scores.score(STSB, np.array([[1.0], [2.0]]), np.float32([1, 5]))) == {
        "pearson", "spearman"
    }  # fmt: skip
    tasks = (COLA, STSB, NLI, OWN)
    primaries = [scores.primary(task) for task in tasks]
    assert primaries == ["matthews_correlation", "spearman", "accuracy", "accuracy"]


def test_predictions_of_a_regression_stay_within_its_range():
    logits = np.array([[-3.0], [2.5], [9.0]])
    assert scores.predictions(STSB, logits).tolist() == [0.0, 2.5, 5.0]
    assert scores.json_value(STSB, np.float32(2.5)) == 2.5
    assert scores.json_value(NLI, 2) == "contradiction"


def test_constant_answers():
    train = Rows(["x"] * 3, None, np.array([1, 1, 0]))
    rows = Rows(["x"] * 4, None, np.array([1, 0, 0, 0]))
    assert scores.constant_score(OWN, train, rows) == 0.25
    for task in (COLA, STSB):
        assert scores.constant_score(task, train, rows) == 0.0


@pytest.mark.parametrize(("meaning", "warned"), [([0, 1, 2], False), ([2, 0, 1], True)])
def test_another_order_of_the_labels_is_noticed(meaning, warned, caplog):
    labels = np.random.default_rng(0).integers(0, 3, 300)
    answers = labels.copy()
    answers[:60] = (answers[:60] + 1) % 3
    said = np.argsort(meaning)[answers]
    best, found = classification.best_permutation(said, labels, 3)
    assert best == pytest.approx(0.8) and found == meaning
    scores.warn_of_another_order(NLI, one_hot(said, 3), labels)
    assert ("another order" in caplog.text) == warned
    if warned:
        assert "0.800" in caplog.text and "entailment for contradiction" in caplog.text


def test_an_own_regression_is_scored_by_correlations_and_has_no_range():
    own = Task("own", (), False, lambda split: None)
    logits, labels = np.array([[-3.0], [9.0], [2.0]]), np.float32([-1, 7, 8])
    assert scores.primary(own) == "spearman"
    assert scores.predictions(own, logits).tolist() == [-3.0, 9.0, 2.0]
    found = scores.score(own, logits, labels)
    assert found == pytest.approx(
        {"spearman": 0.5, "pearson": np.corrcoef(logits[:, 0], labels)[0, 1]}
    )
    rows = Rows(["x"], None, labels[:1])
    assert scores.constant_score(own, rows, rows) == 0.0
    with pytest.raises(InputError, match=r"predictions\[1\] is inf"):
        scores.score(own, np.array([[1.0], [np.inf]]), labels[:2])
    with pytest.raises(InputError, match="one number per example"):
        scores.score(own, logits, labels[:2])
