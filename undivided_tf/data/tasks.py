"""Labelled tasks: one interface for the embedded ones and for folders of TSV files.

Needs no TensorFlow.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Self

import numpy as np

from undivided_tf import files
from undivided_tf.config import Config, option
from undivided_tf.data import sample
from undivided_tf.errors import InputError

SPLITS = sample.SPLITS
# Of the GLUE tasks whose files have a header; the first that a file has counts.
TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("premise", "hypothesis"),
    ("sentence",),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Examples of a split.

    Attributes:
        first: texts.
        second: the other text of each pair, or None.
        labels: int32 `(rows,)`, positions in `Task.labels`; None when the split is unlabelled.
    """

    first: list[str]
    second: list[str] | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.first)

    def take(self, n: int, seed: int) -> Self:
        """At most `n` rows chosen at random, in their order; all when `n` is 0.

        With the same seed a smaller choice is part of every larger one.
        """
        if n <= 0 or n >= len(self):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[:n])
        return dataclasses.replace(
            self,
            first=[self.first[i] for i in chosen],
            second=None if self.second is None else [self.second[i] for i in chosen],
            labels=None if self.labels is None else self.labels[chosen],
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: for tables and file names.
        labels: label names; a label is its position here.
        is_pair: whether rows have a second text.
        read: gives the rows of the split "train", "validation" or "test"; None when the task
            has no test split.
    """

    name: str
    labels: tuple[str, ...]
    is_pair: bool
    read: Callable[[str], Rows | None]


def load_task(name: str) -> Task:
    """Finds a task.

    Args:
        name: `wiki_topic`, `wiki_pair`, or a folder with `train.tsv`, `dev.tsv` (or
            `validation.tsv`) and perhaps `test.tsv`: UTF-8, a header line, tabs, no quoting.
            Columns are found by GLUE's names (`sentence`; `sentence1` and `sentence2`;
            `question` and `sentence`; `question1` and `question2`; `premise` and
            `hypothesis`; `label`) or told by a `task.json` (`TaskConfig`) in the folder.

    Raises:
        InputError: no such task, or its files are at fault; names file and line.
    """
    if name in SAMPLE_TASKS:
        return SAMPLE_TASKS[name]()
    folder = pathlib.Path(name)
    if folder.is_dir():
        return _folder_task(folder)
    raise InputError(f"task {name!r}: neither a folder nor one of {', '.join(SAMPLE_TASKS)}")


def _wiki_topic() -> Task:
    def read(split: str) -> Rows:
        extracts, names = sample.wiki_topic(_checked_split(split))
        return Rows(extracts, None, _positions(names, labels))

    labels = sample.topics()
    return Task("wiki_topic", labels, False, read)


def _wiki_pair() -> Task:
    def read(split: str) -> Rows:
        descriptions, extracts, names = sample.wiki_pair(_checked_split(split))
        return Rows(descriptions, extracts, _positions(names, labels))

    labels = sample.PAIR_LABELS
    return Task("wiki_pair", labels, True, read)


SAMPLE_TASKS = {"wiki_topic": _wiki_topic, "wiki_pair": _wiki_pair}


def _positions(names: list[str], labels: tuple[str, ...]) -> np.ndarray:
    place = {label: index for index, label in enumerate(labels)}
    return np.array([place[name] for name in names], np.int32)


def _checked_split(split: str) -> str:
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split


@dataclasses.dataclass(frozen=True)
class TaskConfig(Config):
    """What `task.json` in a task's folder may say; empty means by convention."""

    first: str = option("", "Column of the text.")
    second: str = option("", "Column of the other text of a pair.")
    label: str = option("label", "Column of the label.")
    labels: tuple[str, ...] = option((), "Label names; empty: those of train, sorted.")
    train: str = option("train.tsv", "File of the train split.")
    validation: str = option("", "File of the validation split; empty: dev.tsv, validation.tsv.")
    test: str = option("test.tsv", "File of the test split.")


def _folder_task(folder: pathlib.Path) -> Task:
    told = folder / "task.json"
    config = TaskConfig.from_json(told) if told.exists() else TaskConfig()
    if not config.validation:
        names = [name for name in ("dev.tsv", "validation.tsv") if (folder / name).exists()]
        config = config.replace(validation=names[0] if names else "dev.tsv")
    if config.second and not config.first:
        raise InputError(f"{told}: names the column `second`, but not `first`")
    train = folder / config.train
    table = _read_table(train)
    columns = (config.first, config.second) if config.first else _text_columns(table)
    labels = config.labels or tuple(sorted(set(table.column(config.label))))
    if len(set(labels)) < max(2, len(labels)):
        raise InputError(f"{folder}: needs at least two labels, all different; got {labels}")

    @functools.cache
    def read(split: str) -> Rows | None:
        path = folder / getattr(config, _checked_split(split))
        if split == "test" and not path.exists():
            return None
        return _rows(_read_table(path), columns, config.label, labels, labelled=split != "test")

    return Task(folder.resolve().name, labels, bool(columns[1]), read)


def _text_columns(table: "_Table") -> tuple[str, str]:
    for columns in TEXT_COLUMNS:
        if all(column in table.header for column in columns):
            return (*columns, "")[:2]
    raise InputError(
        f"{table.path}:1: no text column found among {', '.join(table.header)}; name them in "
        'task.json: {"first": ..., "second": ...}'
    )


def _rows(
    table: "_Table", columns: tuple[str, str], label: str, labels: tuple[str, ...], labelled: bool
) -> Rows:
    first, second = columns
    numbers = None
    if labelled or label in table.header:
        names = table.column(label)
        for line, name in enumerate(names, 2):
            if name not in labels:
                raise InputError(
                    f"{table.path}:{line}: label {name!r} was never declared; known: "
                    f"{', '.join(labels)} (from train, or `labels` in task.json)"
                )
        numbers = _positions(names, labels)
    return Rows(table.column(first), table.column(second) if second else None, numbers)


@dataclasses.dataclass(frozen=True)
class _Table:
    path: pathlib.Path
    header: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        if name not in self.header:
            raise InputError(
                f"{self.path}:1: no column {name!r} among {', '.join(self.header)}; name the "
                "columns in task.json"
            )
        place = self.header.index(name)
        return [row[place] for row in self.rows]


def _read_table(path: pathlib.Path) -> _Table:
    """Reads a TSV with a header; quotes are ordinary characters, as in GLUE."""
    text = files.read_text(path, "utf-8-sig")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    header, *rows = (line.split("\t") for line in lines)
    if not rows:
        raise InputError(f"{path}: has no rows behind its header line")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InputError(
                f"{path}:{number}: {len(row)} columns, but the header has {len(header)} "
                f"({', '.join(header)})"
            )
    return _Table(path, header, rows)
