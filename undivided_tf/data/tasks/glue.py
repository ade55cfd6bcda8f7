"""Declarations of GLUE's nine tasks and the diagnostic AX. Needs no TensorFlow.

References:
    Wang et al. 2018, arXiv 1804.07461 (GLUE).
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable

import numpy as np
from absl import logging

from undivided_tf.config import SPLITS
from undivided_tf.data.tasks.rows import Rows, Task

ENTAILMENT = ("entailment", "neutral", "contradiction")


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """A task of GLUE, as in its official files.

    Attributes:
        folder: official name of its folder, and of the task in tables.
        columns: text columns of the files.
        label: label column of the files.
        labels: label names in the order of TensorFlow Datasets; empty: the label is a score.
        fields: text features in TensorFlow Datasets; empty: as `columns`.
        digits: files give a label as its index in `labels` instead of its name.
        submission: file of the submission for each unlabelled split.
        headerless: columns of train and dev, if these have no header line.
        aliases: other names of the folder.
        splits: the splits that can be read.
        score_range: lowest and highest score, if the label is a score.
    """

    folder: str
    columns: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    fields: tuple[str, ...] = ()
    digits: bool = True
    submission: dict[str, str] = dataclasses.field(default_factory=dict)
    headerless: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    splits: tuple[str, ...] = SPLITS
    score_range: tuple[float, ...] = ()

    @property
    def submission_files(self) -> dict[str, str]:
        """File name in the submission archive by split."""
        return self.submission or {"test": f"{self.folder}.tsv"}


PAIR = ("sentence1", "sentence2")
TASKS = {
    "cola": GlueTask(
        "CoLA",
        ("sentence",),
        "label",
        ("unacceptable", "acceptable"),
        headerless=("source", "label", "mark", "sentence"),
    ),
    "sst2": GlueTask("SST-2", ("sentence",), "label", ("negative", "positive")),
    "mrpc": GlueTask(
        "MRPC", ("#1 String", "#2 String"), "Quality", ("not_equivalent", "equivalent"), PAIR
    ),
    "stsb": GlueTask("STS-B", PAIR, "score", (), score_range=(0.0, 5.0)),
    "qqp": GlueTask(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        aliases=("QQP-clean",),
    ),
    "mnli": GlueTask(
        "MNLI",
        PAIR,
        "gold_label",
        ENTAILMENT,
        ("premise", "hypothesis"),
        digits=False,
        submission={"test": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv", "test_ax": "AX.tsv"},
        splits=(*SPLITS, "validation_mismatched", "test_mismatched", "test_ax"),
    ),
    "qnli": GlueTask(
        "QNLI",
        ("question", "sentence"),
        "label",
        ("entailment", "not_entailment"),
        digits=False,
        aliases=("QNLIv2",),
    ),
    "rte": GlueTask("RTE", PAIR, "label", ("entailment", "not_entailment"), digits=False),
    "wnli": GlueTask("WNLI", PAIR, "label", ("not_entailment", "entailment")),
    "ax": GlueTask(
        "AX",
        PAIR,
        "label",
        ENTAILMENT,
        ("premise", "hypothesis"),
        digits=False,
        aliases=("diagnostic",),
        splits=("test",),
    ),
}


def task_of(
    key: str,
    name: str,
    read: Callable[[str], Rows | None],
    files: tuple[pathlib.Path, ...] = (),
) -> Task:
    """A task of GLUE; `key` is its key in `TASKS`, the other arguments are those of `Task`."""
    about = TASKS[key]
    is_pair = len(about.columns) == 2
    return Task(name, about.labels, is_pair, read, key, about.splits, about.score_range, files)


def canonical_name(name: str) -> str | None:
    """The key in `TASKS` of a name such as `SST-2`, `sst2` or `QNLIv2`; None if there is none."""
    keys = {
        _plain(other): key
        for key, task in TASKS.items()
        for other in (key, task.folder, *task.aliases)
    }
    return keys.get(_plain(name))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def without_blanks(rows: Rows, split: str, where: str) -> Rows:
    """The rows without those of blank text if the split is train; all rows of other splits."""
    texts = [rows.first] if rows.second is None else [rows.first, rows.second]
    blank = np.array([not all(text.strip() for text in row) for row in zip(*texts, strict=True)])
    if not blank.any():
        return rows
    fate = "dropped" if split == "train" else "kept, since they count in the score"
    logging.warning("%s: %d rows of %s with a blank text %s", where, blank.sum(), split, fate)
    return rows.pick(np.flatnonzero(~blank)) if split == "train" else rows
