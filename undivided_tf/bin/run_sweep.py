"""Finds the best peak learning rate of each block pattern on pilot seeds.

    python -m undivided_tf.bin.run_sweep --records_dir=records --workdir=runs/sweep \
        --patterns='(AI)*6,A*6' --learning_rates=2e-3,4e-3,8e-3 --pilot_seeds=1,2 \
        --pretraining.optimizer=muon --pretraining.num_train_steps=1000

The same command goes on where it stopped; with more rates, seeds or patterns it runs what is
new. run_study --learning_rate_sweep=runs/sweep/sweep.json trains each pattern at its own rate.
"""

from undivided_tf.bin import config_flags
from undivided_tf.study.config import SweepConfig

config_flags.define(SweepConfig())


def parse() -> SweepConfig:
    """The config that the flags give."""
    return config_flags.parse(SweepConfig())


def main() -> None:
    """Flags -> config -> run_sweep -> its table."""
    config = parse()
    from undivided_tf.study import sweep

    print(sweep.table(sweep.run_sweep(config)))
    print(f"results: {config.workdir}/{sweep.SWEEP}")


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
