"""Predictions of a fine-tuned model on a stream of texts."""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.special

from undivided_tf.errors import InputError
from undivided_tf.training.classifiers import load_classifier, read_about


def predict_lines(
    model: str, lines: Iterable[str | bytes], batch_size: int, where: str = "input"
) -> Iterator[str]:
    """Predictions as JSON, one object a line, in the order of the input and as it comes in.

    Args:
        model: directory of a fine-tuned model.
        lines: one text each or, for pairs, two with a tab between them; bytes are UTF-8.
        batch_size: lines that are read before they are predicted.
        where: names the input in errors.

    Yields:
        `text`, `second_text` for pairs, and `label` with `probabilities` by label name, or
        `score` for a regression.

    Raises:
        InputError: no fine-tuned model there; a line with a tab too few or too many (the first
            line decides whether lines are pairs), a NUL byte, or one that is not UTF-8. The lines
            before it are predicted first.
    """
    about = read_about(model)
    classifier, tokenizer = load_classifier(model)
    numbered = enumerate(lines, 1)
    width = 0
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
                nul = " and a NUL byte" if "\0" in line else ""
                fault = InputError(
                    f"{where}:{number}: {len(fields)} fields{nul}; "
                    "a line is one text or, all through the input, two with a tab between"
                )
                break
            rows.append(fields)
        if not rows:
            raise fault
        classifier.encoder.config.require_segments(width)
        texts = list(zip(*rows, strict=True))
        inputs = tokenizer.encode(
            list(texts[0]),
            list(texts[1]) if width == 2 else None,
            max_seq_length=about["max_seq_length"],
        )
        # One shape for all batches: another would be compiled anew.
        filled = {
            name: np.pad(ids, ((0, batch_size - len(rows)), (0, 0)), mode="edge")
            for name, ids in inputs.items()
        }
        logits = classifier.predict_on_batch(filled)[: len(rows)]
        for fields, values in zip(rows, np.asarray(logits, np.float64), strict=True):
            yield json.dumps(_row(fields, values, classifier.labels), ensure_ascii=False)
        if fault:
            raise fault


def _row(fields: list[str], logits: np.ndarray, labels: tuple[str, ...]) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(("text", "second_text"), fields, strict=False))
    if not labels:
        return {**row, "score": float(logits[0])}
    shares = scipy.special.softmax(logits)
    probabilities = dict(zip(labels, map(float, shares), strict=True))
    return {**row, "label": labels[int(logits.argmax())], "probabilities": probabilities}
