"""Runs a study over block patterns, seeds and tasks, and writes its report.

    python -m undivided_tf.bin.run_study --flagfile=flags/study_quick.flags

The same command resumes an interrupted study and retries failed cells.
--scheduler=tcp://HOST:8786 uses a standing Dask cluster, whose workers must see the work
directory. --report_only reports what is finished so far. --kept_results=FILE resumes from a
results.json that was kept without the directories of its cells. --until_decided adds seeds until
the compute multipliers are decided.
"""

from absl import flags

from undivided_tf.bin import config_flags
from undivided_tf.errors import InputError
from undivided_tf.study.config import StudyConfig
from undivided_tf.support import files

config_flags.define(StudyConfig())
flags.DEFINE_boolean("dry_run", False, "Show cells, parameters, FLOPs and times, and leave.")
flags.DEFINE_float(
    "assumed_teraflops",
    0.0,
    "With --dry_run: project the times at this rate of training, in 10^12 FLOPs a second, of a "
    "machine that is not at hand; nothing is timed. 0: time steps here.",
    lower_bound=0,
)
flags.DEFINE_string(
    "scheduler",
    "",
    "Address of a standing Dask scheduler, such as tcp://HOST:8786; empty: a "
    "cluster on this machine.",
)
flags.DEFINE_list(
    "learning_rate_sweep",
    [],
    "sweep.json of run_sweep, one of each size: sets pattern_learning_rates, partner_shapes and "
    "pilot_seeds.",
)
flags.DEFINE_boolean("report_only", False, "Run nothing: report what is finished.")
flags.DEFINE_string(
    "kept_results",
    "",
    "A results.json of this study: its finished cells are not run again, except encoders whose "
    "weights are needed. Empty: only cells in the work directory count.",
)
# Flags that say how much one call runs, and where: not part of the command that the report shows.
OF_ONE_CALL = ("scheduler", "report_only", "kept_results", "assumed_teraflops")


def parse() -> StudyConfig:
    """The config that the flags give."""
    config = config_flags.parse(StudyConfig())
    if flags.FLAGS.learning_rate_sweep:
        from undivided_tf.study import swept_rates

        return swept_rates.with_rates(config, *flags.FLAGS.learning_rate_sweep)
    return config


def main() -> None:
    """Runs the study and prints its summary; or projects its cost."""
    config, given = parse(), flags.FLAGS
    if given.dry_run:
        from undivided_tf.study import projection

        projected = projection.project(config, given.kept_results, given.assumed_teraflops)
        print(projection.describe(config, *projected))
        return
    command = config_flags.command(without=OF_ONE_CALL)
    from undivided_tf.study.study import run_study
    from undivided_tf.study.summary import summary_lines
    from undivided_tf.study.until_decided import run_until_decided

    sweeps = [files.read_json(path) for path in given.learning_rate_sweep]
    if config.until_decided and not given.report_only:
        results = run_until_decided(config, command, given.scheduler, given.kept_results, sweeps)
    else:
        results = run_study(
            config, command, given.scheduler, given.report_only, given.kept_results, sweeps
        )
    print("\n".join(summary_lines(results)))
    print(f"report: {config.workdir}/report.html")
    failed = [cell["name"] for cell in results["cells"] if cell["status"] == "failed"]
    if failed:
        raise InputError(
            f"{len(failed)} cells failed: {', '.join(failed)}; the report says why, and the same "
            "command retries them"
        )


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
