"""What a process is told before TensorFlow: memory is kept, and what the user says goes first."""

import os
import platform
import subprocess
import sys

import pytest

from undivided_tf.support import process

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


def test_compiled_programs_are_kept_by_processor_and_version(tmp_path):
    flags = eval(_run(_SETTINGS, UNDIVIDED_TF_CACHE=str(tmp_path)))["TF_XLA_FLAGS"]
    (folder,) = (tmp_path / "xla").iterdir()
    assert f'--tf_xla_persistent_cache_directory="{folder}" ' in flags
    by_default = eval(_run(_SETTINGS, XDG_CACHE_HOME=str(tmp_path)))["TF_XLA_FLAGS"]
    assert f'"{tmp_path}/undivided_tf/xla/{folder.name}" ' in by_default
    assert "TF_XLA_FLAGS" not in eval(_run(_SETTINGS, UNDIVIDED_TF_CACHE=""))
    (tmp_path / "file").touch()
    assert "TF_XLA_FLAGS" not in eval(_run(_SETTINGS, UNDIVIDED_TF_CACHE=str(tmp_path / "file")))
    given = "--tf_xla_persistent_cache_directory=elsewhere"
    assert eval(_run(_SETTINGS, TF_XLA_FLAGS=given))["TF_XLA_FLAGS"] == given


def test_the_oldest_programs_go_first(tmp_path):
    for age, name in enumerate(("newest", "middle", "oldest")):
        path = tmp_path / name / "program"
        path.parent.mkdir()
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    process._remove_oldest(tmp_path, 300)
    assert len(list(tmp_path.rglob("program"))) == 3
    process._remove_oldest(tmp_path, 250)
    assert {path.parent.name for path in tmp_path.rglob("program")} == {"newest", "middle"}


_COMPILES = """
from undivided_tf.support import process
process.set_up()
import tensorflow as tf
double = tf.function(lambda x: tf.tanh(x @ x), jit_compile=True)
print(double(tf.reshape(tf.range(16.0), (4, 4)) / 7).numpy().tobytes().hex())
"""


def test_a_user_without_a_home_directory_can_start(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(process.pathlib.Path, "home", no_home)
    for name in ("TF_XLA_FLAGS", "XDG_CACHE_HOME", process.CACHE):
        monkeypatch.delenv(name, raising=False)
    process._keep_compiled_programs()
    assert "TF_XLA_FLAGS" not in os.environ


@pytest.mark.slow
def test_a_second_process_takes_the_program_of_the_first(tmp_path):
    tmp_path = tmp_path / "a name with spaces"

    def made():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pb")}

    first = _run(_COMPILES, UNDIVIDED_TF_CACHE=str(tmp_path))
    programs = made()
    assert programs
    assert _run(_COMPILES, UNDIVIDED_TF_CACHE=str(tmp_path)) == first
    assert made() == programs
    assert _run(_COMPILES, UNDIVIDED_TF_CACHE="") == first
