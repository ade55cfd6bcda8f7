"""Questions in SQuAD's format, read strictly; needs TensorFlow only for `tfds:` sources.

A fault in a file raises an InputError that names the file and the JSON path, with one exception: an
answer that is not at its offset is left out of training and named in a warning. It is an error only
if more than `MAX_LOST` of all answers are lost (see `windows`).
"""

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from absl import logging

from undivided_tf.data import downloads, packed
from undivided_tf.errors import InputError
from undivided_tf.inputs import TFDS


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer: its text, and the offset of its first character in the context.

    `is_aligned` is false if the context has another text there.
    """

    text: str
    start: int
    is_aligned: bool = True


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a context.

    Attributes:
        id: unique in its data set.
        question: the text; may be blank, see `windows`.
        context: the paragraph.
        answers: empty if the question has no answer in the context (SQuAD 2.0).
        place: file and JSON path.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    place: str


def read_questions(sources: Sequence[str], split: str) -> list[Question]:
    """Reads data sets in sequence.

    Args:
        sources: each a JSON file in the format of SQuAD 1.1 or 2.0, plain or compressed with
            gzip, or `tfds:squad` or another TensorFlow data set with SQuAD's fields.
        split: split of a TensorFlow data set, such as `train`.

    Raises:
        InputError: the file is unreadable or not JSON (file:line), a key is missing or its value
            has a wrong type (JSON path), an id occurs twice, an answer is empty, a question is
            marked as impossible but has an answer, text is not Unicode (a lone surrogate), there is
            no question, or a TensorFlow data set cannot be downloaded.
    """
    questions: list[Question] = []
    for source in sources:
        if source.startswith(TFDS):
            questions += _read_tfds(source, split)
        else:
            questions += _articles(_read_json(pathlib.Path(source)), source)
    first: dict[str, str] = {}
    for question in questions:
        if question.id in first:
            raise InputError(
                f"{question.place}.id: {question.id!r} is already the id of {first[question.id]}"
            )
        first[question.id] = question.place
    if not questions:
        raise InputError(f"{', '.join(sources)}: there is no question in it")
    misaligned = [q.place for q in questions for answer in q.answers if not answer.is_aligned]
    if misaligned:
        logging.warning(
            "%d answers are not at their offset: %s",
            len(misaligned),
            ", ".join(misaligned[:10]),
        )
    return questions


def as_articles(questions: Iterable[Question]) -> list[dict[str, Any]]:
    """The questions as the value of `data` in SQuAD's JSON, for the official scorers."""
    return [
        {
            "title": "",
            "paragraphs": [
                {
                    "context": question.context,
                    "qas": [
                        {
                            "id": question.id,
                            "question": question.question,
                            "answers": [
                                {"text": answer.text, "answer_start": answer.start}
                                for answer in question.answers
                            ],
                        }
                    ],
                }
            ],
        }
        for question in questions
    ]


def _read_json(path: pathlib.Path) -> Any:
    text = packed.read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{path}: not SQuAD's JSON: nested too deeply") from error


def _get(value: Any, key: str, kind: type, where: str) -> Any:
    """The value of a key; InputError if it is missing or of another type."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object with the key {key!r}, got {_short(value)}")
    if key not in value:
        near = difflib.get_close_matches(key, value, 1)
        hint = f"did you mean {key!r} by {near[0]!r}?" if near else f"found: {', '.join(value)}"
        raise InputError(f"{where}: the key {key!r} is missing; {hint}")
    item = value[key]
    if type(item) is not kind:
        raise InputError(f"{where}.{key}: expected {kind.__name__}, got {_short(item)}")
    if kind is str:
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{where}.{key}: not Unicode text: {error}") from error
    return item


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _articles(value: Any, source: str) -> Iterator[Question]:
    for a, article in enumerate(_get(value, "data", list, f"{source}: $")):
        where = f"{source}: $.data[{a}]"
        for p, paragraph in enumerate(_get(article, "paragraphs", list, where)):
            place = f"{where}.paragraphs[{p}]"
            context = _get(paragraph, "context", str, place)
            for q, qa in enumerate(_get(paragraph, "qas", list, place)):
                yield _question(qa, context, f"{place}.qas[{q}]")


def _question(qa: Any, context: str, place: str) -> Question:
    answers = tuple(
        _answer(answer, context, f"{place}.answers[{i}]")
        for i, answer in enumerate(_get(qa, "answers", list, place))
    )
    if "is_impossible" in qa and _get(qa, "is_impossible", bool, place) and answers:
        raise InputError(f"{place}: is_impossible is true, but there are {len(answers)} answers")
    return Question(
        _get(qa, "id", str, place), _get(qa, "question", str, place), context, answers, place
    )


def _answer(value: Any, context: str, place: str) -> Answer:
    text, start = _get(value, "text", str, place), _get(value, "answer_start", int, place)
    if not text:
        raise InputError(f"{place}.text: empty; a question without an answer has no answers")
    # A negative start would count from the end of the context.
    return Answer(text, start, start >= 0 and context.startswith(text, start))


def _read_tfds(source: str, split: str) -> Iterator[Question]:
    import tensorflow_datasets as tfds

    builder = downloads.builder_of(source)
    downloads.prepare(builder, source, builder.info.homepage)
    missing = {"id", "question", "context", "answers"} - set(builder.info.features)
    if missing:
        raise InputError(f"{source}: has no field {', '.join(sorted(missing))}, as SQuAD has")
    rows = builder.as_dataset(split=split, shuffle_files=False)
    for number, row in enumerate(tfds.as_numpy(rows)):
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        qa = {
            "id": row["id"].decode(),
            "question": row["question"].decode(),
            "answers": [
                {"text": text.decode(), "answer_start": int(start)}
                for text, start in zip(texts, starts, strict=True)
            ],
        }
        yield _question(qa, row["context"].decode(), f"{source}: {split}[{number}]")
