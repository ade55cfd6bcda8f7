"""What a process is told before TensorFlow: memory is kept, and what the user says goes first."""

import os
import platform
import subprocess
import sys

import pytest

# Frees an array whose pages were touched, and prints how much of it the process still holds.
_KEPT = """
import psutil, numpy
from undivided_tf import process
process.set_up()
size, held = 1 << 26, psutil.Process().memory_info().rss
array = numpy.ones(size, numpy.uint8)
del array
print((psutil.Process().memory_info().rss - held) / size)
"""
_SETTINGS = "from undivided_tf import process; process.set_up(); import os; print(dict(os.environ))"


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
