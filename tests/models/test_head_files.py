"""classifier.json and span_predictor.json: what they say, what older ones meant, bad ones."""

import json

import numpy as np
import pytest

from undivided_tf.errors import InputError
from undivided_tf.models.heads import ClassifierHead, SpanHead

OLD = {"task": "toy", "labels": ["no", "yes"], "pooling": "mean", "max_seq_length": 9}
SPANS = {"max_seq_length": 12, "doc_stride": 4, "max_query_length": 5}


def read(folder, head=ClassifierHead, **values):
    (folder / head.FILE).write_text(json.dumps(values))
    return head.read(folder)


def test_a_head_is_read_as_it_was_written(tmp_path):
    assert ClassifierHead.read(tmp_path) is None
    for head in (
        ClassifierHead("regression", (), "max", "pair", 7, "STS-B", (0.0, 5.0)),
        ClassifierHead("multi_label", ("rude", "loud"), max_seq_length=9),
        SpanHead(**SPANS, version_2_with_negative=True, null_score_diff_threshold=-1.5),
    ):
        head.write(tmp_path)
        assert type(head).read(tmp_path) == head


def test_files_of_older_releases_say_their_kind_by_their_labels(tmp_path):
    expected = ClassifierHead("classification", ("no", "yes"), "mean", "", 9, "toy")
    assert read(tmp_path, **OLD) == expected
    assert read(tmp_path, **{**OLD, "labels": []}).kind == "regression"
    # A class of one is none; old conversions wrote it for a head of one output.
    one = read(tmp_path, **{**OLD, "labels": ["LABEL_0"]})
    assert (one.kind, one.outputs, one.score_range) == ("regression", 1, ())
    sts = read(tmp_path, **{**OLD, "labels": [], "task": "STS-B"})
    assert sts.score_range == (0.0, 5.0)


def test_the_threshold_of_older_releases_stands_in_run_json(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    assert read(model, SpanHead, **SPANS).null_score_diff_threshold == 0
    (tmp_path / "run.json").write_text('{"null_score_diff_threshold": -1.5}')
    assert SpanHead.read(model).null_score_diff_threshold == -1.5
    assert (
        read(model, SpanHead, **SPANS, null_score_diff_threshold=2).null_score_diff_threshold == 2
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["no", "no"]}, "the label 'no' stands for several outputs"),
        ({"kind": "regression"}, "a head for regression cannot have 2 labels"),
        ({"kind": "classification", "labels": ["a"]}, "classification cannot have 1 labels"),
        ({"kind": "ranking"}, "kind must be one of classification, regression, multi_label"),
        ({"kind": "classification", "input": "triple"}, "input must be one of"),
        ({"max_seq_length": 0}, "max_seq_length must be above 0"),
        ({"labels": "no"}, "labels must be a list"),
        ({"kind": "regression", "labels": [], "score_range": [5, 0]}, "score_range must be"),
        ({"kind": "classification", "score_range": [0, 5]}, "score_range must be"),
        ({"lables": []}, "unknown key 'lables'; did you mean 'labels'"),
    ],
)
def test_files_at_fault_are_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=rf"classifier\.json.*{message}"):
        read(tmp_path, **{**OLD, **changes})


def test_answers_are_shares_of_one_or_of_each_or_a_score_within_its_range():
    logits = np.array([[-9.0, 0.0], [2.0, 2.0]])
    labels = ("a", "b")
    one = ClassifierHead(labels=labels, max_seq_length=9).answers(logits)
    np.testing.assert_allclose(one, [[1 / (1 + np.e**9), 1 / (1 + np.e**-9)], [0.5, 0.5]])
    each = ClassifierHead("multi_label", labels, max_seq_length=9).answers(logits)
    np.testing.assert_allclose(each, 1 / (1 + np.exp(-logits)))
    scores = np.array([[-3.0], [2.5], [6.51]])
    head = ClassifierHead("regression", max_seq_length=9)
    assert head.answers(scores).tolist() == [-3.0, 2.5, 6.51]
    assert head.replace(score_range=(0.0, 5.0)).answers(scores).tolist() == [0.0, 2.5, 5.0]


def test_a_head_answers_only_tasks_like_its_own():
    head = ClassifierHead(labels=("no", "yes"), input="pair", max_seq_length=9, task="toy")
    assert head.columns_for(head.replace(labels=("yes", "no"))) == [1, 0]
    with pytest.raises(InputError, match="trained on pairs of texts, the task toy has single"):
        head.columns_for(head.replace(input="single"))
    score = ClassifierHead("regression", max_seq_length=9, task="sts", labels=("likeness",))
    assert score.columns_for(score.replace(labels=(), input="pair")) == [0]
    with pytest.raises(InputError, match="no, yes, the task sts is a regression"):
        head.columns_for(score)
    with pytest.raises(InputError, match="the head is a multi_label .* is a classification"):
        head.replace(kind="multi_label").columns_for(head)


def test_a_head_that_compares_two_texts_refuses_single_ones():
    with pytest.raises(InputError, match="pooling segments compares the two texts of a pair"):
        ClassifierHead(labels=("no", "yes"), pooling="segments", input="single", max_seq_length=9)
