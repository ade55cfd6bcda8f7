import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from undivided_tf.data.tasks.answers import (
    CERTAINLY_NULL,
    Predictions,
    best_spans,
    null_span,
    predict_answers,
)
from undivided_tf.data.tasks.squad import Question
from undivided_tf.data.tasks.windows import make_windows
from undivided_tf.metrics.squad import evaluate
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

# Letters with accents to strip, ligatures and dots that become several, Hangul, an emoji.
ALPHABET = "ab ÉßﬁǄ…½한e\u0301\u200b\0😀.\u0130\u1f82"


@pytest.fixture(scope="module")
def tokenizer():
    letters = "abcdefgh.eszdi12⁄"
    letters = list(dict.fromkeys(letters))
    return Tokenizer([*SPECIAL_TOKENS, *letters, *(f"##{c}" for c in letters)])


def ask(context, id="q", question="a b c d"):
    return Question(id, question, context, (), f"place of {id}")


def slow_best(logits, starts, ends, most, size, longest):
    """All pairs, one by one."""
    found = []
    for w in range(len(logits)):
        for i in range(logits.shape[2]):
            for j in range(i, min(i + longest, logits.shape[2])):
                if starts[w, i] >= 0 and most[w, i] and ends[w, j] >= 0:
                    score = float(logits[w, 0, i]) + float(logits[w, 1, j])
                    found.append((-score, int(starts[w, i]), int(ends[w, j])))
    best = {}
    for score, start, end in sorted(found):
        best.setdefault((start, end), -score)
    return sorted(best.values(), reverse=True)[:size], best


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    strategies.text(ALPHABET, max_size=40), strategies.integers(1, 6), strategies.integers(1, 8),
    strategies.integers(0, 2**31),
)  # fmt: skip
def test_the_best_spans_are_those_of_all_pairs_and_substrings(tokenizer, context, stride, n, seed):
    question = ask(context + "a")
    windows = make_windows(
        [question], tokenizer, max_seq_length=13, doc_stride=stride, max_query_length=4
    )
    logits = np.random.default_rng(seed).normal(size=(len(windows), 2, 13))
    arrays = (windows.starts, windows.ends, windows.has_most_context)
    spans = best_spans(logits, *arrays, n_best_size=n, max_answer_length=3)
    scores, every = slow_best(logits, *arrays, n, 3)
    assert [span.score for span in spans] == pytest.approx(scores)
    for span in spans:
        assert 0 <= span.start < span.end <= len(question.context)
        assert every[span.start, span.end] == pytest.approx(span.score)
    found = predict_answers(
        [question], windows, logits, n_best_size=n, max_answer_length=3,
        version_2_with_negative=True,
    )  # fmt: skip
    text = found.texts["q"]
    assert text and text in question.context
    assert text == question.context[spans[0].start : spans[0].end]
    entries = found.nbest["q"]
    assert sum(entry["probability"] for entry in entries) == pytest.approx(1)
    order = [entry["probability"] for entry in entries]
    assert order == sorted(order, reverse=True) and "" in [entry["text"] for entry in entries]
    odds = entries[[e["text"] for e in entries].index("")]
    null = odds["start_logit"] + odds["end_logit"]
    assert found.null_odds["q"] == pytest.approx(null - spans[0].score)


def test_the_null_score_is_the_lowest_over_the_windows():
    logits = np.zeros((3, 2, 4))
    logits[:, :, 0] = [[5, 1], [1, 2], [2, 2]]
    assert null_span(logits).score == 3.0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(wrong):
    logits = np.zeros((1, 2, 3))
    logits[0, 1, 2] = wrong
    ones = np.ones((1, 3), int)
    with pytest.raises(ValueError, match="not finite"):
        best_spans(logits, ones, ones, ones > 0, n_best_size=1, max_answer_length=1)


def test_a_question_without_a_window_has_the_empty_answer(tokenizer):
    questions = [ask(" ", "blank"), ask("a b", "fine")]
    windows = make_windows(
        questions, tokenizer, max_seq_length=13, doc_stride=2, max_query_length=4
    )
    logits = np.zeros((len(windows), 2, 13))
    for negative in (False, True):
        found = predict_answers(
            questions, windows, logits, n_best_size=3, max_answer_length=3,
            version_2_with_negative=negative,
        )  # fmt: skip
        assert found.texts["blank"] == "" and found.null_odds["blank"] == CERTAINLY_NULL
        assert [entry["text"] for entry in found.nbest["blank"]] == [""]
        # Among equal scores the shorter span is first, then the earlier one.
        texts = [entry["text"] for entry in found.nbest["fine"]]
        assert texts == ["a", "b", "a b", *[""] * negative]


def test_answers_at_the_best_threshold_have_the_best_f1():
    articles = [
        {"paragraphs": [{"qas": [{"id": f"q{i}", "answers": [{"text": text}] if text else []}]}]}
        for i, text in enumerate(["cat", "dog", "", ""])
    ]
    texts = {"q0": "cat", "q1": "cow", "q2": "cat", "q3": "dog"}
    for odds, expected in (([-3.0, 1.0, 0.0, 2.0], 75.0), ([-1.0, -2.0, -3.0, -4.0], 50.0)):
        odds = dict(zip(texts, odds, strict=True))
        predictions = Predictions(texts, odds, {})
        scores = evaluate(articles, texts, odds)
        threshold = predictions.best_threshold(scores)
        assert scores["best_f1"] == expected
        assert evaluate(articles, predictions.with_threshold(threshold))["f1"] == expected
