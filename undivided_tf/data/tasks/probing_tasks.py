"""Names of probing tasks, about words or texts. Needs no TensorFlow.

A name is `ud:TASK:FOLDER` for a treebank, `trec:ARCHIVE` or `subjectivity:ARCHIVE` for the archives
qc.zip and subjectivity.zip of NLTK's data, or any task that fine-tuning takes.
"""

import pathlib

from undivided_tf.data.tasks import tasks, treebank, treebank_tasks
from undivided_tf.data.tasks.rows import Task
from undivided_tf.data.tasks.sentence_archives import ARCHIVES
from undivided_tf.data.tasks.tasks import load_task
from undivided_tf.data.tasks.treebank_tasks import SENTENCE_TASKS, WORD_TASKS, WordTask
from undivided_tf.errors import InputError


def load_probing_task(name: str) -> Task | WordTask:
    """Finds a task.

    Args:
        name: see the module; TASK of a treebank is one of `WORD_TASKS` or `SENTENCE_TASKS`.

    Raises:
        InputError: no such task, invalid files, or training has fewer than two labels. Reading a
            split raises it if no item has a label that training has.
    """
    kind, _, rest = name.partition(":")
    if kind == "ud":
        task, _, folder = rest.partition(":")
        if task in WORD_TASKS and folder:
            return treebank_tasks.word_task(task, folder)
        if task in SENTENCE_TASKS and folder:
            return treebank_tasks.sentence_task(task, folder)
        raise InputError(
            f"task {name!r}: give ud:TASK:FOLDER with one of "
            f"{', '.join([*WORD_TASKS, *SENTENCE_TASKS])}"
        )
    if kind in ARCHIVES and rest:
        return ARCHIVES[kind](pathlib.Path(rest))
    return load_task(name)


def load_sentence_task(name: str) -> Task:
    """Finds a task of texts, for fine-tuning and probing.

    Args:
        name: as for `load_probing_task`.

    Raises:
        InputError: as `load_probing_task`, or the task is about words.
    """
    task = load_probing_task(name)
    if isinstance(task, WordTask):
        raise InputError(
            f"task {name!r} is about single words, but a classifier predicts for whole texts: "
            f"probe it, or give a task of texts such as {', '.join(SENTENCE_TASKS)}"
        )
    return task


def task_files(name: str) -> tuple[pathlib.Path, ...]:
    """The files that a task is read from; `name` as for the module.

    Raises:
        InputError: there is no such task.
    """
    kind, _, rest = name.partition(":")
    if kind == "ud":
        return treebank.files(rest.partition(":")[2])
    return (pathlib.Path(rest),) if kind in ARCHIVES else tasks.task_files(name)
