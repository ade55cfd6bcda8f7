"""Reads GLUE from its official folders or zip archives of them. Needs no TensorFlow.

A fault in a file raises an InputError with file and line, with two exceptions:

- rows of train with too few or too many fields are dropped if they are at most one in a thousand
  (the first release of QQP has such rows);
- rows of train whose text is blank are dropped; blank rows of other splits are kept, since they
  count in the score.

Dropped rows are counted and logged. Quotes are ordinary characters. A field may have any length
(the tokenizer truncates it). A byte order mark is skipped. Labels of GLUE's own test splits, which
some copies of MRPC have, are not read: the validation split is scored locally.
"""

import dataclasses
import functools
import math
import pathlib
import zipfile
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.data import packed
from undivided_tf.data.packed import Path
from undivided_tf.data.tasks import glue
from undivided_tf.data.tasks.rows import Rows, Task, checked_split, positions
from undivided_tf.data.tasks.tables import TsvTable, read_table
from undivided_tf.errors import InputError

SHORT_ROWS = 0.001  # Largest share of malformed rows of train that are dropped.

# A `.slice` is a part of a split, so its scores are not those of the split.
_FILES = {
    "train": ("train.tsv", "train.slice.tsv", "msr_paraphrase_train.txt"),
    "validation": ("dev.tsv", "dev_matched.tsv", "dev.slice.tsv", "msr_paraphrase_train.txt"),
    "validation_mismatched": ("dev_mismatched.tsv",),
    "test": ("test.tsv", "test_matched.tsv", "diagnostic.tsv", "AX.tsv", "msr_paraphrase_test.txt"),
    "test_mismatched": ("test_mismatched.tsv",),
}
# MRPC as released by Microsoft: dev is the rows of train whose pair of ids is in a list.
_DEV_IDS = ("dev_ids.tsv", "mrpc_dev_ids.tsv")


def official_name(path: pathlib.Path) -> str | None:
    """The GLUE task that a folder or zip archive holds, by its name; None if it holds none.

    Raises:
        InputError: an archive of this name is damaged or holds no such task.
    """
    name = glue.canonical_name(path.stem if _is_zip(path) else path.name)
    if name is None or not (path.is_dir() or _archive(path).is_file()):
        return None
    folder = _folder(path, name)
    split = "test" if name == "ax" else "train"
    return name if any((folder / file).exists() for file in _FILES[split]) else None


