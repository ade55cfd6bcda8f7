"""Windows and answers in the graph equal those of the Python code."""

import random

import numpy as np
import pytest
import served
import tensorflow as tf
import toys

from undivided_tf.data.tasks.windows import Question, make_windows
from undivided_tf.errors import InputError
from undivided_tf.export import reference, signatures, spans
from undivided_tf.export.config import ExportConfig


def made_up(count, seed=0):
    """Questions and contexts of many lengths, blank ones and long ones among them."""
    chooser = random.Random(seed)
    words = [*toys.FILLERS, "o\N{COMBINING ACUTE ACCENT}os", "\N{SNOWMAN}", "oos."]

    def text(most):
        return "  ".join(chooser.choice(words) for _ in range(chooser.randint(0, most)))

    return [text(7) for _ in range(count)], [text(40) for _ in range(count)]


def test_windows_are_those_of_the_python_path():
    tokenizer = served.tokenizer()
    questions, contexts = made_up(60)
    found, row = spans.make_windows(
        tokenizer, tf.constant(questions), tf.constant(contexts), served.WINDOWS
    )
    asked = [
        Question(id=str(i), question=q, context=c, answers=(), place=str(i))
        for i, (q, c) in enumerate(zip(questions, contexts, strict=True))
    ]
    keys = ("max_seq_length", "doc_stride", "max_query_length")
    expected = make_windows(asked, tokenizer, **{key: served.WINDOWS[key] for key in keys})
    # The graph makes a window of blank ones too, in which nothing can be found.
    kept = np.isin(row, expected.question)
    assert not found["has_most_context"].numpy()[~kept].any() and (~kept).any()
    np.testing.assert_array_equal(row.numpy()[kept], expected.question)
    for name in ("token_ids", "segment_ids", "padding_mask", "starts", "ends", "has_most_context"):
        np.testing.assert_array_equal(found[name].numpy()[kept], getattr(expected, name), name)


@pytest.mark.parametrize("pieces", [1, 3, 30])
def test_answers_are_those_of_the_python_path(pieces):
    parts = served.parts()
    encode = lambda inputs, positions: parts.encoder(inputs, positions=positions)  # noqa: E731
    signature = signatures.of_texts("answer", parts, encode, ExportConfig(max_answer_length=pieces))
    questions, contexts = made_up(40, seed=pieces)
    found = signature.function(tf.constant(questions), tf.constant(contexts))
    expected = reference.answer(parts, questions, contexts, toys.LENGTH, pieces)
    for row, (context, answer) in enumerate(zip(contexts, expected, strict=True)):
        assert found["text"][row].numpy().decode() == answer["text"]
        start, end = int(found["start"][row]), int(found["end"][row])
        assert context[start:end] == answer["text"]
    odds = [answer["null_odds"] for answer in expected]
    np.testing.assert_allclose(found["null_odds"], odds, atol=1e-4)


@pytest.mark.parametrize("length", [5, 7, 11])
def test_shorter_windows_than_in_training_leave_room_for_both(length):
    parts = served.parts()
    encode = lambda inputs, positions: parts.encoder(inputs, positions=positions)  # noqa: E731
    signature = signatures.of_texts("answer", parts, encode, ExportConfig(max_seq_length=length))
    questions, contexts = made_up(20, seed=length)
    found = signature.function(tf.constant(questions), tf.constant(contexts))
    expected = reference.answer(parts, questions, contexts, length, 30)
    texts = [text.decode() for text in found["text"].numpy()]
    assert texts == [answer["text"] for answer in expected]
    with pytest.raises(InputError, match="max_seq_length 4 is too short"):
        parts.span_head.with_length(4)


def test_no_answer_is_given_where_null_odds_exceed_the_threshold():
    questions, contexts = made_up(30)
    texts = {}
    for threshold in (-1e12, 1e12):
        parts = served.parts(version_2_with_negative=True, null_score_diff_threshold=threshold)
        encode = lambda inputs, positions, p=parts: p.encoder(inputs, positions=positions)  # noqa: E731
        signature = signatures.of_texts("answer", parts, encode, ExportConfig())
        found = signature.function(tf.constant(questions), tf.constant(contexts))
        texts[threshold] = found["text"].numpy()
        assert ((found["end"] > found["start"]).numpy() == (texts[threshold] != b"")).all()
    assert not texts[-1e12].astype(bool).any()
    assert (texts[1e12] != b"").any()


def test_offsets_of_broken_utf8_count_characters_of_what_was_read():
    parts = served.parts()
    encode = lambda inputs, positions: parts.encoder(inputs, positions=positions)  # noqa: E731
    signature = signatures.of_texts("answer", parts, encode, ExportConfig(max_answer_length=1))
    found = signature.function(tf.constant(["the"]), tf.constant([b"\xff\xff mat"]))
    text = b"\xff\xff mat".decode(errors="replace")
    start, end = int(found["start"][0]), int(found["end"][0])
    assert found["text"][0].numpy().decode() == text[start:end] != ""
