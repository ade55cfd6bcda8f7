"""Labelled tasks: one interface for the embedded ones, GLUE and folders of TSV files.

Needs no TensorFlow.
"""

import dataclasses
import functools
import pathlib

from undivided_tf.config import Config, option
from undivided_tf.data import glue_files, glue_tfds, sample
from undivided_tf.data.rows import SPLITS, Rows, Task, checked_split, positions
from undivided_tf.data.tables import Table, read_table
from undivided_tf.errors import InputError

__all__ = ["SPLITS", "Rows", "Task", "load_task", "read_split"]


# Of the GLUE tasks whose files have a header; the first that a file has counts.
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
            - `wiki_topic`, `wiki_pair`, of the embedded sample;
            - `tfds:glue/cola` and its like, of TensorFlow Datasets (needs a network once);
            - a folder or zip archive in the official layout of GLUE, known by its name, such as
              `glue_data/CoLA` (see `data/glue_files.py`);
            - a folder with `train.tsv`, `dev.tsv` (or `validation.tsv`) and perhaps `test.tsv`:
              UTF-8, a header line, tabs, no quoting. Columns are found by GLUE's names
              (`sentence`; `sentence1` and `sentence2`; `question` and `sentence`; `question1`
              and `question2`; `premise` and `hypothesis`; `label`) or told by a `task.json`
              (`TaskConfig`) in the folder, which also takes the folder's name its meaning.

    Raises:
        InputError: no such task, or its files are at fault; names file and line.
    """
    if name in SAMPLE_TASKS:
        return SAMPLE_TASKS[name]()
    if name.startswith("tfds:"):
        return glue_tfds.tfds_task(name)
    folder = pathlib.Path(name)
    if (found := glue_files.official_name(folder)) and not (folder / "task.json").exists():
        return glue_files.folder_task(found, folder)
    if folder.is_dir():
        return _folder_task(folder)
    raise InputError(
        f"task {name!r}: neither a folder nor one of {', '.join(SAMPLE_TASKS)}, tfds:glue/NAME"
    )


def input_files(name: str) -> dict[str, pathlib.Path]:
    """The files of a task, by split; `task.json` by its name.

    Args:
        name: as for `load_task`. The embedded sample is of a fixed version, and TensorFlow
            Datasets name theirs: neither has files here.

    Raises:
        InputError: there is no such task.
    """
    if name in SAMPLE_TASKS or name.startswith("tfds:"):
        return {}
    folder = pathlib.Path(name)
    if (found := glue_files.official_name(folder)) and not (folder / "task.json").exists():
        return glue_files.task_files(found, folder)
    if not folder.is_dir():
        raise InputError(f"task {name!r}: there is no such folder")
    config = _folder_config(folder)
    paths = {split: folder / getattr(config, split) for split in SPLITS}
    paths["task.json"] = folder / "task.json"
    return {part: path for part, path in paths.items() if path.exists()}


def read_split(name: str, split: str) -> Rows:
    """The rows of one split of a task.

    Raises:
        InputError: as `load_task`, or the task has no such split.
    """
    rows = load_task(name).read(split)
    if rows is None:
        raise InputError(f"task {name} has no split {split}: give --split")
    return rows


def _wiki_topic() -> Task:
    def read(split: str) -> Rows:
        extracts, names = sample.wiki_topic(checked_split(split))
        return Rows(extracts, None, positions(names, labels))

    labels = sample.topics()
    return Task("wiki_topic", labels, False, read)


def _wiki_pair() -> Task:
    def read(split: str) -> Rows:
        descriptions, extracts, names = sample.wiki_pair(checked_split(split))
        return Rows(descriptions, extracts, positions(names, labels))

    labels = sample.PAIR_LABELS
    return Task("wiki_pair", labels, True, read)


SAMPLE_TASKS = {"wiki_topic": _wiki_topic, "wiki_pair": _wiki_pair}


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


def _folder_config(folder: pathlib.Path) -> TaskConfig:
    told = folder / "task.json"
    config = TaskConfig.from_json(told) if told.exists() else TaskConfig()
    if not config.validation:
        names = [name for name in ("dev.tsv", "validation.tsv") if (folder / name).exists()]
        config = config.replace(validation=names[0] if names else "dev.tsv")
    return config


def _folder_task(folder: pathlib.Path) -> Task:
    told = folder / "task.json"
    config = _folder_config(folder)
    if config.second and not config.first:
        raise InputError(f"{told}: names the column `second`, but not `first`")
    train = folder / config.train
    table = read_table(train)
    columns = (config.first, config.second) if config.first else _text_columns(table)
    labels = config.labels or tuple(sorted(set(table.column(config.label))))
    if len(set(labels)) < max(2, len(labels)):
        raise InputError(f"{folder}: needs at least two labels, all different; got {labels}")

    @functools.cache
    def read(split: str) -> Rows | None:
        path = folder / getattr(config, checked_split(split))
        if split == "test" and not path.exists():
            return None
        return _rows(read_table(path), columns, config.label, labels, labelled=split != "test")

    return Task(folder.resolve().name, labels, bool(columns[1]), read)


def _text_columns(table: Table) -> tuple[str, str]:
    for columns in TEXT_COLUMNS:
        if all(column in table.header for column in columns):
            return (*columns, "")[:2]
    raise InputError(
        f"{table.path}:1: no text column found among {', '.join(table.header)}; name them in "
        'task.json: {"first": ..., "second": ...}'
    )


def _rows(
    table: Table, columns: tuple[str, str], label: str, labels: tuple[str, ...], labelled: bool
) -> Rows:
    first, second = columns
    numbers = None
    if labelled or label in table.header:
        names = table.column(label)
        for line, name in zip(table.lines, names, strict=True):
            if name not in labels:
                raise InputError(
                    f"{table.path}:{line}: label {name!r} was never declared; known: "
                    f"{', '.join(labels)} (from train, or `labels` in task.json)"
                )
        numbers = positions(names, labels)
    return Rows(table.column(first), table.column(second) if second else None, numbers)
