"""Held-out loss at several mask rates, and by class of piece: frequent, middle, rare, continuation.

    python -m undivided_tf.bin.run_masked_loss --init_checkpoint=runs/full \
        --records_dir=runs/records --workdir=runs/full_masked_loss

All encoders see the same rows with the same masks. The checkpoint must have the
masked-language-model head. The results of a finished work directory are only shown.
"""

from undivided_tf.analysis.config import MaskedLossConfig
from undivided_tf.bin import config_flags


def main(config: MaskedLossConfig) -> None:
    """Measures the losses; prints a table and draws a figure."""
    from undivided_tf.analysis.masked_loss import run_masked_loss
    from undivided_tf.reporting import masked_loss, pages

    result = run_masked_loss(config)
    drawn = {"masked_loss": masked_loss.by_rate}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), masked_loss.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


parse, run = config_flags.program(MaskedLossConfig(), main)


if __name__ == "__main__":
    run()
