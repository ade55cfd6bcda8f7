"""Claims on cells by several processes, perhaps on several machines, through a shared folder.

A claim is a file `NAME.GENERATION` that is created exclusively, which of several processes one
only succeeds in. Its holder touches it every few seconds. A claim whose holder has died, or has
not touched it for long, is overtaken by creating the next generation, again exclusively; nothing
is ever removed, so that a slow process cannot take away a claim that is newer than what it saw.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import threading
import time
import uuid
from typing import Any, Self

import psutil

from undivided_tf import files

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 120.0


def machine() -> str:
    """Eight hexadecimal digits of the system that numbers the processes we see.

    Two containers of one host number their own processes and are two machines here.
    """
    told = [platform.node(), str(uuid.getnode())]
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        told = [boot.read_text(encoding="utf-8"), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:8]


class Leases:
    """The claims of this process, and what it knows of those of others.

    Args:
        folder: where the claims lie; all processes see it.
        patience: seconds without a touch after which a holder on another machine counts as dead.
            Clocks of machines need not agree: what counts is that a time stamp does not change.
        beat: seconds between touches.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        patience: float = PATIENCE_SECONDS,
        beat: float = BEAT_SECONDS,
    ):
        self.folder, self.patience, self.beat = pathlib.Path(folder), patience, beat
        self.held: dict[str, pathlib.Path] = {}
        self.seen: dict[pathlib.Path, tuple[int, float]] = {}
        self._done = threading.Event()
        process = psutil.Process()
        self.me = {
            "machine": machine(), "process": process.pid, "started": process.create_time()
        }  # fmt: skip

    def take(self, name: str) -> bool:
        """Claims a name; False while another process holds it."""
        generation, newest = self._newest(name)
        if newest and self._alive(newest):
            return False
        path = self.folder / f"{name}.{generation + 1:04d}"
        try:
            with open(path, "x", encoding="utf-8") as file:
                json.dump(self.me, file)
        except FileExistsError:
            return False  # Another was faster.
        self.held[name] = path
        return True

    def is_taken(self, name: str) -> bool:
        """Whether a process that lives, other than this one, holds the name."""
        newest = self._newest(name)[1]
        return newest is not None and name not in self.held and self._alive(newest)

    def keeps(self, name: str) -> bool:
        """Whether this process holds the name still, and none has overtaken it."""
        return name in self.held and self._newest(name)[1] == self.held[name]

    def release(self, name: str) -> None:
        """Gives a name free."""
        path = self.held.pop(name)
        files.write_json(path, {**self.me, "released": True})

    def _newest(self, name: str) -> tuple[int, pathlib.Path | None]:
        """The highest generation and its file; 0 and None where there is none."""
        generation = 0
        while (self.folder / f"{name}.{generation + 1:04d}").exists():
            generation += 1
        return generation, self.folder / f"{name}.{generation:04d}" if generation else None

    def _alive(self, path: pathlib.Path) -> bool:
        try:
            holder, touched = files.read_json(path), path.stat().st_mtime_ns
        except ValueError:  # Its holder is writing it, or died while it did.
            holder, touched = {}, path.stat().st_mtime_ns
        if holder.get("released"):
            return False
        if holder.get("machine") == self.me["machine"]:
            return _runs(holder)
        before, since = self.seen.get(path, (None, 0.0))
        if touched != before:
            self.seen[path] = (touched, time.monotonic())
            return True
        return time.monotonic() - since < self.patience

    def _touch(self) -> None:
        while not self._done.wait(self.beat):
            for path in list(self.held.values()):
                # A folder that is away for a moment must not end all further touches.
                with contextlib.suppress(OSError):
                    os.utime(path)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        for name in list(self.held):
            self.release(name)


def _runs(holder: dict[str, Any]) -> bool:
    """Whether a process of this machine is there still; its number may belong to another now."""
    try:
        process = psutil.Process(holder["process"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - holder["started"]) < 1
    except psutil.NoSuchProcess:
        return False
