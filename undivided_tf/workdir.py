"""The directory of a run: opened with a config, finished once, resumed by the same call.

- `config.json` identifies the run. A call with another config is an error that shows the
  difference.
- `inputs.json` holds the SHA-256 of each input file (`Config.inputs`). Inputs with other contents
  are an error, too. Files may be moved or renamed.
- `results.json` is written last. If it exists, nothing runs, and the results are read from it.

All files are written atomically (`files.atomic_path`). A part of a run is finished if its file
exists, and the same call resumes with the other parts. Needs no TensorFlow.
"""

import contextlib
import datetime
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import logging

from undivided_tf import __version__
from undivided_tf.config import Config, differences
from undivided_tf.errors import InputError
from undivided_tf.inputs import Files, Input, hashed
from undivided_tf.support import files, progress

CONFIG, INPUTS, RESULTS = "config.json", "inputs.json", "results.json"
_SCRATCH = "state.json"
_SHOWN_CHANGES = 10


def results_once(
    config: Config, prepare: Callable[[], Any], run: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    """The content of `workdir/results.json`, which is made if it does not exist.

    Args:
        config: the run; config.json, inputs.json and results.json are written to its `workdir`.
        prepare: reads the inputs and raises the errors for mistakes of the user, such as a mistyped
            path. It is called before a new workdir is made, so that a mistake leaves no workdir.
        run: computes the results from the return value of `prepare`.

    Raises:
        InputError: the workdir holds another config, or its inputs have changed.
    """
    workdir = results_directory(config.workdir)
    path = workdir / RESULTS
    if path.exists():
        open_workdir(workdir, config)
        note_finished(path)
        return files.read_json(path)
    has_begun = (workdir / CONFIG).exists()
    if has_begun:  # Report another config or other inputs before the preparation.
        open_workdir(workdir, config)
    prepared = prepare()
    if not has_begun:
        open_workdir(workdir, config)
    return once(path, lambda: run(prepared))


def once(path: pathlib.Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The content of the JSON file of a part of a run, which is made if it does not exist.

    Args:
        path: the file, in the directory of the run.
        make: returns the content.
    """
    if not path.exists():
        files.write_json(path, make())
    return files.read_json(path)


def open_workdir(
    workdir: str | os.PathLike,
    config: Config,
    may_replace: Callable[[Any], bool] | None = None,
) -> pathlib.Path:
    """Makes `workdir` with `config.json`, or checks that it belongs to the same config and inputs.

    If a directory of an older release has no `inputs.json`, the present inputs are recorded. Inputs
    that no longer exist are named and not compared.

    Args:
        workdir: the directory of a run.
        config: the run.
        may_replace: function from another config in the directory to whether `config` may replace
            it. If None, only paths of inputs may differ, if their contents are equal.

    Raises:
        InputError: the directory belongs to another config or to other inputs; shows the
            difference.
    """
    path = results_directory(workdir) / CONFIG
    inputs = _Inputs(config.inputs(), path.parent)
    if not path.exists():
        inputs.write()
        config.to_json(path)
        return path.parent
    recorded, old = files.read_json(path), None
    with contextlib.suppress(InputError):
        # Keys that an older release lacks get their defaults.
        old = type(config).from_dict(recorded)
        recorded = old.to_dict()
    # The directory may have been moved.
    recorded, present = {**recorded, "workdir": ""}, {**config.to_dict(), "workdir": ""}
    if old is not None and may_replace is None:
        _accept_moved_inputs(recorded, present, inputs)
    changed = differences(recorded, present)
    if changed and (old is None or may_replace is None or not may_replace(old)):
        raise InputError(
            f"{path} holds another config:\n  " + "\n  ".join(changed) + "\n"
            "choose another directory, or give the flags of that config to resume it"
        )
    if changes := inputs.changes():
        raise InputError(
            f"{path.parent} was made from other inputs:\n{_listed(changes)}\n"
            "choose another directory for the present inputs, or restore the earlier ones to "
            "resume it"
        )
    if inputs.is_new and inputs.present:
        progress.note(f"{path.parent}: no {inputs.path.name} yet, the present inputs are recorded")
    if inputs.absent:
        progress.note(
            f"{path.parent}: inputs not found and not compared: {', '.join(inputs.absent)}"
        )
    inputs.write()
    if old != config:
        config.to_json(path)
    return path.parent


def open_scratch(folder: pathlib.Path, state: dict[str, Any]) -> None:
    """Opens a folder for unfinished work, from which the next call can resume.

    Args:
        folder: the folder; it is emptied if it was made with another state or by another release.
        state: JSON values of everything that the content depends on.
    """
    state = {"version": __version__, **state}
    try:
        if files.read_json(folder / _SCRATCH) == state:
            logging.info("%s: resuming with the work that is finished there", folder)
            return
        logging.info("%s: made with other flags or other files; starting again", folder)
    except (FileNotFoundError, ValueError):
        pass
    files.remove(folder)
    files.write_json(folder / _SCRATCH, state)


def results_directory(workdir: str | os.PathLike, field: str = "workdir") -> pathlib.Path:
    """The path of a directory for results, which need not exist.

    Args:
        workdir: the directory.
        field: field of the config that names it, for errors.

    Raises:
        InputError: the path is empty, or it or a parent is a file.
    """
    if not str(workdir):
        raise InputError(f"a directory for the results is needed: --{field}=DIR")
    path = pathlib.Path(workdir)
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise InputError(f"{field} {path}: {place} is a file; choose another directory")
            break
    return path


def new_directory(path: str) -> pathlib.Path:
    """The path given by `--output_dir`, which must not exist.

    Raises:
        InputError: the path is empty or exists, or a parent is a file.
    """
    if path and pathlib.Path(path).exists():
        raise InputError(f"{path} exists already; choose another --output_dir or remove it")
    return results_directory(path, "output_dir")


def note_finished(path: pathlib.Path) -> None:
    """Tells the user that nothing runs, because the results exist."""
    finished = date(path.stat().st_mtime)
    progress.note(f"{path.parent}: finished on {finished}; results read from {path.name}")


def forget_input(workdir: str | os.PathLike, field: str) -> None:
    """Removes the inputs of a field from `inputs.json`, so that the user can correct them."""
    path = pathlib.Path(workdir) / INPUTS
    if path.exists():
        recorded = files.read_json(path)
        recorded.pop(field, None)
        files.write_json(path, recorded, shared=True)


def date(seconds: float) -> str:
    """Formats seconds since the epoch as local date and minute."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _accept_moved_inputs(
    recorded: dict[str, Any], present: dict[str, Any], inputs: "_Inputs"
) -> None:
    """Replaces paths in the recorded config by present paths of inputs with equal contents."""
    for field in {**inputs.recorded, **inputs.present}:
        *sections, name = field.split(".")
        old, new = recorded, present
        for key in sections:
            old, new = old.get(key, {}), new.get(key, {})
        if name in old and name in new and inputs.moved(field, old[name], new[name]):
            old[name] = new[name]


class _Inputs:
    """The present inputs of a run, and the inputs that its directory has recorded.

    Args:
        inputs: inputs by the field of the config that names them.
        workdir: the directory of the run.

    Attributes:
        recorded, present: the files of each input, by field and by value of the field.
        absent: recorded inputs that no longer exist.
        is_new: whether the directory has no record of inputs.
    """

    def __init__(self, inputs: Mapping[str, Iterable[Input]], workdir: str | os.PathLike):
        self.path = pathlib.Path(workdir) / INPUTS
        self.is_new = not self.path.exists()
        self.recorded: dict[str, dict[str, Files]] = (
            {} if self.is_new else files.read_json(self.path)
        )
        self.absent: list[str] = []
        self.present: dict[str, dict[str, Files]] = {}
        for field, items in inputs.items():
            for item in items:
                self._add(field, item)

    def _add(self, field: str, item: Input) -> None:
        """Hashes the files of an input, or notes that a recorded input is absent."""
        recorded = self.recorded.get(field, {})
        try:
            paths = item.files()
            is_absent = bool(paths)  # Unless one of the files exists.
        except InputError:
            paths, is_absent = {}, True
        existing = {part: path for part, path in paths.items() if path.is_file()}
        if existing:
            by_path = {file["path"]: file for of in recorded.values() for file in of.values()}
            self.present.setdefault(field, {})[item.value] = hashed(existing, by_path)
        elif is_absent and item.value in recorded:
            self.absent.append(f"{field} {item.value}")

    def changes(self) -> list[str]:
        """Lines that describe each changed file; absent inputs are not compared."""
        return [
            line
            for field, values in self.present.items()
            for value, now in values.items()
            if value in self.recorded.get(field, {})
            for line in _changed_files(field, self.recorded[field][value], now)
        ]

    def moved(self, field: str, before: Any, now: Any) -> bool:
        """Whether two values of a field name inputs with equal contents.

        Args:
            field: name of the field.
            before: recorded value.
            now: present value.
        """
        before, now = ([v] if isinstance(v, str) else list(v) for v in (before, now))
        recorded = self.recorded.get(field, {})
        present = {**recorded, **self.present.get(field, {})}  # Absent files keep their record.

        def same(old: str, new: str) -> bool:
            return old in recorded and new in present and _same(recorded[old], present[new])

        return len(before) == len(now) and all(
            old == new or same(old, new) for old, new in zip(before, now, strict=True)
        )

    def write(self) -> None:
        """Adds the present inputs to the record."""
        merged = {
            field: {**self.recorded.get(field, {}), **self.present.get(field, {})}
            for field in {**self.recorded, **self.present}
        }
        if merged != self.recorded:
            files.write_json(self.path, merged, shared=True)


def _same(before: Files, now: Files) -> bool:
    return {p: f["sha256"] for p, f in before.items()} == {p: f["sha256"] for p, f in now.items()}


def _changed_files(field: str, before: Files, now: Files) -> list[str]:
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


def _listed(changes: list[str]) -> str:
    """The first changes, indented, and the number of the others."""
    shown = changes[:_SHOWN_CHANGES]
    more = len(changes) - len(shown)
    return "\n".join(f"  {line}" for line in shown) + (f"\n  and {more} more" if more else "")
