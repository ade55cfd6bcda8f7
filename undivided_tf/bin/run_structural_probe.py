"""Structural probe: are the trees of sentences distances in a linear view of every tap?

    python -m undivided_tf.bin.run_structural_probe --init_checkpoint=runs/full \
        --treebank=UD_English-EWT --workdir=runs/full_structure

A finished work directory is only shown again.
"""

from undivided_tf.analysis.config import StructuralConfig
from undivided_tf.bin import config_flags

config_flags.define(StructuralConfig())


def parse() -> StructuralConfig:
    """Flags -> config."""
    return config_flags.parse(StructuralConfig())


def main() -> None:
    """Flags -> config -> probe, its table and figure."""
    config = parse()
    from undivided_tf.analysis.structural import run_structural
    from undivided_tf.reporting import pages, structural

    result = run_structural(config)
    drawn = {"structure": structural.structural_figure}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), structural.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
