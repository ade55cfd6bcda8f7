"""GLUE's scores against a second implementation of their definitions."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from undivided_tf.errors import InputError
from undivided_tf.metrics import glue


def f1(predicted, true):
    both = sum(p == t == 1 for p, t in zip(predicted, true, strict=True))
    return 2 * both / (sum(predicted) + sum(true)) if sum(predicted) + sum(true) else 0.0


def matthews(predicted, true):
    """Gorodkin 2004, for any number of classes, in sums over examples."""
    n, classes = len(true), sorted({*predicted, *true})
    right = sum(p == t for p, t in zip(predicted, true, strict=True))
    p = [predicted.count(k) for k in classes]
    t = [true.count(k) for k in classes]
    top = right * n - sum(a * b for a, b in zip(p, t, strict=True))
    bottom = math.sqrt(n * n - sum(a * a for a in p)) * math.sqrt(n * n - sum(b * b for b in t))
    return top / bottom if bottom else 0.0


def pearson(x, y):
    mx, my = math.fsum(x) / len(x), math.fsum(y) / len(y)
    top = math.fsum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    bottom = math.sqrt(math.fsum((a - mx) ** 2 for a in x) * math.fsum((b - my) ** 2 for b in y))
    return top / bottom


def ranks(values):
    return [
        sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values
    ]


CLASSES = st.integers(2, 3).flatmap(
    lambda k: st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1)
)


@settings(max_examples=150)
@given(CLASSES)
def test_classes(pairs):
    predicted, true = (list(values) for values in zip(*pairs, strict=True))
    accuracy = sum(p == t for p, t in pairs) / len(pairs)
    assert glue.score("mnli", predicted, true) == pytest.approx({"accuracy": accuracy}, abs=1e-9)
    found = glue.score("ax", predicted, true)
    assert found == pytest.approx({"matthews_correlation": matthews(predicted, true)}, abs=1e-9)
    if max(*predicted, *true) < 2:
        expected = {"accuracy": accuracy, "f1": f1(predicted, true)}
        for task in ("mrpc", "qqp"):
            assert glue.score(task, predicted, true) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2))
def test_scores(pairs):
    predicted, true = ([value / 10 for value in values] for values in zip(*pairs, strict=True))
    expected = {"pearson": 0.0, "spearman": 0.0}
    if len(set(predicted)) > 1 < len(set(true)):
        expected["pearson"] = pearson(predicted, true)
        expected["spearman"] = pearson(ranks(predicted), ranks(true))
    assert glue.score("stsb", predicted, true) == pytest.approx(expected, abs=1e-9)


def test_constant_predictions_have_a_score():
    labels = [0, 1, 1, 0]
    assert glue.score("cola", [1, 1, 1, 1], labels) == {"matthews_correlation": 0.0}
    assert glue.score("mrpc", [0, 0, 0, 0], labels) == {"f1": 0.0, "accuracy": 0.5}
    assert glue.score("qqp", [0, 0], [0, 0]) == {"f1": 0.0, "accuracy": 1.0}
    assert glue.score("stsb", [2.5] * 4, [0, 1, 2, 5.0]) == {"pearson": 0.0, "spearman": 0.0}


def test_known_values():
    # Hand-made: 3 of 4 right, one false positive: f1 = 2 * 2 / (3 + 2), MCC = 2 / sqrt(12).
    assert glue.score("mrpc", [1, 1, 1, 0], [1, 1, 0, 0]) == pytest.approx(
        {"f1": 0.8, "accuracy": 0.75}, abs=1e-12
    )
    found = glue.score("cola", [1, 1, 1, 0], [1, 1, 0, 0])["matthews_correlation"]
    assert found == pytest.approx(2 / math.sqrt(12), abs=1e-12)


@pytest.mark.parametrize(
    ("task", "predictions", "labels", "message"),
    [
        ("sst3", [0], [0], "GLUE has no task 'sst3', only cola"),
        ("sst2", [0], None, "this split has no labels"),
        ("rte", [0, 1], [-1, -1], r"labels\[0\] is -1: the split is not labelled"),
        ("stsb", [1.0, 2.0], [3.0, -1.0], r"labels\[1\] is -1: the split is not labelled"),
        ("stsb", [1.0, float("nan")], [3.0, 1.0], r"predictions\[1\] is nan"),
        ("rte", [0, 1], [0], "one number per example"),
        ("rte", [], [], "at least one"),
    ],
)
def test_what_cannot_be_scored_is_refused(task, predictions, labels, message):
    with pytest.raises(InputError, match=message):
        glue.score(task, predictions, labels)


def test_average_counts_each_task_once_and_the_diagnostic_not_at_all():
    assert glue.task_score("mrpc", {"f1": 0.8, "accuracy": 0.7}) == pytest.approx(75)
    assert glue.task_score("mnli", {"accuracy": 0.8}, {"accuracy": 0.6}) == pytest.approx(70)
    assert glue.task_score("stsb", {"pearson": 0.9, "spearman": 0.8, "x": 5}) == pytest.approx(85)
    nine = dict(zip(glue.AVERAGED, range(9), strict=True))
    assert glue.average({**nine, "ax": 1000.0}) == np.mean(range(9))
    assert glue.average({k: v for k, v in nine.items() if k != "rte"}) is None
