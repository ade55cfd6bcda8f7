"""Fields of a label column: a class, a number, or no label.

A class is declared by name in `task.json`, or it is an unambiguous field of the training file.
Three kinds of field are classes only if they are declared: marks that other tools write for a
missing label, numbers with a fraction, and fields with surrounding blanks. Needs no TensorFlow.
"""

import collections
import dataclasses
import math
import re

import numpy as np
from absl import logging

from undivided_tf.data.tasks.rows import positions
from undivided_tf.data.tasks.tables import TsvTable
from undivided_tf.errors import InputError

# Marks of SNLI, TensorFlow Datasets, CoNLL, pandas, JSON and spreadsheets for a missing label.
MISSING = ("", *"- -1 _ ? nan NaN null NULL None NA N/A n/a #N/A".split())
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class LabelColumn:
    """The label column of a task's files.

    Attributes:
        name: name of the column.
        labels: names of the classes; empty: the fields are numbers (regression).
        score_range: lowest and highest number of a regression; empty: any.
        no_label_marks: fields that mark a row without a label.
    """

    name: str
    labels: tuple[str, ...]
    score_range: tuple[float, ...] = ()
    no_label_marks: tuple[str, ...] = ()

    def read(self, table: TsvTable) -> tuple[np.ndarray, np.ndarray]:
        """Reads the labels of the labelled rows.

        Args:
            table: a table with this column.

        Returns:
            Indices in `labels`, int32, or the numbers, float32, `(labelled rows,)`; and the indices
            of these rows in the table, `(labelled rows,)`. Other rows are counted and logged.

        Raises:
            InputError: a field is neither a label, nor a valid number, nor a mark; names file and
                line.
        """
        fields, places = _labelled(table, self.name, self.no_label_marks)
        if dropped := len(table.rows) - len(places):
            logging.warning(
                "%s: %d of %d rows left out, since their %s says that they have no label (%s)",
                table.path,
                dropped,
                len(table.rows),
                self.name,
                ", ".join(map(repr, self.no_label_marks)),
            )
        for field, place in zip(fields, places, strict=True):
            if fault := self._fault(field):
                raise InputError(f"{table.path}:{table.lines[place]}: {fault}")
        if self.labels:
            return positions(fields, self.labels), np.array(places, np.int64)
        return np.array(fields, np.float32), np.array(places, np.int64)

    def _fault(self, field: str) -> str:
        """Why a field cannot be read; empty if it can."""
        if self.labels:
            if field in self.labels:
                return ""
            hint = ""
            if field.strip() in self.labels:
                hint = f"; remove the blanks around {field.strip()!r}"
            elif field in MISSING:
                hint = f"; if it marks a missing label, declare {_declaration(field)}"
            return (
                f"label {field!r} is none of {', '.join(self.labels)} (from train, or `labels` "
                f"in task.json){hint}"
            )
        try:
            number = float(field)
        except ValueError:
            number = math.nan
        low, high = self.score_range or (-math.inf, math.inf)
        if math.isfinite(number) and low <= number <= high:
            return ""
        span = f" from {low:g} to {high:g}" if self.score_range else ""
        hint = f"; if it marks a missing label, declare {_declaration(field)}"
        return f"{self.name} {field!r} is not a number{span}{hint if field in MISSING else ''}"


def _labelled(table: TsvTable, column: str, marks: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """Fields of a label column, without marks for a missing label, and their row indices."""
    fields = table.column(column)
    places = [place for place, field in enumerate(fields) if field not in marks]
    return [fields[place] for place in places], places


def inferred_labels(table: TsvTable, column: str, marks: tuple[str, ...]) -> tuple[str, ...]:
    """The classes in a training file, sorted, for a task whose `task.json` declares none.

    Raises:
        InputError: an ambiguous field, or fewer than two classes.
    """
    fields, places = _labelled(table, column, marks)
    counts = collections.Counter(fields)
    first = dict(reversed(list(zip(fields, places, strict=True))))
    for field in counts:
        if fault := _why_not_a_class(field, column):
            more = f" (and {counts[field] - 1} more rows)" if counts[field] > 1 else ""
            raise InputError(f"{table.path}:{table.lines[first[field]]}: {fault}{more}")
    labels = tuple(sorted(counts))
    if len(labels) < 2:
        raise InputError(
            f"{table.path}: needs at least two labels in its column {column!r}, got {labels}"
        )
    shown = ", ".join(f"{label} ({counts[label]})" for label in labels[:20])
    logging.info(
        "%s: %d labels with their rows: %s%s",
        table.path,
        len(labels),
        shown,
        " ..." if len(labels) > 20 else "",
    )
    return labels


def _why_not_a_class(field: str, column: str) -> str:
    """Why a field is not a class unless it is declared; empty if it is one."""
    declare = f'declare all classes in task.json ("labels": ["{field}", ...])'
    if field in MISSING:
        return (
            f"{column} {field!r} often marks a missing label: if it does, declare "
            f"{_declaration(field)}; if it is a class, {declare}"
        )
    if field != field.strip() or not field.isprintable():
        return (
            f"{column} {field!r} has blanks or invisible characters around its name "
            f"{field.strip()!r}: remove them, or {declare}"
        )
    if _FRACTION.fullmatch(field):
        return (
            f"{column} {field!r} is a number with a fraction: if the task is to predict numbers, "
            f'declare "regression": true in task.json; if it is a class, {declare}'
        )
    return ""


def _declaration(field: str) -> str:
    return f'"no_label_marks": ["{field}"] in task.json, to leave such rows out'
