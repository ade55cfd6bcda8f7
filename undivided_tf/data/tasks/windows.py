"""Windows over long contexts, with the character offsets of their pieces."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from absl import logging

from undivided_tf.data.tasks.squad import Answer, Question
from undivided_tf.errors import InputError

if TYPE_CHECKING:  # Loads TensorFlow, which this module does not need.
    from undivided_tf.tokenization import Tokenizer

MAX_LOST = 0.01  # Largest share of answers that are misaligned or in no window.
_NAMED = 10  # Number of places that a message lists.


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Windows `[CLS] question [SEP] context [SEP]`; several for a question with a long context.

    Attributes:
        token_ids: int32 `(windows, length)`.
        segment_ids: int32 `(windows, length)`, 1 in the context and the last [SEP].
        padding_mask: int32 `(windows, length)`, 1 on tokens.
        question: int32 `(windows,)`, index of the window's question; ascending.
        starts: int32 `(windows, length)`, offset of the piece's first character in the context; -1
            outside the context.
        ends: int32 `(windows, length)`, offset after its last character; -1 outside the context.
        has_most_context: bool `(windows, length)`: of all windows with this piece of the context,
            this window has the most context on both sides. An answer starts only at such a piece.
        positions: int32 `(windows, 2)`, first and last piece of the first answer; twice 0, the
            position of [CLS], if the window does not contain the whole answer.
        is_lost: bool `(windows,)`, the question has an answer, but it is misaligned or in no
            window, so the window is not used for training.
        counts: `questions`, `windows`, `without_window` (questions), `answers` (first answers,
            which are used for training), `misaligned`, `unreachable` (not complete in any window)
            and `inexact` (complete, but a piece at its edge has characters outside the answer).
    """

    token_ids: np.ndarray
    segment_ids: np.ndarray
    padding_mask: np.ndarray
    question: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    has_most_context: np.ndarray
    positions: np.ndarray
    is_lost: np.ndarray
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.question)

    def take(self, chosen: np.ndarray) -> Self:
        """Some windows, by index or mask; `counts` stays that of all windows."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "counts"]
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def inputs(self) -> dict[str, np.ndarray]:
        """The encoder's inputs."""
        return {
            "token_ids": self.token_ids,
            "segment_ids": self.segment_ids,
            "padding_mask": self.padding_mask,
        }


def make_windows(
    questions: Sequence[Question],
    tokenizer: "Tokenizer",
    *,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
) -> Windows:
    """Cuts the contexts into windows and finds the answers in them.

    An answer becomes the smallest run of pieces that covers its characters. In a long context a
    window starts every `doc_stride` pieces. So an answer of up to `room - doc_stride + 1` pieces is
    complete in at least one window, where `room` is the length minus the question and three special
    tokens. A blank question, or one whose context has no word piece, has no window. Such questions
    are counted and named in a warning.

    Args:
        questions: the data set.
        tokenizer: gives ids and character offsets.
        max_seq_length: pieces of a window.
        doc_stride: pieces from the start of one window's context to that of the next.
        max_query_length: pieces of a question; a longer question is cut at its end.

    Raises:
        InputError: more than 1 % of the answers are misaligned or unreachable (names them),
            `doc_stride` would skip text, or no question has a window.

    References:
        google-research/bert, run_squad.py, `convert_examples_to_features`.
    """
    if doc_stride > max_seq_length - max_query_length - 3:
        raise InputError(
            f"doc_stride {doc_stride} would skip text: it is more than max_seq_length "
            f"{max_seq_length} minus max_query_length {max_query_length} and three special tokens"
        )
    texts = list(dict.fromkeys(question.context for question in questions))
    pieces = (ragged.to_list() for ragged in tokenizer.tokenize_with_offsets(texts))
    contexts = {
        text: tuple(np.array(part, np.int32) for part in row)
        for text, *row in zip(texts, *pieces, strict=True)
    }
    queries = tokenizer.tokenize([question.question for question in questions]).to_list()
    made, blank, lost, unreachable, inexact = [], [], [], 0, 0
    for number, (question, query) in enumerate(zip(questions, queries, strict=True)):
        ids, starts, ends = contexts[question.context]
        if not query or not len(ids):
            blank.append(question.place)
            continue
        answer = question.answers[0] if question.answers else None
        first, last = _span(answer, starts, ends) if answer and answer.is_aligned else (0, -1)
        arrays = _layout(
            query[:max_query_length],
            ids,
            starts,
            ends,
            (first, last),
            tokenizer,
            max_seq_length,
            doc_stride,
        )
        is_lost = answer is not None and not arrays["positions"].any()
        if is_lost:
            unreachable += answer.is_aligned
            lost.append(question.place)
        elif answer:
            exact = (answer.start, answer.start + len(answer.text))
            inexact += (starts[first], ends[last]) != exact
        count = len(arrays["positions"])
        arrays["question"] = np.full(count, number, np.int32)
        arrays["is_lost"] = np.full(count, is_lost)
        made.append(arrays)
    if not made:
        raise InputError(
            f"{questions[0].place} and all others have no window: questions or contexts are blank"
        )
    if blank:
        logging.warning(
            "%d questions have no window, since they or their contexts are blank: %s",
            len(blank),
            ", ".join(blank[:_NAMED]),
        )
    answers = sum(bool(question.answers) for question in questions)
    _check_lost(lost, answers)
    counts = {
        "questions": len(questions),
        "windows": sum(len(arrays["question"]) for arrays in made),
        "without_window": len(blank),
        "answers": answers,
        "misaligned": len(lost) - unreachable,
        "unreachable": int(unreachable),
        "inexact": int(inexact),
    }
    joined = {name: np.concatenate([arrays[name] for arrays in made]) for name in made[0]}
    return Windows(**joined, counts=counts)


