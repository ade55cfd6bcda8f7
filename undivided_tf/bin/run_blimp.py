"""BLiMP, zero-shot: does an encoder find the grammatical sentence of a pair more probable?

    python -m undivided_tf.bin.run_blimp --init_checkpoint=runs/full --data=BLiMP.zip \
        --workdir=runs/full_blimp

The checkpoint must have the masked-language-model head. The results of a finished work directory
are only shown.
"""

from undivided_tf.analysis.config import BlimpConfig
from undivided_tf.bin import config_flags


def main(config: BlimpConfig) -> None:
    """Scores the pairs; prints a table and draws a figure."""
    from undivided_tf.analysis.blimp import run_blimp
    from undivided_tf.reporting import blimp, pages

    result = run_blimp(config)
    drawn = {"blimp": blimp.phenomena}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), blimp.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


parse, run = config_flags.program(BlimpConfig(), main)


if __name__ == "__main__":
    run()
