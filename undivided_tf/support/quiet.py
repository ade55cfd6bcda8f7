"""Hides the start-up lines of TensorFlow's C++ runtime.

Import this module before TensorFlow; nothing has to be called. The lines are about oneDNN, absent
GPUs and processor features. They are written while the shared libraries are loaded, before
`TF_CPP_MIN_LOG_LEVEL` is read, once by each library that has a copy of the logger.
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

# Matches lines in glog's format below FATAL, the header before them, and an explanation on a line
# of its own after one of them.
_START_UP = (
    rb"[IWE]\d{4} \d\d:\d\d:"
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions: "
)
# The filter is another process: a process that aborts while it loads a library could not print the
# reason.
_FILTER = f"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match({_START_UP!r}, line):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
"""


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as usual, and filters the output of its first import."""

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
    """Filters everything that is written to the descriptor of standard error in its body."""
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
    """False if the user asked for TensorFlow's log or has imported TensorFlow already."""
    return os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") == "3" and "tensorflow" not in sys.modules


if _is_wanted():
    sys.meta_path.insert(0, _Finder())
