"""What a run reads, and whether it is still what the run began with.

`WORKDIR/inputs.json` holds the SHA-256 of each file behind the fields of a config that name
inputs. A file that was moved or renamed has the same hash. Needs no TensorFlow.
"""

import datetime
import functools
import hashlib
import importlib
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from undivided_tf.errors import InputError
from undivided_tf.support import files, progress

NAME = "inputs.json"
# Beyond this size a file is read again only when its path, size or time of change differ.
LARGE_BYTES = 64 << 20
_SHOWN_CHANGES = 10

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


class Inputs:
    """The inputs of a run as they are now, beside what its directory says of them.

    Args:
        wanted: by the field of the config that names them.
        workdir: the directory of the run.

    Attributes:
        absent: inputs that the directory knows and that are no longer there.
        is_new: whether the directory knows nothing of its inputs yet.
    """

    def __init__(self, wanted: Mapping[str, Iterable[Input]], workdir: str | os.PathLike):
        self.path = pathlib.Path(workdir) / NAME
        self.is_new = not self.path.exists()
        self.known: dict[str, dict[str, Files]] = {} if self.is_new else files.read_json(self.path)
        self.absent: list[str] = []
        self.current: dict[str, dict[str, Files]] = {}
        for field, items in wanted.items():
            for item in items:
                self._take(field, item)

    def _take(self, field: str, item: Input) -> None:
        before = self.known.get(field, {})
        try:
            paths = item.files()
        except InputError:
            paths = {}
            self.absent += [f"{field} {item.value}"] if item.value in before else []
        there = {part: path for part, path in paths.items() if path.is_file()}
        if paths and not there and item.value in before:
            self.absent.append(f"{field} {item.value}")
        if there:
            hashed = _hashed(
                there, {file["path"]: file for of in before.values() for file in of.values()}
            )
            self.current.setdefault(field, {})[item.value] = hashed

    def changes(self) -> list[str]:
        """A line for each file that is not what it was; none for an input that is absent."""
        return [
            line
            for field, values in self.current.items()
            for value, now in values.items()
            if value in self.known.get(field, {})
            for line in _differences(field, self.known[field][value], now)
        ]

    def moved(self, field: str, before: Any, now: Any) -> bool:
        """Whether two values of a field name the same bytes.

        Args:
            field: name of the field.
            before: its value when the directory was claimed.
            now: its value now.
        """
        before, now = ([v] if isinstance(v, str) else list(v) for v in (before, now))
        known = self.known.get(field, {})
        current = {**known, **self.current.get(field, {})}  # Of one that is gone, what it was.
        return len(before) == len(now) and all(
            old == new or (old in known and new in current and _same(known[old], current[new]))
            for old, new in zip(before, now, strict=True)
        )

    def write(self) -> None:
        """Records the inputs as they are now beside those that are known."""
        merged = {
            field: {**self.known.get(field, {}), **self.current.get(field, {})}
            for field in {**self.known, **self.current}
        }
        if merged != self.known:
            files.write_json(self.path, merged, shared=True)


def forget(workdir: str | os.PathLike, field: str) -> None:
    """Has a directory no longer know what a field named, for example because that was at fault."""
    path = pathlib.Path(workdir) / NAME
    if path.exists():
        known = files.read_json(path)
        known.pop(field, None)
        files.write_json(path, known, shared=True)


def _same(before: Files, now: Files) -> bool:
    return {p: f["sha256"] for p, f in before.items()} == {p: f["sha256"] for p, f in now.items()}


def _differences(field: str, before: Files, now: Files) -> list[str]:
    lines = []
    for part in {**before, **now}:
        old, new = before.get(part), now.get(part)
        if (old and old["sha256"]) != (new and new["sha256"]):
            name = f"{field} {part}".strip()
            path = (new or old)["path"]
            lines.append(f"{name}: {path}\n    then {_described(old)}\n    now  {_described(new)}")
    return lines


def _described(file: dict[str, Any] | None) -> str:
    if file is None:
        return "absent"
    modified = date(file["modified_ns"] / 1e9)
    return f"sha256 {file['sha256'][:12]}, {file['bytes']:,} bytes, changed on {modified}"


def date(seconds: float) -> str:
    """A time since the epoch as local date and minute."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def described(changes: list[str]) -> str:
    """The first of many changes, indented."""
    shown = changes[:_SHOWN_CHANGES]
    more = len(changes) - len(shown)
    return "\n".join(f"  {line}" for line in shown) + (f"\n  and {more} more" if more else "")


# === Hashes ===


def _hashed(paths: Mapping[str, pathlib.Path], known: Mapping[str, dict[str, Any]]) -> Files:
    """The files with their hashes; `known` are those of an earlier call, by path."""
    found = {}
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
        found[part] = {"sha256": digest, **about}
    return found


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
