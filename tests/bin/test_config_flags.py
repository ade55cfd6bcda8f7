"""Tests of what the binaries have in common that needs no process of its own."""

import errno
import sys

import pytest

from undivided_tf.bin import config_flags, run_study
from undivided_tf.errors import InputError


def leave(monkeypatch, capsys, error):
    """Status and standard error of a binary whose main raises."""

    def main():
        raise error

    monkeypatch.setattr(config_flags.app, "run", lambda guarded: guarded(["binary"]))
    monkeypatch.setattr(config_flags.process, "set_up", lambda keep: None)
    with pytest.raises(SystemExit) as left:
        config_flags.run(main)
    return left.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("hidden_size is 7"), 1, "hidden_size is 7"),
        (FloatingPointError("step 3: not finite"), 1, "step 3: not finite"),
        (FileNotFoundError(2, "No such file or directory", "a.tsv"), 1, "a.tsv: No such file"),
        (PermissionError(13, "Permission denied", b"a.tsv"), 1, "a.tsv: Permission denied"),
        (IsADirectoryError(21, "Is a directory", "a"), 1, "a: Is a directory"),
        (NotADirectoryError(20, "Not a directory", "a/b"), 1, "a/b: Not a directory"),
        (FileExistsError(17, "File exists", "a"), 1, "a: File exists"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 1, "a: No space left on device"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 1, "is not UTF-8"),
        (KeyboardInterrupt(), 1, "interrupted; with a work directory, the same command"),
    ],
)
def test_known_errors_are_a_sentence(monkeypatch, capsys, error, status, message):
    left, said = leave(monkeypatch, capsys, error)
    assert left == status
    assert said.startswith("error: ") and message in said and "Traceback" not in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes differ"),
        KeyError("a"),
        OSError(errno.EIO, "Input/output error", "a"),
        FileNotFoundError("made up, of no file"),
        FileNotFoundError(2, "No such file or directory", config_flags.__file__),
        UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"),
    ],
)
def test_unknown_errors_keep_their_traceback(monkeypatch, capsys, error):
    with pytest.raises(type(error)) as kept:
        leave(monkeypatch, capsys, error)
    assert kept.value is error


@pytest.mark.parametrize(
    "how_far",
    [
        [],
        ["--scheduler=tcp://host:8786", "--kept_results=old.json"],
        ["--scheduler", "tcp://host:8786", "--report_only", "-kept_results", "old.json"],
    ],
)
def test_the_command_of_a_study_leaves_out_what_a_call_runs_of_it(monkeypatch, how_far):
    flagfile = "--flagfile=flags/study_quick.flags"
    monkeypatch.setattr(sys, "argv", ["bin/run_study.py", *how_far, flagfile, "--seed", "7"])
    command = config_flags.command(without=run_study.OF_ONE_CALL)
    assert command == f"python -m undivided_tf.bin.run_study {flagfile} --seed 7"
    assert config_flags.command().count(" ") == command.count(" ") + len(how_far)
