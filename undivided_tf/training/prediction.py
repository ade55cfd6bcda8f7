"""Predictions of a fine-tuned model on a stream of texts."""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.errors import InputError
from undivided_tf.models.heads import INPUTS, MULTI_LABEL, PAIR, REGRESSION, SINGLE, ClassifierHead
from undivided_tf.training.classifiers import load_classifier, read_head

_FIELDS = {SINGLE: 1, PAIR: 2}
_LINES = {SINGLE: "a line is one text", PAIR: "a line is two texts with a tab between"}


def predict_lines(
    model: str, lines: Iterable[str | bytes], batch_size: int, where: str = "input"
) -> Iterator[str]:
    """Streams predictions as JSON, one object per line, in the order of the input.

    Args:
        model: directory of a fine-tuned model.
        lines: UTF-8 bytes or strings: one text each or, for models of pairs, two texts separated by
            a tab. If the head does not name its kind of input, the first line decides.
        batch_size: number of lines that are predicted together.
        where: names the input in errors.

    Yields:
        `text`, and `second_text` for pairs. For a classification `label`, and `probabilities` by
        label name. If several labels may hold, `labels`, those with a probability of at least 1/2,
        and `probabilities`. For a regression `score`, clipped to the range of its task.

    Raises:
        InputError: no fine-tuned model; or a line that has a wrong number of tabs or a NUL byte, or
            is not UTF-8. The lines before it are predicted first.
    """
    head = read_head(model)
    classifier, tokenizer = load_classifier(model)
    if not head.input:
        logging.warning(
            "%s does not say whether it takes %s; the first line decides",
            model,
            " or ".join(INPUTS.values()),
        )
    numbered = enumerate(lines, 1)
    width = _FIELDS.get(head.input, 0)
    for batch in iter(lambda: list(itertools.islice(numbered, batch_size)), []):
        rows, fault = [], None
        for number, line in batch:
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
        if not rows:
            raise fault
        classifier.encoder.config.require_segments(width)
        texts = list(zip(*rows, strict=True))
        inputs = tokenizer.encode(
            list(texts[0]),
            list(texts[1]) if width == 2 else None,
            max_seq_length=head.max_seq_length,
        )
        # One shape for all batches, since another shape would be compiled again.
        filled = {
            name: np.pad(ids, ((0, batch_size - len(rows)), (0, 0)), mode="edge")
            for name, ids in inputs.items()
        }
        logits = classifier.predict_on_batch(filled)[: len(rows)]
        answers = head.answers(np.asarray(logits, np.float64))
        for fields, answer in zip(rows, answers, strict=True):
            yield json.dumps(_row(fields, answer, head), ensure_ascii=False)
        if fault:
            raise fault


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
