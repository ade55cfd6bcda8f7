"""From start and end logits to answers: substrings of the contexts. Pure NumPy."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.special

from undivided_tf.data.tasks.squad import Question
from undivided_tf.data.tasks.windows import Windows

# Null odds of a question without a window, because it or its context is blank.
CERTAINLY_NULL = 1e9


@dataclasses.dataclass(frozen=True)
class Span:
    """A candidate answer, `context[start:end]`; no answer if both are 0."""

    start: int
    end: int
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        """Logit of the start plus logit of the end."""
        return self.start_logit + self.end_logit


def best_spans(
    logits: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    has_most_context: np.ndarray,
    *,
    n_best_size: int,
    max_answer_length: int,
) -> list[Span]:
    """The best spans over all windows of one question, best first.

    Candidates are all pairs of a start and an end in the context of one window, at most
    `max_answer_length` pieces apart, whose start has the most context in this window. The same
    characters count once. Among equal scores the shorter span is first, then the earlier one.

    Args:
        logits: float `(windows, 2, length)`, of starts and ends.
        starts: int `(windows, length)`, first character of each piece; -1 outside the context.
        ends: int `(windows, length)`, character after the last; -1 outside the context.
        has_most_context: bool `(windows, length)`.
        n_best_size: largest number of spans to return.
        max_answer_length: pieces.

    Raises:
        ValueError: a logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("a logit is not finite")
    windows, _, length = logits.shape
    first = np.where(has_most_context & (starts >= 0), logits[:, 0], -np.inf)
    last = np.where(ends >= 0, logits[:, 1], -np.inf)
    reach = min(max_answer_length, length)
    scores = np.full((reach, windows, length), -np.inf)
    for more in range(reach):  # Number of pieces after the first.
        scores[more, :, : length - more] = first[:, : length - more] + last[:, more:]
    order = np.argsort(-scores, axis=None, kind="stable")
    spans: dict[tuple[int, int], Span] = {}
    for more, window, piece in zip(*np.unravel_index(order, scores.shape), strict=True):
        if len(spans) == n_best_size or scores[more, window, piece] == -np.inf:
            break
        start, end = int(starts[window, piece]), int(ends[window, piece + more])
        span = Span(
            start, end, float(logits[window, 0, piece]), float(logits[window, 1, piece + more])
        )
        spans.setdefault((start, end), span)
    return list(spans.values())


def null_span(logits: np.ndarray) -> Span:
    """No answer: the lowest score over windows of [CLS], the first piece, as start and end.

    The window with the least evidence for no answer decides.

    Args:
        logits: as for `best_spans`.

    References:
        Devlin et al. 2018, arXiv 1810.04805, section 4.3.
    """
    start, end = logits[logits[:, :, 0].sum(axis=1).argmin(), :, 0]
    return Span(0, 0, float(start), float(end))


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Answers to the questions of a data set, by their ids.

    Attributes:
        texts: the best answer; empty only if the question has no window.
        null_odds: score of no answer minus the score of the best answer.
        nbest: the best answers, as nbest.json of google-research/bert has them: `text`,
            `probability` among these, `start_logit`, `end_logit`.
    """

    texts: dict[str, str]
    null_odds: dict[str, float]
    nbest: dict[str, list[dict[str, Any]]]

    def with_threshold(self, threshold: float) -> dict[str, str]:
        """The answers, empty where the null odds exceed a threshold."""
        return {
            id: "" if self.null_odds[id] > threshold else text for id, text in self.texts.items()
        }

    def best_threshold(self, scores: Mapping[str, float]) -> float:
        """The threshold of best F1, from the result of `metrics.squad.evaluate` for null odds.

        If no threshold beats answering nothing, the official threshold is 0, which may still give
        answers. This method then returns a threshold below all odds.
        """
        lowest = min(self.null_odds.values())
        nothing = 100.0 * scores.get("NoAns_total", 0) / scores["total"]
        return scores["best_f1_thresh"] if scores["best_f1"] > nothing else lowest - 1.0


def predict_answers(
    questions: Sequence[Question],
    windows: Windows,
    logits: np.ndarray,
    *,
    n_best_size: int,
    max_answer_length: int,
    version_2_with_negative: bool,
) -> Predictions:
    """Answers from the logits of all windows of a data set.

    Args:
        questions: the data set.
        windows: result of `make_windows` for it.
        logits: float `(windows, 2, length)`.
        n_best_size: answers per question in `nbest`.
        max_answer_length: pieces of an answer.
        version_2_with_negative: add no answer as a candidate to `nbest`.
    """
    texts, null_odds, nbest = {}, {}, {}
    edges = np.searchsorted(windows.question, np.arange(len(questions) + 1))
    for number, question in enumerate(questions):
        rows = slice(edges[number], edges[number + 1])  # Windows of the question.
        null = null_span(logits[rows]) if rows.start < rows.stop else Span(0, 0, 0.0, 0.0)
        spans = best_spans(
            logits[rows],
            windows.starts[rows],
            windows.ends[rows],
            windows.has_most_context[rows],
            n_best_size=n_best_size,
            max_answer_length=max_answer_length,
        )
        texts[question.id] = question.context[spans[0].start : spans[0].end] if spans else ""
        null_odds[question.id] = null.score - spans[0].score if spans else CERTAINLY_NULL
        if version_2_with_negative or not spans:
            spans = sorted([*spans, null], key=lambda span: -span.score)
        nbest[question.id] = _nbest(question.context, spans)
    return Predictions(texts, null_odds, nbest)


def _nbest(context: str, spans: Sequence[Span]) -> list[Mapping[str, Any]]:
    probabilities = scipy.special.softmax([span.score for span in spans])
    return [
        {
            "text": context[span.start : span.end],
            "probability": float(probability),
            "start_logit": span.start_logit,
            "end_logit": span.end_logit,
        }
        for span, probability in zip(spans, probabilities, strict=True)
    ]
