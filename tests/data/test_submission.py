import zipfile

import pytest

from undivided_tf.data.tasks.submission import submission_text, write_submission
from undivided_tf.errors import InputError


@pytest.mark.parametrize(
    ("task", "predictions", "lines"),
    [
        ("cola", ["acceptable", "unacceptable"], ["0\t1", "1\t0"]),
        ("wnli", ["entailment"], ["0\t1"]),
        ("mnli", ["neutral", "entailment"], ["0\tneutral", "1\tentailment"]),
        ("qnli", ["not_entailment"], ["0\tnot_entailment"]),
        ("stsb", [1.23456, 7.0, -1.0], ["0\t1.235", "1\t5.000", "2\t0.000"]),
    ],
)
def test_spelling(task, predictions, lines):
    expected = "\n".join(["index\tprediction", *lines]) + "\n"
    assert submission_text(task, predictions) == expected


def test_a_name_that_is_no_label_is_refused():
    with pytest.raises(InputError, match="RTE: prediction 1 is 'neutral', none of entailment"):
        submission_text("rte", ["entailment", "neutral"])


def test_archives_of_equal_contents_are_equal(tmp_path):
    for name in ("a.zip", "b.zip"):
        write_submission(tmp_path / name, {"WNLI.tsv": "x\n", "AX.tsv": "y\n"})
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["AX.tsv", "WNLI.tsv"] and archive.read("AX.tsv") == b"y\n"
