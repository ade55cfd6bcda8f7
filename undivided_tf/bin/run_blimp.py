"""Zero-shot syntax: which of two sentences that differ in grammar does an encoder find likelier?

    python -m undivided_tf.bin.run_blimp --init_checkpoint=runs/full --data=BLiMP.zip \
        --workdir=runs/full_blimp

The checkpoint must have the masked-language-model head. A finished work directory is only shown
again.
"""

from undivided_tf.analysis.config import BlimpConfig
from undivided_tf.bin import config_flags

config_flags.define(BlimpConfig())


def parse() -> BlimpConfig:
    """Flags -> config."""
    return config_flags.parse(BlimpConfig())


def main() -> None:
    """Flags -> config -> scores, their table and figure."""
    config = parse()
    from undivided_tf.analysis.blimp import run_blimp
    from undivided_tf.reporting import blimp, pages

    result = run_blimp(config)
    drawn = {"blimp": blimp.phenomena}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), blimp.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
