import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from undivided_tf.data.tasks.squad import Answer, Question
from undivided_tf.data.tasks.windows import make_windows
from undivided_tf.errors import InputError
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer([*SPECIAL_TOKENS, *LETTERS, *(f"##{c}" for c in LETTERS), "."])


def ask(context, text=None, start=None, question="a", id="q"):
    answers = (
        () if text is None else (Answer(text, context.index(text) if start is None else start),)
    )
    return Question(id, question, context, answers, f"place of {id}")


def cut(tokenizer, *questions, length=10, stride=3, query=2):
    return make_windows(
        questions, tokenizer, max_seq_length=length, doc_stride=stride, max_query_length=query
    )


def test_a_long_context_is_cut_every_doc_stride(tokenizer):
    windows = cut(tokenizer, ask("a b c d e f g h a b", "f g"))
    pieces = [[tokenizer.vocabulary[i] for i in row] for row in windows.token_ids]
    assert pieces == [
        ["[CLS]", "a", "[SEP]", "a", "b", "c", "d", "e", "f", "[SEP]"],
        ["[CLS]", "a", "[SEP]", "d", "e", "f", "g", "h", "a", "[SEP]"],
        ["[CLS]", "a", "[SEP]", "g", "h", "a", "b", "[SEP]", "[PAD]", "[PAD]"],
    ]
    assert windows.segment_ids.tolist()[2] == [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert windows.padding_mask.tolist()[2] == [1] * 8 + [0, 0]
    assert windows.positions.tolist() == [[0, 0], [5, 6], [0, 0]]
    assert windows.starts.tolist()[2] == [-1, -1, -1, 12, 14, 16, 18, -1, -1, -1]
    assert windows.ends.tolist()[2] == [-1, -1, -1, 13, 15, 17, 19, -1, -1, -1]
    # As in google-research/bert: most context on the nearer side, in one window per piece.
    most = [[p for p, m in zip(row, has, strict=True) if m] for row, has in
            zip(windows.starts.tolist(), windows.has_most_context, strict=True)]  # fmt: skip
    assert most == [[0, 2, 4, 6, 8], [10, 12, 14], [16, 18]]


def test_the_answer_is_the_pieces_that_cover_its_characters(tokenizer):
    windows = cut(tokenizer, ask("abc d", "b", id="inside"), ask("abc d", "c d", id="edge"))
    assert windows.counts["inexact"] == 0
    spans = [(w.starts[f], w.ends[t]) for w, f, t in _spans(windows)]
    assert spans == [(1, 2), (2, 5)]
    # A word without pieces is one [UNK], so an answer inside it cannot be separated.
    windows = cut(tokenizer, ask("xyz d", "y"))
    assert windows.counts["inexact"] == 1 and windows.counts["unreachable"] == 0
    assert [(w.starts[f], w.ends[t]) for w, f, t in _spans(windows)] == [(0, 3)]


def _spans(windows):
    for row in range(len(windows)):
        first, last = windows.positions[row]
        yield windows.take(np.array(row)), first, last


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(strategies.data())
def test_every_answer_that_fits_lies_in_a_window(tokenizer, data):
    words = data.draw(strategies.lists(strategies.sampled_from(LETTERS), min_size=1, max_size=40))
    length = data.draw(strategies.integers(8, 20))
    room = length - 2 - 3
    stride = data.draw(strategies.integers(1, room))
    first = data.draw(strategies.integers(0, len(words) - 1))
    longest = min(room - stride + 1, len(words) - first)
    count = data.draw(strategies.integers(1, longest))
    question = data.draw(strategies.sampled_from(["a", "a b", "a b c d"]))
    context = " ".join(words)
    text = context[2 * first : 2 * (first + count) - 1]
    windows = cut(tokenizer, ask(context, text, 2 * first, question), length=length, stride=stride)
    assert not windows.is_lost.any() and windows.counts["unreachable"] == 0
    held = [w for w in range(len(windows)) if windows.positions[w].any()]
    assert held
    for w in held:
        a, b = windows.positions[w]
        assert context[windows.starts[w, a] : windows.ends[w, b]] == text
    # Each piece of the context is in a window, and has most context in exactly one.
    assert sorted(windows.starts[windows.has_most_context]) == [2 * i for i in range(len(words))]


def test_lost_answers_are_named_and_too_many_are_an_error(tokenizer, caplog):
    good = [ask("a b c", "b", id=f"good{i}") for i in range(200)]
    long = ask("a b c d e f g h a b", "a b c d e f g", id="long")
    shifted = Question("s", "a", "a b", (Answer("b", 0, is_aligned=False),), "place of s")
    windows = cut(tokenizer, *good, long, shifted, ask("a b", None, id="none"))
    lost = {"answers": 202, "misaligned": 1, "unreachable": 1, "inexact": 0}
    assert {key: windows.counts[key] for key in lost} == lost
    assert set(windows.question[windows.is_lost]) == {200, 201}
    assert "2 of 202 answers" in caplog.text and "place of long, place of s" in caplog.text
    with pytest.raises(InputError, match="2 of 101 answers .*place of long.*more than 1%"):
        cut(tokenizer, *good[:99], long, shifted)
    blank = ask("a  b", "  ", id="blank")
    with pytest.raises(InputError, match="1 of 1 answers"):  # It has no piece.
        cut(tokenizer, blank)


def test_blank_questions_and_contexts_make_no_window_and_are_named(tokenizer, caplog):
    windows = cut(
        tokenizer, ask("a", question=" \0", id="one"), ask(" ", id="two"), ask("b", id="x")
    )
    assert windows.counts["without_window"] == 2 and windows.question.tolist() == [2]
    assert "2 questions have no window" in caplog.text and "place of one" in caplog.text
    with pytest.raises(InputError, match="place of two and all others have no window"):
        cut(tokenizer, ask(" ", id="two"))


def test_a_context_of_100000_characters_is_cut(tokenizer):
    context = "abcdefgh. " * 10_000 + "gh"
    windows = cut(tokenizer, ask(context, "gh", len(context) - 2), length=128, stride=64, query=8)
    assert windows.counts["windows"] == len(windows) > 1000
    assert windows.positions[-1].any()
    assert windows.has_most_context.sum() == 90_002


def test_a_stride_that_skips_text_is_refused(tokenizer):
    with pytest.raises(InputError, match="doc_stride 6 would skip text"):
        cut(tokenizer, ask("a b"), stride=6)
