"""Labelled tasks: one interface for the embedded tasks, GLUE and folders of TSV files.

Needs no TensorFlow.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np
from absl import logging

from undivided_tf.config import SPLITS, Config, option
from undivided_tf.data import sample
from undivided_tf.data.tasks import glue_files, glue_tfds
from undivided_tf.data.tasks.label_columns import LabelColumn, inferred_labels
from undivided_tf.data.tasks.rows import Rows, Task, checked_split, positions
from undivided_tf.data.tasks.tables import TsvTable, read_table
from undivided_tf.errors import InputError
from undivided_tf.inputs import TFDS

__all__ = ["SPLITS", "Rows", "Task", "load_task", "read_split", "task_files"]


# Columns of the GLUE tasks whose files have a header; the first match in a file is used.
TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("premise", "hypothesis"),
    ("sentence",),
)


def load_task(name: str) -> Task:
    """Finds a task.

    Args:
        name: one of
            - `wiki_topic`, `wiki_pair`, `wiki_shift`, of the embedded sample;
            - `tfds:glue/cola` and similar, of TensorFlow Datasets (needs a network once);
            - a folder or zip archive in the official layout of GLUE, known by its name, such as
              `glue_data/CoLA` (see `data/glue_files.py`);
            - a folder with `train.tsv`, `dev.tsv` (or `validation.tsv`) and perhaps `test.tsv`:
              UTF-8, a header line, tabs, no quoting. Columns are found by GLUE's names (`sentence`;
              `sentence1` and `sentence2`; `question` and `sentence`; `question1` and `question2`;
              `premise` and `hypothesis`; `label`) or named by a `task.json` (`TaskConfig`) in the
              folder. This file also declares a regression and the marks of rows without a label. A
              folder that has it is a task of your own even if its name is that of a GLUE task.

    Raises:
        InputError: no such task, or invalid files; names file and line.
    """
    if name in SAMPLE_TASKS:
        return SAMPLE_TASKS[name]()
    if name.startswith(TFDS):
        return glue_tfds.tfds_task(name)
    folder = pathlib.Path(name)
    if (official := glue_files.official_name(folder)) and not (folder / "task.json").exists():
        return glue_files.folder_task(official, folder)
    if folder.is_dir():
        return _folder_task(folder)
    raise InputError(
        f"task {name!r}: neither a folder nor one of {', '.join(SAMPLE_TASKS)}, tfds:glue/NAME"
    )


def task_files(name: str) -> tuple[pathlib.Path, ...]:
    """The files that a task is read from, `task.json` included.

    Args:
        name: as for `load_task`.

    Returns:
        Existing files; for a zip archive the archive. Empty for the embedded sample and for
        TensorFlow Datasets, whose versions are fixed.

    Raises:
        InputError: as `load_task`.
    """
    folder = pathlib.Path(name)
    has_task_json = (folder / "task.json").exists()
    if folder.is_dir() and (has_task_json or not glue_files.official_name(folder)):
        # Not `load_task`, which refuses invalid files.
        return _files(folder, _folder_config(folder))
    return load_task(name).files


def read_split(name: str, split: str) -> Rows:
    """The rows of one split of a task.

    Raises:
        InputError: as `load_task`, or the task has no such split.
    """
    rows = load_task(name).read(split)
    if rows is None:
        raise InputError(f"task {name} has no split {split}: give --split")
    return rows


def _sample_task(
    name: str, labels: tuple[str, ...], read_split: Callable[[str], tuple[list[str], ...]]
) -> Task:
    """A task of the embedded sample.

    Args:
        name: name of the task.
        labels: label names.
        read_split: function from a split to one list of texts, or two for pairs, and label names.
    """

    def read(split: str) -> Rows:
        *texts, names = read_split(checked_split(split))
        return Rows(*texts, labels=positions(names, labels))

    return Task(name, labels, name == "wiki_pair", read)


# Functions, since they read the sample.
SAMPLE_TASKS = {
    "wiki_topic": lambda: _sample_task("wiki_topic", sample.topics(), sample.wiki_topic),
    "wiki_pair": lambda: _sample_task("wiki_pair", sample.PAIR_LABELS, sample.wiki_pair),
    "wiki_shift": lambda: _sample_task("wiki_shift", sample.SHIFT_LABELS, sample.wiki_shift),
}


@dataclasses.dataclass(frozen=True)
class TaskConfig(Config):
    """The content of `task.json` in a task's folder; empty values mean the convention."""

    first: str = option("", "Column of the text.")
    second: str = option("", "Column of the other text of a pair.")
    label: str = option("label", "Column of the label.")
    labels: tuple[str, ...] = option((), "Label names; empty: those of train, sorted.")
    no_label_marks: tuple[str, ...] = option(
        (), "Marks of rows without a label in the label column; such rows are left out and counted."
    )
    regression: bool = option(False, "The label is a number that is predicted, not a class.")
    score_range: tuple[float, ...] = option(
        (), "Lowest and highest number of a regression; predictions are clipped; empty: any."
    )
    train: str = option("train.tsv", "File of the train split.")
    validation: str = option("", "File of the validation split; empty: dev.tsv, validation.tsv.")
    test: str = option("test.tsv", "File of the test split.")

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        if self.second and not self.first:
            raise InputError("names the column `second`, but not `first`")
        if self.labels and len(set(self.labels)) < max(2, len(self.labels)):
            raise InputError(f"needs at least two labels, all different; got {self.labels}")
        if self.regression and self.labels:
            raise InputError("declares labels, but a regression has none")
        if self.score_range and not self.regression:
            raise InputError("declares a score_range, but no regression")
        if self.score_range and (
            len(self.score_range) != 2
            or not np.isfinite(self.score_range).all()
            or self.score_range[0] >= self.score_range[1]
        ):
            raise InputError(
                "score_range must be the lowest and the highest number, got "
                f"{list(self.score_range)}"
            )
        if both := set(self.labels) & set(self.no_label_marks):
            raise InputError(f"{min(both)!r} is a label and a mark for no label")