def _span(answer: Answer, starts: np.ndarray, ends: np.ndarray) -> tuple[int, int]:
    """First and last piece with a character of the answer; last < first if there is none."""
    first = np.searchsorted(ends, answer.start, side="right")
    last = np.searchsorted(starts, answer.start + len(answer.text), side="left") - 1
    return int(first), int(last)


def _layout(
    query: list[int],
    ids: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    span: tuple[int, int],
    tokenizer: "Tokenizer",
    max_seq_length: int,
    doc_stride: int,
) -> dict[str, Any]:
    """The arrays of `Windows` for one question, `span` being the pieces of its answer."""
    offset = len(query) + 2  # Offset of the context in a window.
    room = max_seq_length - offset - 1
    n = 1 + max(0, -(-(len(ids) - room) // doc_stride))
    begin = np.arange(n)[:, None] * doc_stride
    count = np.minimum(room, len(ids) - begin)
    column = np.arange(max_seq_length) - offset
    inside = (column >= 0) & (column < count)
    piece = np.where(inside, begin + column, 0)

    token_ids = np.where(inside, ids[piece], tokenizer.pad_id)
    token_ids[:, :offset] = [tokenizer.cls_id, *query, tokenizer.sep_id]
    token_ids[column == count] = tokenizer.sep_id

    # google-research/bert's score: distance to the nearer edge, plus a little for a longer window.
    context = np.minimum(column, count - 1 - column) + 0.01 * count
    scores = np.full((n, len(ids)), -1.0)
    scores[np.nonzero(inside)[0], piece[inside]] = context[inside]
    most = scores.argmax(axis=0)

    first, last = span
    holds = (begin <= first) & (first <= last) & (last < begin + count)
    return {
        "token_ids": token_ids.astype(np.int32),
        "segment_ids": ((column >= 0) & (column <= count)).astype(np.int32),
        "padding_mask": (column <= count).astype(np.int32),
        "starts": np.where(inside, starts[piece], -1).astype(np.int32),
        "ends": np.where(inside, ends[piece], -1).astype(np.int32),
        "has_most_context": inside & (most[piece] == np.arange(n)[:, None]),
        "positions": np.where(holds, offset + np.array(span) - begin, 0).astype(np.int32),
    }


def _check_lost(lost: list[str], answers: int) -> None:
    """InputError if too many answers are lost; else names the lost answers in a warning."""
    if not lost:
        return
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    message = (
        f"{len(lost)} of {answers} answers are not at their offset or in no window: "
        f"{', '.join(lost[:_NAMED])}{more}"
    )
    if len(lost) > MAX_LOST * answers:
        raise InputError(
            f"{message}; more than {MAX_LOST:.0%} is too many: correct the data, or make windows "
            "longer (max_seq_length) or more of them (doc_stride)"
        )
    logging.warning("%s", message)
