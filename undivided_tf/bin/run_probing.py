"""Linear probes on every tap of an encoder, with the baselines of their scores.

    python -m undivided_tf.bin.run_probing --init_checkpoint=runs/full \
        --task=ud:pos:UD_English-EWT --workdir=runs/full_pos_probes

The results of a finished work directory are only shown.
"""

from undivided_tf.analysis.config import ProbingConfig
from undivided_tf.bin import config_flags


def main(config: ProbingConfig) -> None:
    """Trains the probes; prints a table and draws a figure."""
    from undivided_tf.analysis.probing import run_probing
    from undivided_tf.reporting import pages, probing

    result = run_probing(config)
    drawn = {"probes": probing.probe_figure}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), probing.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


parse, run = config_flags.program(ProbingConfig(), main)


if __name__ == "__main__":
    run()
