"""Linear probes on every tap of an encoder, with what their scores must be read against.

    python -m undivided_tf.bin.run_probing --init_checkpoint=runs/full \
        --task=ud:pos:UD_English-EWT --workdir=runs/full_pos_probes

A finished work directory is only shown again.
"""

from undivided_tf.analysis.config import ProbingConfig
from undivided_tf.bin import config_flags

config_flags.define(ProbingConfig())


def parse() -> ProbingConfig:
    """Flags -> config."""
    return config_flags.parse(ProbingConfig())


def main() -> None:
    """Flags -> config -> probes, their table and their figure."""
    config = parse()
    from undivided_tf.analysis.probing import run_probing
    from undivided_tf.reporting import pages, probing

    result = run_probing(config)
    drawn = {"probes": probing.probe_figure}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), probing.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
