"""Tests of what the binaries have in common that needs no process of its own."""

import sys

import pytest

from undivided_tf.bin import config_flags, run_study


@pytest.mark.parametrize(
    "how_far",
    [
        [],
        ["--cells=1/2", "--kept_results=old.json"],
        ["--cells", "1/2", "--report_only", "-kept_results", "old.json"],
    ],
)
def test_the_command_of_a_study_leaves_out_what_a_call_runs_of_it(monkeypatch, how_far):
    flagfile = "--flagfile=flags/study_quick.flags"
    monkeypatch.setattr(sys, "argv", ["bin/run_study.py", *how_far, flagfile, "--seed", "7"])
    command = config_flags.command(without=run_study.HOW_FAR)
    assert command == f"python -m undivided_tf.bin.run_study {flagfile} --seed 7"
    assert config_flags.command().count(" ") == command.count(" ") + len(how_far)
