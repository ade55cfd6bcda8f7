"""Structural probe: do linear maps of every tap have the distances of syntax trees?

    python -m undivided_tf.bin.run_structural_probe --init_checkpoint=runs/full \
        --treebank=UD_English-EWT --workdir=runs/full_structure

The results of a finished work directory are only shown.
"""

from undivided_tf.analysis.config import StructuralConfig
from undivided_tf.bin import config_flags


def main(config: StructuralConfig) -> None:
    """Trains the probe; prints a table and draws a figure."""
    from undivided_tf.analysis.structural import run_structural
    from undivided_tf.reporting import pages, structural

    result = run_structural(config)
    drawn = {"structure": structural.structural_figure}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), structural.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


parse, run = config_flags.program(StructuralConfig(), main)


if __name__ == "__main__":
    run()
