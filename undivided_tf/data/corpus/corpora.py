"""Corpora: from the user's input names to a stream of documents.

Needs no TensorFlow, except for `tfds:` inputs, which load it when read.
"""

import collections
import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from undivided_tf.data import downloads, sample
from undivided_tf.data.corpus import documents, text_files
from undivided_tf.data.corpus.documents import Document
from undivided_tf.data.tasks import probing_tasks
from undivided_tf.errors import InputError
from undivided_tf.inputs import TFDS

TASK = "task:"  # Prefix of the names of labelled tasks.
# Consecutive files are grouped into portions of at least this many bytes.
PORTION_BYTES = 16 << 20


class Source(NamedTuple):
    """One part of a corpus.

    Attributes:
        name: name of the source, for the user.
        about: version, licence and description, if known.
        size: bytes of a file; None if the source is not a file.
        modified: modification time of the file in nanoseconds, of a task that of its newest file;
            0 if the source has no file.
        text_field: see `text_files.read_file` and `sources`.
    """

    name: str
    about: dict[str, str]
    size: int | None = None
    modified: int = 0
    text_field: str = "text"

    @property
    def text_size(self) -> int | None:
        """Approximate bytes of its text, if the size of the file determines them."""
        return self.size if text_files.is_plain(self.name) else None

    def read(self) -> Iterator[Document]:
        """Streams the documents; can be called again.

        Raises:
            InputError: as `text_files.read_file`, no such data set, or no such field in it.
        """
        if self.size is not None:
            return text_files.read_file(self.name, self.text_field)
        if self.name.startswith(TFDS):
            return _read_tfds(self.name, self.text_field)
        if self.name.startswith(TASK):
            return _read_task(self.name)
        return sample.READERS[self.name]()


class Portion(NamedTuple):
    """Consecutive sources that are read together.

    The division of a corpus into portions depends on its files alone, not on the runner.

    Attributes:
        number: index in the order of the corpus, from 0.
        sources: the sources, at least one.
    """

    number: int
    sources: tuple[Source, ...]

    def read(self) -> Iterator[Document]:
        """Streams the documents of all its sources."""
        for source in self.sources:
            yield from source.read()


def sources(inputs: Sequence[str], text_field: str = "text") -> list[Source]:
    """Resolves inputs to sources without reading their text.

    Args:
        inputs: each `sample` (the embedded corpus), `tfds:NAME` (the split `train` of a
            TensorFlow data set), `task:NAME` (the texts of the training rows of a task, as
            `load_sentence_task` takes it, without labels), a file as `text_files.read_file` takes
            it, or a glob of such.
        text_field: field of the text in TensorFlow data sets, JSON lines and Parquet.

    Raises:
        InputError: no input, a glob that matches no file, no such task, or a source that is named
            twice.
    """
    listed = []
    for item in inputs:
        if item == "sample":
            listed += [Source(about["name"], dict(about)) for about in sample.SOURCES]
        elif item.startswith(TFDS):
            listed.append(Source(item, {}, text_field=text_field))
        elif item.startswith(TASK):
            times = (path.stat().st_mtime_ns for path in _task_files(item))
            listed.append(Source(item, {}, modified=max(times, default=0)))
        else:
            paths = sorted(path for path in glob.glob(item, recursive=True) if os.path.isfile(path))
            if not paths and os.path.isfile(item):  # A file name with brackets is not a pattern.
                paths = [item]
            if not paths:
                raise InputError(f"input {item!r}: no such file, and no file matches it as a glob")
            for path in paths:
                status = os.stat(path)
                listed.append(Source(path, {}, status.st_size, status.st_mtime_ns, text_field))
    names = collections.Counter(source.name for source in listed)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise InputError(f"inputs name {', '.join(twice)} twice; its text would count twice")
    if not listed:
        raise InputError("no input is named: give files, globs, tfds:NAME, task:NAME or sample")
    return listed


def input_files(item: str) -> dict[str, str]:
    """The files of one input of `sources`, by number.

    Raises:
        InputError: as `sources`.
    """
    if item.startswith(TASK):
        paths = [str(path) for path in _task_files(item)]
    else:
        paths = [source.name for source in sources([item]) if source.size is not None]
    width = len(str(len(paths)))
    return {f"{number:0{width}d}": path for number, path in enumerate(paths, 1)}


def portions(corpus: Sequence[Source]) -> list[Portion]:
    """Groups small files into portions; a source that is not a file is a portion of its own."""
    groups: list[list[Source]] = []
    size = PORTION_BYTES
    for source in corpus:
        if source.size is None or size >= PORTION_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(source)
        size += PORTION_BYTES if source.size is None else source.size
    return [Portion(number, tuple(group)) for number, group in enumerate(groups)]


def _read_tfds(name: str, text_field: str) -> Iterator[Document]:
    import tensorflow_datasets as tfds

    builder = downloads.builder_of(name)
    if text_field not in builder.info.features:
        raise InputError(
            f"{name}: has no field `{text_field}`, only {', '.join(sorted(builder.info.features))}"
        )
    downloads.prepare(builder, name, builder.info.homepage)
    rows = tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False))
    yield from documents.from_texts(name, (row[text_field].decode("utf-8") for row in rows))


def _task_files(name: str) -> tuple[pathlib.Path, ...]:
    return probing_tasks.task_files(name.removeprefix(TASK))


def _read_task(name: str) -> Iterator[Document]:
    """A document for each text; a text of several rows counts once."""
    rows = probing_tasks.load_sentence_task(name.removeprefix(TASK)).read("train")
    if rows is None:
        raise InputError(f"{name}: the task has no training rows")
    yield from documents.from_texts(name, dict.fromkeys((*rows.first, *(rows.second or ()))))
