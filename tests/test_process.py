"""What a process is told before TensorFlow: memory is kept, and what the user says goes first."""

import os
import platform
import subprocess
import sys

import pytest

# Frees an array whose pages were touched, and prints how much of it the process still holds.
_KEPT = """
import psutil, numpy
from undivided_tf.support import process
process.set_up()
size, held = 1 << 26, psutil.Process().memory_info().rss
array = numpy.ones(size, numpy.uint8)
del array
print((psutil.Process().memory_info().rss - held) / size)
"""
_SETTINGS = (
    "from undivided_tf.support import process; process.set_up(); import os; print(dict(os.environ))"
)


def _run(code, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GLIBC_", "MALLOC_", "TF_"))}
    run = [sys.executable, "-c", code]
    return subprocess.check_output(run, env={**clean, **environment}, text=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets up glibc's allocator alone")
def test_memory_is_kept_unless_the_environment_sets_up_the_allocator():
    assert float(_run(_KEPT)) > 0.9
    assert float(_run(_KEPT, MALLOC_ARENA_MAX="1")) < 0.1
    inherited = eval(_run(_SETTINGS))["GLIBC_TUNABLES"]
    assert float(_run(_KEPT, GLIBC_TUNABLES=inherited)) > 0.9


def test_settings_that_are_given_stay():
    assert eval(_run(_SETTINGS))["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert eval(_run(_SETTINGS, TF_ENABLE_ONEDNN_OPTS="0"))["TF_ENABLE_ONEDNN_OPTS"] == "0"


_START_UP = "import tensorflow, os; os.write(2, b'E0000 00:00:1.2 said later\\n')"


@pytest.mark.slow
def test_start_up_lines_of_tensorflow_stay_off_the_terminal():
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    shown = {}
    for set_up in ("", "from undivided_tf.support import process; process.set_up(); "):
        run = [sys.executable, "-c", set_up + _START_UP]
        done = subprocess.run(run, env=clean, capture_output=True, text=True, check=True)
        shown[set_up] = done.stderr.splitlines()
    loud, quiet = shown.values()
    assert len(loud) > 1  # Else there is nothing to hide, and the hook can go.
    assert quiet == ["E0000 00:00:1.2 said later"]


_HIDDEN = """
import os, sys
from undivided_tf.support import quiet
with quiet.without_start_up_lines():
    os.write(2, b"I0000 00:00:1.2 oneDNN is on\\nF0000 00:00:1.2 no such processor\\n")
    print("a warning", file=sys.stderr)
    END
"""


@pytest.mark.parametrize("end", ["pass", "os.abort()", "raise SystemExit(1)"])
def test_the_reason_why_tensorflow_cannot_be_loaded_is_shown(end):
    run = [sys.executable, "-c", _HIDDEN.replace("END", end)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines() == ["F0000 00:00:1.2 no such processor", "a warning"]
    assert (done.returncode == 0) == (end == "pass")
