"""Keeps the start-up lines of TensorFlow's C++ runtime off the terminal.

Importing this module is enough; TensorFlow must be imported after it. The lines are about oneDNN,
absent GPUs and processor features. They come while the shared libraries are loaded, before
`TF_CPP_MIN_LOG_LEVEL` is read, and once for each library that has a copy of the logger.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

# Lines of glog's format below FATAL, the header in front of them, and an explanation that
# follows one of them on a line of its own.
_START_UP = (
    rb"[IWE]\d{4} \d\d:\d\d:"
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions: "
)
# Another process, since one that aborts while it loads a library cannot pass on the reason.
_FILTER = f"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match({_START_UP!r}, line):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
"""


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as before, and has its first import filtered."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with without_start_up_lines():
                    load(module)

            spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def without_start_up_lines() -> Iterator[None]:
    """Inside it, what is written to the descriptor of standard error passes through a filter."""
    try:
        terminal = os.dup(2)
    except OSError:  # Standard error is closed.
        yield
        return
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _FILTER], stdin=subprocess.PIPE, stdout=terminal
    ) as process:
        sys.stderr.flush()
        os.dup2(process.stdin.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def _is_wanted() -> bool:
    """Unless the user asked TensorFlow for its log, or has it imported already."""
    return os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") == "3" and "tensorflow" not in sys.modules


if _is_wanted():
    sys.meta_path.insert(0, _Finder())
