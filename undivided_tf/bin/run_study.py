"""Runs a study over block patterns, seeds and tasks, and writes its report.

    python -m undivided_tf.bin.run_study --flagfile=flags/study_quick.flags

The same command goes on where it stopped and retries what failed.
"""

import shlex
import sys

from undivided_tf.bin import config_flags
from undivided_tf.errors import InputError
from undivided_tf.recipes import StudyConfig

config_flags.define(StudyConfig())


def parse() -> StudyConfig:
    """The config that the flags give."""
    return config_flags.parse(StudyConfig())


def main() -> None:
    """Flags -> config -> run_study."""
    config = parse()
    command = shlex.join(["python", "-m", "undivided_tf.bin.run_study", *sys.argv[1:]])
    from undivided_tf.study.report import summary_lines
    from undivided_tf.study.study import run_study

    results = run_study(config, command)
    print("\n".join(summary_lines(results)))
    print(f"report: {config.workdir}/report.html")
    failed = [cell["name"] for cell in results["cells"] if cell["status"] == "failed"]
    if failed:
        raise InputError(
            f"{len(failed)} cells failed: {', '.join(failed)}; the report says why, and the same "
            "command tries them again"
        )


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
