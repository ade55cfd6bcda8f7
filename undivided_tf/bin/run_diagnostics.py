"""Diagnostics of the blocks: rank collapse, contributions, linearity, attention, read-out.

    python -m undivided_tf.bin.run_diagnostics --init_checkpoint=runs/full \
        --workdir=runs/full_diagnostics

All results are compared with the untrained twin. With --second_checkpoint the attention heads of
two encoders are matched. The results of a finished work directory are only shown.
"""

from undivided_tf.analysis.config import DiagnosticsConfig
from undivided_tf.bin import config_flags


def main(config: DiagnosticsConfig) -> None:
    """Computes the diagnostics; prints tables and draws figures."""
    from undivided_tf.analysis.diagnostics import run_diagnostics
    from undivided_tf.reporting import diagnostics, pages

    result = run_diagnostics(config)
    drawn = {"blocks": diagnostics.block_figure, "attention": diagnostics.attention_figure}
    if result["read_out"]:
        drawn["read_out"] = diagnostics.read_out_figure
    encoders = (config.init_checkpoint, config.second_checkpoint)
    command, table = config_flags.command(), diagnostics.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


parse, run = config_flags.program(DiagnosticsConfig(), main)


if __name__ == "__main__":
    run()
