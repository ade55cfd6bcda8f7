"""Reads GLUE from TensorFlow Datasets. Imports TensorFlow only when rows are read."""

import functools

import numpy as np

from undivided_tf.data import downloads
from undivided_tf.data.tasks import glue
from undivided_tf.data.tasks.rows import Rows, Task, checked_split, positions
from undivided_tf.errors import InputError
from undivided_tf.inputs import TFDS


def tfds_task(name: str) -> Task:
    """A task of TensorFlow Datasets, which downloads it once.

    Args:
        name: such as `tfds:glue/cola`.

    Raises:
        InputError: no such data set; when read: it is not on the disk and there is no network.
    """
    prefix, _, short = name.removeprefix(TFDS).partition("/")
    key = glue.canonical_name(short)
    if prefix != "glue" or key is None:
        supported = ", ".join(f"tfds:glue/{task}" for task in glue.TASKS)
        raise InputError(f"task {name!r} is not supported; from TensorFlow Datasets: {supported}")
    about = glue.TASKS[key]

    @functools.cache
    def read(split: str) -> Rows | None:
        return _tfds_rows(key, about, checked_split(split, about.splits))

    return glue.task_of(key, short, read)


def _tfds_rows(key: str, about: glue.GlueTask, split: str) -> Rows:
    import tensorflow_datasets as tfds

    if split == "test_ax":
        key, split = "ax", "test"
    source = f"{TFDS}glue/{key}"
    builder = downloads.builder_of(source)
    downloads.prepare(builder, source, builder.builder_config.data_url)
    if key == "mnli" and split in ("validation", "test"):
        split += "_matched"
    fields = about.fields or about.columns
    columns: dict[str, list] = {field: [] for field in (*fields, "label")}
    for row in tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)):
        for field, values in columns.items():
            values.append(row[field])
    texts = [[text.decode("utf-8") for text in columns[field]] for field in fields]
    labels = None
    if not split.startswith("test"):
        labels = np.float32(columns["label"])
        if about.labels:
            # By name, since the data set has its own numbering.
            names = builder.info.features["label"].names
            if (unlabelled := np.flatnonzero(labels < 0)).size:  # -1 would give the last name.
                raise InputError(
                    f"{source}: {split}[{unlabelled[0]}] has no label ({unlabelled.size} of "
                    f"{len(labels)} rows); prepare the data set again"
                )
            labels = positions([names[label] for label in columns["label"]], about.labels)
    return glue.without_blanks(Rows(*texts, labels=labels), split, source)