def _folder_config(folder: pathlib.Path) -> TaskConfig:
    """The content of `task.json`, with the name of the validation file."""
    config = _read_config(folder / "task.json")
    if not config.validation:
        names = [name for name in ("dev.tsv", "validation.tsv") if (folder / name).exists()]
        config = config.replace(validation=names[0] if names else "dev.tsv")
    return config


def _files(folder: pathlib.Path, config: TaskConfig) -> tuple[pathlib.Path, ...]:
    used = ("task.json", *(getattr(config, split) for split in SPLITS))
    return tuple(folder / name for name in used if (folder / name).exists())


def _folder_task(folder: pathlib.Path) -> Task:
    config = _folder_config(folder)
    train = folder / config.train
    table = read_table(train)
    columns = (config.first, config.second) if config.first else _text_columns(table)
    labels = config.labels
    if not labels and not config.regression:
        labels = inferred_labels(table, config.label, config.no_label_marks)
    column = LabelColumn(config.label, labels, config.score_range, config.no_label_marks)

    @functools.cache
    def read(split: str) -> Rows | None:
        path = folder / getattr(config, checked_split(split))
        if split == "test" and not path.exists():
            return None
        return _rows(read_table(path), columns, column, split)

    return Task(
        folder.resolve().name,
        labels,
        bool(columns[1]),
        read,
        score_range=config.score_range,
        files=_files(folder, config),
    )


def _read_config(path: pathlib.Path) -> TaskConfig:
    """Reads `task.json`; the defaults if there is none."""
    if not path.exists():
        return TaskConfig()
    try:
        return TaskConfig.from_json(path)
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error


def _text_columns(table: TsvTable) -> tuple[str, str]:
    for columns in TEXT_COLUMNS:
        if all(column in table.header for column in columns):
            return (*columns, "")[:2]
    raise InputError(
        f"{table.path}:1: no text column found among {', '.join(table.header)}; name them in "
        'task.json: {"first": ..., "second": ...}'
    )


def _rows(table: TsvTable, columns: tuple[str, str], column: LabelColumn, split: str) -> Rows:
    """Texts and labels; a test split may lack the label column or all labels."""
    first, second = columns
    rows = Rows(table.column(first), table.column(second) if second else None)
    if split == "test" and column.name not in table.header:
        return rows
    labels, places = column.read(table)
    if not len(labels) and split != "test":
        raise InputError(f"{table.path}: no row has a label: `no_label_marks` match all rows")
    if not len(labels):
        logging.info("%s: no row has a label, so the split is not scored", table.path)
        return rows
    return dataclasses.replace(rows.pick(places), labels=labels)
