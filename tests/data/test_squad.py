import gzip
import json
import pathlib
import urllib.error
import urllib.request

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from undivided_tf.data.tasks.squad import as_articles, read_questions
from undivided_tf.errors import InputError

TOY = pathlib.Path(__file__).parents[1] / "data_files" / "squad.json"


def write(path, change=None, **answer):
    """The toy data set with something wrong."""
    value = json.loads(TOY.read_text())
    qas = value["data"][0]["paragraphs"][0]["qas"]
    qas[0]["answers"][0].update(answer)
    if change:
        value = change(value) or value
    path.write_text(json.dumps(value))
    return str(path)


def qas(value):
    return value["data"][0]["paragraphs"][0]["qas"]


def test_files_plain_and_zipped_hold_the_same(tmp_path):
    plain = read_questions([str(TOY)], "train")
    zipped = tmp_path / "toy.json.gz"
    zipped.write_bytes(gzip.compress(TOY.read_bytes()))
    assert [q.id for q in plain] == ["q1", "q2", "q3"]
    assert [[a.text for a in q.answers] for q in plain] == [["on a mat", "a mat"], ["1999"], []]
    assert all(a.is_aligned for q in plain for a in q.answers)
    assert plain[1].place == f"{TOY}: $.data[0].paragraphs[0].qas[1]"
    again = read_questions([str(zipped)], "train")
    assert as_articles(again) == as_articles(plain)


def test_questions_survive_a_round_trip_as_articles(tmp_path):
    questions = read_questions([str(TOY)], "train")
    path = tmp_path / "again.json"
    path.write_text(json.dumps({"data": as_articles(questions)}))
    again = read_questions([str(path)], "train")
    shown = [(q.id, q.question, q.context, q.answers) for q in questions]
    assert shown == [(q.id, q.question, q.context, q.answers) for q in again]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {"dat": []}, r": \$: the key 'data' is missing; did you mean 'data' by 'dat'"),
        (lambda v: [v], r": \$: expected an object with the key 'data', got \["),
        (lambda v: qas(v)[1].pop("id") and None, r"\$\.data\[0\]\.paragraphs\[0\]\.qas\[1\]: the "
         "key 'id' is missing; found: question, answers"),
        (lambda v: qas(v)[1].update(id=7), r"qas\[1\]\.id: expected str, got 7"),
        (lambda v: qas(v)[2].update(id="q1"), r"qas\[2\]\.id: 'q1' is already the id of .*qas"),
        (lambda v: qas(v)[0].update(is_impossible=True), "is_impossible is true, but there are 2"),
        (lambda v: qas(v)[0]["answers"][1].update(text=""), r"answers\[1\]\.text: empty"),
        (lambda v: qas(v)[0]["answers"][1].update(answer_start="3"), "expected int, got '3'"),
        (lambda v: qas(v)[0]["answers"][1].update(answer_start=True), "expected int, got True"),
        (lambda v: qas(v)[0].update(question="\ud800"), r"qas\[0\]\.question: not Unicode text"),
        (lambda v: {"data": []}, "there is no question in it"),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_json_path(tmp_path, change, message):
    path = write(tmp_path / "wrong.json", change)
    with pytest.raises(InputError, match=message) as error:
        read_questions([path], "train")
    assert str(error.value).startswith(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"data":\n [}', "a.json:2: not JSON"),
        ("a.json", b'{"data": "a\0b"}', "a.json:1: a NUL byte"),
        ("a.json", b"\xff", "a.json:1: not UTF-8"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json.gz", b"no gzip", "a.json.gz: damaged: Not a gzipped file"),
        ("a.json.gz", gzip.compress(b"{}" * 99, mtime=0)[:15], "a.json.gz: damaged"),
        ("b.json", None, "a.json: cannot be read: No such file"),
    ],
)
def test_files_that_are_no_json_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    else:
        name = "a.json"
    with pytest.raises(InputError, match=message):
        read_questions([str(tmp_path / name)], "train")


@pytest.mark.parametrize("start", [15, -8, 10**9])
def test_an_answer_that_is_not_at_its_offset_is_marked_and_named(tmp_path, caplog, start):
    path = write(tmp_path / "shifted.json", answer_start=start)
    questions = read_questions([path], "train")
    assert [a.is_aligned for a in questions[0].answers] == [False, True]
    assert "1 answers are not at their offset" in caplog.text
    assert "qas[0]" in caplog.text


json_values = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=5),
    lambda inner: strategies.lists(inner, max_size=3)
    | strategies.dictionaries(
        strategies.sampled_from(
            ["data", "paragraphs", "context", "qas", "id", "question", "answers", "text",
             "answer_start", "is_impossible"]
        ),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(json_values, strategies.integers(0, 2))
def test_any_json_is_read_or_refused(tmp_path_factory, value, depth):
    wrapped = [value, {"data": value}, {"data": [{"paragraphs": value}]}][depth]
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(wrapped))
    try:
        questions = read_questions([str(path)], "train")
    except InputError as error:
        assert str(error).startswith(str(path))
    else:
        assert questions and len({q.id for q in questions}) == len(questions)


def test_tensorflow_datasets_are_read_with_the_same_checks(monkeypatch):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    context = "Zoë’s cat sat"

    def as_dataset(self, *args, **kwargs):
        row = {
            "id": "q1", "title": "", "context": context, "question": "Who sat?",
            "answers": {"text": ["cat"], "answer_start": np.array([6], np.int32)},
        }  # fmt: skip
        return tf.data.Dataset.from_tensors(row)

    monkeypatch.setattr(tfds.core.DatasetBuilder, "is_prepared", lambda self: True)
    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        (question,) = read_questions(["tfds:squad"], "validation")
    assert (question.context, question.answers[0].text) == (context, "cat")
    assert question.answers[0].is_aligned
    assert question.place == "tfds:squad: validation[0]"
    with pytest.raises(InputError, match="tfds:squid: TensorFlow Datasets has no data set"):
        read_questions(["tfds:squid"], "train")


def test_a_host_that_does_not_answer_is_reported_at_once(monkeypatch):
    def refuse(request, timeout):
        assert request.full_url.startswith("https://") and timeout <= 5
        raise urllib.error.URLError("refused")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(InputError, match="tfds:squad: is not downloaded yet, and .* refused"):
        read_questions(["tfds:squad"], "train")


def test_the_real_files_are_whole(shared_data):
    expected = {"xquad.en.json": (1190, 0), "squad2.0-dev-slice.json": (1407, 702)}
    for name, (count, impossible) in expected.items():
        questions = read_questions([str(shared_data / "squad" / name)], "train")
        assert (len(questions), sum(not q.answers for q in questions)) == (count, impossible)
        assert all(answer.is_aligned for q in questions for answer in q.answers)


def test_a_compressed_file_is_known_by_its_content_and_a_damaged_one_is_named(tmp_path):
    content = gzip.compress(TOY.read_bytes(), mtime=0)
    path = tmp_path / "TOY.JSON.GZ"
    path.write_bytes(content)
    plain = [question.id for question in read_questions([str(TOY)], "train")]
    assert [question.id for question in read_questions([str(path)], "train")] == plain
    path.write_bytes(content[:30] + bytes(byte ^ 0xFF for byte in content[30:32]) + content[32:])
    with pytest.raises(InputError, match="TOY.JSON.GZ: damaged: "):
        read_questions([str(path)], "train")
    path = tmp_path / "toy.json"
    path.write_bytes(TOY.read_text().encode("utf-16-le"))
    with pytest.raises(InputError, match="toy.json:2: not UTF-8"):
        read_questions([str(path)], "train")
