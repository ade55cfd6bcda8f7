"""Finds the best peak learning rate of each block pattern on pilot seeds.

    python -m undivided_tf.bin.run_sweep --records_dir=records --workdir=runs/sweep \
        --patterns='(AI)*6,A*6' --learning_rates=2e-3,4e-3,8e-3 --pilot_seeds=1,2 \
        --pretraining.optimizer=muon --pretraining.num_train_steps=1000

The same command resumes an interrupted sweep; with more rates, seeds or patterns it runs the new
ones. --kept_results=FILE resumes from a sweep.json that was kept without its runs. run_study
--learning_rate_sweep=runs/sweep/sweep.json trains each pattern at its own rate.
"""

from absl import flags

from undivided_tf.bin import config_flags
from undivided_tf.study.config import SweepConfig

flags.DEFINE_string(
    "kept_results",
    "",
    "A sweep.json of this sweep on the same records, whose losses are not measured again. Empty: "
    "only runs in the work directory count.",
)


def main(config: SweepConfig) -> None:
    """Runs the sweep and prints its table."""
    from undivided_tf.study import sweep

    print(sweep.table(sweep.run_sweep(config, flags.FLAGS.kept_results)))
    print(f"results: {config.workdir}/{sweep.SWEEP}")


parse, run = config_flags.program(SweepConfig(), main)


if __name__ == "__main__":
    run()
