"""Two synthetic corpora for small encoders: how many bits of facts they store, how well they copy.

    python -m undivided_tf.bin.run_mechanism --flagfile=flags/mechanism.flags

The same command goes on after an interruption. A finished work directory is only shown again.
"""

from undivided_tf.bin import config_flags
from undivided_tf.training.config import MechanismConfig

config_flags.define(MechanismConfig())


def parse() -> MechanismConfig:
    """Flags -> config."""
    return config_flags.parse(MechanismConfig())


def main() -> None:
    """Flags -> config -> encoders on both corpora, their table and figure."""
    config = parse()
    from undivided_tf.reporting import mechanism, pages
    from undivided_tf.training.mechanism import run_mechanism

    result = run_mechanism(config)
    drawn = {"mechanism": lambda found, path: mechanism.corpora(found["encoders"], path)}
    command, table = config_flags.command(), mechanism.table(result)
    print(pages.present(result, config.workdir, command, table, drawn))


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
