"""Two synthetic corpora for small encoders: how many bits of facts they store, how well they copy.

    python -m undivided_tf.bin.run_mechanism --flagfile=flags/mechanism.flags

The same command resumes an interrupted run. The results of a finished work directory are only
shown.
"""

from undivided_tf.bin import config_flags
from undivided_tf.training.config import MechanismConfig


def main(config: MechanismConfig) -> None:
    """Trains encoders on both corpora; prints a table and draws a figure."""
    from undivided_tf.reporting import mechanism, pages
    from undivided_tf.training.mechanism import run_mechanism

    result = run_mechanism(config)
    drawn = {"mechanism": lambda content, path: mechanism.corpora(content["encoders"], path)}
    command, table = config_flags.command(), mechanism.table(result)
    print(pages.present(result, config.workdir, command, table, drawn))


parse, run = config_flags.program(MechanismConfig(), main)


if __name__ == "__main__":
    run()
