"""Inputs of a run: the files that fields of its config name, and their hashes.

Needs no TensorFlow.
"""

import functools
import hashlib
import importlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from undivided_tf.support import files, progress

TFDS = "tfds:"  # Prefix of the names of TensorFlow data sets.
# A larger file is hashed again only if its path, size or modification time has changed.
LARGE_BYTES = 64 << 20

# The function that lists the files of an input, by the kind of the input. It is defined beside the
# code that reads these files, and is imported only for a run with such an input.
LISTERS = {
    "file": "undivided_tf.inputs:file_of",
    "corpus": "undivided_tf.data.corpus.corpora:input_files",
    "records": "undivided_tf.data.corpus.records:input_files",
    "task": "undivided_tf.data.tasks.tasks:task_files",
    "probing_task": "undivided_tf.data.tasks.probing_tasks:task_files",
    "treebank": "undivided_tf.data.tasks.treebank:files",
    "glue": "undivided_tf.data.tasks.glue_files:input_files",
    "checkpoint": "undivided_tf.models.checkpoints:input_files",
    "architecture": "undivided_tf.models.checkpoints:architecture_files",
    "any_checkpoint": "undivided_tf.convert.converter:input_files",
}

# The files of an input in inputs.json: `sha256`, and `path`, `bytes` and `modified_ns`, which
# messages and the reuse of hashes need.
Files = dict[str, dict[str, Any]]


class Input(NamedTuple):
    """One input of a run.

    Attributes:
        kind: key in `LISTERS`.
        value: the value in the config, such as a path.
        detail: further arguments of the lister.
    """

    kind: str
    value: str
    detail: tuple[str, ...] = ()

    def files(self) -> dict[str, pathlib.Path]:
        """The files, by their role in the input; empty if the input is not made of files.

        Raises:
            InputError: the input does not exist.
        """
        module, _, name = LISTERS[self.kind].partition(":")
        listed = getattr(importlib.import_module(module), name)(self.value, *self.detail)
        if isinstance(listed, tuple):  # The names of these files are their roles.
            listed = {path.name: path for path in listed}
        return {part: pathlib.Path(path) for part, path in listed.items()}


def file_of(value: str) -> dict[str, pathlib.Path]:
    """Lists a path; nothing for a TensorFlow data set, `tfds:NAME`, whose version is fixed."""
    return {} if value.startswith(TFDS) else {"": pathlib.Path(value)}


def hashed(paths: Mapping[str, pathlib.Path], known: Mapping[str, dict[str, Any]]) -> Files:
    """Hashes files; reuses hashes of large files from `known`, an earlier result, by path."""
    hashes = {}
    for part, path in paths.items():
        absolute, status = os.path.abspath(path), path.stat()
        facts = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "path": absolute}
        before = known.get(absolute, {})
        if status.st_size <= LARGE_BYTES:
            digest = files.sha256_of_file(path)
        elif before == {"sha256": before.get("sha256"), **facts}:
            digest = before["sha256"]
        else:
            digest = _hash_of_large(absolute, status.st_size, status.st_mtime_ns)
        hashes[part] = {"sha256": digest, **facts}
    return hashes


@functools.cache
def _hash_of_large(path: str, size: int, modified_ns: int) -> str:
    """Hashes a file once per process, since the cells of a study share files."""
    digest = hashlib.sha256()
    with (
        progress.bar(size, f"hash {os.path.basename(path)}", "bytes") as bar,
        open(path, "rb") as file,
    ):
        while block := file.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