def _is_zip(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".zip"


def _archive(path: pathlib.Path) -> pathlib.Path:
    return path if _is_zip(path) else path.with_name(path.name + ".zip")


def _folder(path: pathlib.Path, name: str) -> Path:
    """The folder of a task, which may be inside the archive `path` or `path.zip`.

    Raises:
        InputError: neither exists, or the archive cannot be read.
    """
    if path.is_dir():
        return path
    archive = _archive(path)
    if not archive.is_file():
        raise InputError(f"{path}: there is no such folder, nor {archive.name} beside it")
    marks = ("diagnostic.tsv", "AX.tsv") if name == "ax" else _FILES["train"]
    marked = [member for member in packed.members(archive) if member.name in marks]
    if not marked:
        raise InputError(f"{archive}: holds none of {', '.join(marks)}")
    return min(marked, key=lambda member: len(member.at)).parent


def folder_task(name: str, path: pathlib.Path) -> Task:
    """A task in the official layout.

    Args:
        name: key in `glue.TASKS`.
        path: the folder, or its zip archive.

    Raises:
        InputError: no such folder or file, or an invalid row; names file and line.
    """
    about = glue.TASKS[name]
    folder = _folder(path, name)

    @functools.cache
    def read(split: str) -> Rows | None:
        checked_split(split, about.splits)
        if split == "test_ax":
            beside = _folder_beside(path)
            return folder_task("ax", beside).read("test") if beside else None
        files = [file for file in _FILES[split] if (folder / file).exists()]
        if not files and split not in ("train", "validation"):
            return None
        file = files[0] if files else _FILES[split][0]
        if ".slice" in file:
            logging.info("%s is a slice of the %s split", folder / file, split)
        in_train = split == "train"
        header = about.headerless if split in ("train", "validation") else ()
        try:
            table = read_table(folder / file, header, SHORT_ROWS if in_train else 0.0)
            if file == _FILES["train"][-1]:
                table = _msr_split(table, folder, keep_dev=not in_train)
            return _rows(about, table, split)
        except InputError as error:
            if error.__cause__:  # Damage or another encoding, whatever the task.
                raise
            remedy = (
                "rename it"
                if isinstance(folder, zipfile.Path)
                else "put a task.json in it ({} will do)"
            )
            raise InputError(
                f"{error}; {path.name} is read as {about.folder} of GLUE because of its name: for "
                f"a task of your own {remedy}"
            ) from error

    return glue.task_of(name, path.name, read, _files(about, folder, path))


def _files(about: glue.GlueTask, folder: Path, path: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The archive, or the files of a folder; for MNLI also those of the diagnostic beside it."""
    if isinstance(folder, zipfile.Path):
        listed = [pathlib.Path(folder.root.filename)]
    else:
        names = [name for split in about.splits for name in _FILES.get(split, ())] + [*_DEV_IDS]
        listed = [folder / name for name in dict.fromkeys(names) if (folder / name).exists()]
    if "test_ax" in about.splits and (beside := _folder_beside(path)):
        listed += folder_task("ax", beside).files
    return tuple(listed)


def input_files(data: str, *names: str) -> dict[str, pathlib.Path]:
    """The files of some tasks of GLUE in the folder that holds CoLA, SST-2, MRPC, ...

    Raises:
        InputError: a task is missing.
    """
    return {
        f"{name} {path.name}": path
        for name in names
        for path in folder_task(name, pathlib.Path(data) / glue.TASKS[name].folder).files
    }


def _folder_beside(path: pathlib.Path) -> pathlib.Path | None:
    """The folder of the diagnostic AX, which models of MNLI predict, beside that of MNLI."""
    names = (glue.TASKS["ax"].folder, *glue.TASKS["ax"].aliases)
    folders = [path.parent / name for name in names if official_name(path.parent / name) == "ax"]
    return folders[0] if folders else None


def _msr_split(table: TsvTable, folder: Path, keep_dev: bool) -> TsvTable:
    """The rows of dev, or all other rows, of Microsoft's MRPC file."""
    listed = [file for file in _DEV_IDS if (folder / file).exists()]
    if not listed:
        raise InputError(
            f"{table.path}: has no list of dev rows beside it ({' or '.join(_DEV_IDS)}), which "
            "separates train and dev"
        )
    dev = {tuple(line.split()) for line in packed.read_text(folder / listed[0]).splitlines()}
    places = [
        place
        for place, ids in enumerate(zip(table.column("#1 ID"), table.column("#2 ID"), strict=True))
        if (ids in dev) == keep_dev
    ]
    return dataclasses.replace(
        table,
        rows=[table.rows[place] for place in places],
        lines=[table.lines[place] for place in places],
    )


def _rows(about: glue.GlueTask, table: TsvTable, split: str) -> Rows:
    """Texts and labels of a table, checked."""
    texts = [table.column(column) for column in about.columns]
    labels = None
    if not split.startswith("test"):
        fields = table.column(about.label)
        checked = [
            _label(about, field, f"{table.path}:{line}")
            for field, line in zip(fields, table.lines, strict=True)
        ]
        labels = positions(checked, about.labels) if about.labels else np.float32(checked)
    return glue.without_blanks(Rows(*texts, labels=labels), split, str(table.path))


def _label(about: glue.GlueTask, field: str, where: str) -> Any:
    """The label's name, or the score."""
    if not about.labels:
        try:
            score = float(field)
        except ValueError:
            score = math.nan
        low, high = about.score_range
        if not low <= score <= high:
            raise InputError(
                f"{where}: {about.label} {field!r} is not a number from {low:g} to {high:g}"
            )
        return score
    if about.digits and field in map(str, range(len(about.labels))):
        return about.labels[int(field)]
    if field not in about.labels:
        allowed = range(len(about.labels)) if about.digits else about.labels
        raise InputError(
            f"{where}: {about.label} {field!r} is none of {', '.join(map(str, allowed))}"
        )
    return field
