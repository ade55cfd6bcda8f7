"""What a run reads: the files behind the fields of a config that name inputs, and their hashes.

Needs no TensorFlow.
"""

import functools
import hashlib
import importlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from undivided_tf.support import progress

# Beyond this size a file is read again only when its path, size or time of change differ.
LARGE_BYTES = 64 << 20

# The function that lists the files of an input, by the kind of the input. Each is defined beside
# the code that reads these files, and imported only by a run that has such an input.
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

# A file in inputs.json: `sha256`, and for messages and for the reuse of hashes `path`, `bytes`
# and `modified_ns`.
Files = dict[str, dict[str, Any]]


class Input(NamedTuple):
    """One input of a run.

    Attributes:
        kind: key in `LISTERS`.
        value: what the config says, such as a path.
        detail: what else the lister has to know.
    """

    kind: str
    value: str
    detail: tuple[str, ...] = ()

    def files(self) -> dict[str, pathlib.Path]:
        """The files, by the part that each has in the input; none for what is no file.

        Raises:
            InputError: there is no such input.
        """
        module, _, name = LISTERS[self.kind].partition(":")
        listed = getattr(importlib.import_module(module), name)(self.value, *self.detail)
        if isinstance(listed, tuple):  # Of files that their names tell apart.
            listed = {path.name: path for path in listed}
        return {part: pathlib.Path(path) for part, path in listed.items()}


def file_of(value: str) -> dict[str, pathlib.Path]:
    """Lister of a path; a TensorFlow data set, `tfds:NAME`, is named by its version."""
    return {} if value.startswith("tfds:") else {"": pathlib.Path(value)}


def hashed(paths: Mapping[str, pathlib.Path], known: Mapping[str, dict[str, Any]]) -> Files:
    """The files with their hashes; `known` are those of an earlier call, by path."""
    hashes = {}
    for part, path in paths.items():
        where, status = os.path.abspath(path), path.stat()
        about = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "path": where}
        before = known.get(where, {})
        if status.st_size <= LARGE_BYTES:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        elif before == {"sha256": before.get("sha256"), **about}:
            digest = before["sha256"]
        else:
            digest = _hash_of_large(where, status.st_size, status.st_mtime_ns)
        hashes[part] = {"sha256": digest, **about}
    return hashes


@functools.cache
def _hash_of_large(path: str, size: int, modified_ns: int) -> str:
    """Once a process: the cells of a study have files in common."""
    digest = hashlib.sha256()
    with (
        progress.bar(size, f"hash {os.path.basename(path)}", "bytes") as bar,
        open(path, "rb") as file,
    ):
        while block := file.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
