"""Predictions of a fine-tuned model on a stream of texts, by the graph that an export serves."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from undivided_tf.errors import InputError
from undivided_tf.export import parts, signatures
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.inference import InferenceEncoder
from undivided_tf.models.heads import INPUTS, MULTI_LABEL, PAIR, REGRESSION, SINGLE, ClassifierHead
from undivided_tf.training.classifiers import read_head

_FIELDS = {SINGLE: 1, PAIR: 2}
_LINES = {SINGLE: "a line is one text", PAIR: "a line is two texts with a tab between"}


def predict_lines(
    model: str,
    lines: Iterable[str | bytes],
    batch_size: int,
    where: str = "input",
    batches_ahead: int = 1,
) -> Iterator[str]:
    """Streams predictions as JSON, one object per line, in the order of the input.

    Args:
        model: directory of a fine-tuned model.
        lines: UTF-8 bytes or strings: one text each or, for models of pairs, two texts separated by
            a tab. If the head does not name its kind of input, the first line decides.
        batch_size: number of lines that are predicted together.
        where: names the input in errors.
        batches_ahead: number of batches that are read before the first is predicted. Lines of
            like length are then predicted together, which needs less padding.

    Yields:
        `text`, and `second_text` for pairs. For a classification `label`, and `probabilities` by
        label name. If several labels may hold, `labels`, those with a probability of at least 1/2,
        and `probabilities`. For a regression `score`, clipped to the range of its task.

    Raises:
        InputError: no fine-tuned model; or a line that has a wrong number of tabs or a NUL byte, or
            is not UTF-8. The lines before it are predicted first.
    """
    head = read_head(model)
    if not head.input:
        logging.warning(
            "%s does not say whether it takes %s; the first line decides",
            model,
            " or ".join(INPUTS.values()),
        )
    numbered = enumerate(lines, 1)
    width = _FIELDS.get(head.input, 0)
    classify = _classifier(model, width) if width else None
    for window in iter(lambda: list(itertools.islice(numbered, batch_size * batches_ahead)), []):
        rows, fault = [], None
        for number, line in window:
            try:
                line = line if isinstance(line, str) else line.decode()
            except UnicodeDecodeError as error:
                fault = InputError(
                    f"{where}:{number}: not UTF-8 ({error.reason}); convert the input, for example "
                    "with iconv -t UTF-8"
                )
                break
            fields = line.removesuffix("\n").removesuffix("\r").split("\t")
            width = width or len(fields)
            if len(fields) != width or width > 2 or "\0" in line:
                fault = InputError(f"{where}:{number}: {_fault(fields, model, head)}")
                break
            rows.append(fields)
        if rows:
            classify = classify or _classifier(model, width)
            for fields, answer in zip(rows, _answers(classify, rows, batch_size), strict=True):
                yield json.dumps(_row(fields, answer, head), ensure_ascii=False)
        if fault:
            raise fault


def _classifier(model: str, width: int) -> Callable[..., np.ndarray]:
    """The graph of a fine-tuned model, from one or two lists of texts to scores or probabilities.

    Args:
        model: its directory.
        width: number of texts a row.
    """
    loaded = parts.load(model)
    loaded.encoder.config.require_segments(width)
    signature = signatures.of_texts(
        "classify" if width == 1 else "classify_pair",
        loaded,
        InferenceEncoder(loaded.encoder),
        ExportConfig(),
    )
    graph = tf.function(signature.function, signature.specs, autograph=False)

    def classify(*texts: list[str]) -> np.ndarray:
        outputs = graph(*map(tf.constant, texts))
        return outputs["score" if "score" in outputs else "probabilities"].numpy()

    return classify


def _answers(
    classify: Callable[..., np.ndarray], rows: list[list[str]], batch_size: int
) -> list[np.ndarray]:
    """Scores or probabilities of rows; those of like length are computed together."""
    by_length = sorted(range(len(rows)), key=lambda number: sum(map(len, rows[number])))
    answers = {}
    for start in range(0, len(rows), batch_size):
        batch = by_length[start : start + batch_size]
        texts = zip(*(rows[number] for number in batch), strict=True)
        answers.update(zip(batch, classify(*map(list, texts)), strict=True))
    return [answers[number] for number in range(len(rows))]


def _fault(fields: list[str], model: str, head: ClassifierHead) -> str:
    """Describes the fault of a line."""
    nul = " and a NUL byte" if any("\0" in field for field in fields) else ""
    fields_shown = f"{len(fields)} field{'s' * (len(fields) != 1)}{nul}"
    if head.input:
        return f"{fields_shown}; {model} takes {INPUTS[head.input]}: {_LINES[head.input]}"
    return f"{fields_shown}; a line is one text or, all through the input, two with a tab between"


def _row(fields: list[str], answer: np.ndarray, head: ClassifierHead) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(("text", "second_text"), fields, strict=False))
    if head.kind == REGRESSION:
        return {**row, "score": float(answer)}
    probabilities = dict(zip(head.labels, map(float, answer), strict=True))
    if head.kind == MULTI_LABEL:
        likely = [label for label, value in probabilities.items() if value >= 0.5]
        return {**row, "labels": likely, "probabilities": probabilities}
    return {**row, "label": head.labels[int(answer.argmax())], "probabilities": probabilities}
