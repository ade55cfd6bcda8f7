"""Corpora: from what the user names to a stream of documents.

Needs no TensorFlow, except for `tfds:` inputs, which load it when read.
"""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from undivided_tf.data import documents, sample
from undivided_tf.data.documents import Document
from undivided_tf.errors import InputError


class Source(NamedTuple):
    """One part of a corpus.

    Attributes:
        name: as the user knows it.
        read: streams its documents; can be called again.
        about: version, licence and description where known.
    """

    name: str
    read: Callable[[], Iterator[Document]]
    about: dict[str, str]


def sources(inputs: Sequence[str]) -> list[Source]:
    """Resolves inputs to sources without reading their text.

    Args:
        inputs: each `sample` (the embedded corpus), `tfds:NAME` (field `text` of the split
            `train` of a TensorFlow data set), a text file or a glob of such.

    Raises:
        InputError: nothing is named, a glob matches no file, a source is named twice.
    """
    found = []
    for item in inputs:
        if item == "sample":
            found += [
                Source(about["name"], sample.READERS[about["name"]], dict(about))
                for about in sample.SOURCES
            ]
        elif item.startswith("tfds:"):
            found.append(Source(item, lambda name=item[5:]: _read_tfds(name), {}))
        else:
            paths = sorted(path for path in glob.glob(item, recursive=True) if os.path.isfile(path))
            if not paths and os.path.isfile(item):  # A name with brackets is no pattern.
                paths = [item]
            if not paths:
                raise InputError(f"input {item!r}: no such file, and no file matches it as a glob")
            found += [
                Source(path, lambda path=path: documents.read_file(path), {}) for path in paths
            ]
    names = [source.name for source in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"inputs name {', '.join(twice)} twice; its text would count twice")
    if not found:
        raise InputError("no input is named: give files, globs, tfds:NAME or sample")
    return found


def read_documents(inputs: Sequence[str]) -> Iterator[Document]:
    """Streams the documents of all inputs, in their order; see `sources`.

    Raises:
        InputError: as `sources`; a file is not UTF-8; the whole corpus has no document.
    """
    empty = True
    for source in sources(inputs):
        for item in source.read():
            empty = False
            yield item
    if empty:
        raise InputError(f"the corpus is empty: no text in {', '.join(inputs)}")


def _read_tfds(name: str) -> Iterator[Document]:
    import tensorflow_datasets as tfds

    source = f"tfds:{name}"
    try:
        builder = tfds.builder(name)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(f"{source}: TensorFlow Datasets has no data set of this name") from error
    if "text" not in builder.info.features:
        raise InputError(
            f"{source}: has no field `text`, only {', '.join(sorted(builder.info.features))}"
        )
    for row in tfds.as_numpy(tfds.load(name, split="train", shuffle_files=False)):
        item = documents.document(source, row["text"].decode("utf-8"))
        if item:
            yield item
