"""What the blocks of an encoder do: rank collapse, contributions, linearity, attention, read-out.

    python -m undivided_tf.bin.run_diagnostics --init_checkpoint=runs/full \
        --workdir=runs/full_diagnostics

All of it stands beside the untrained twin. With --second_checkpoint the attention heads of two
encoders are matched. A finished work directory is only shown again.
"""

from undivided_tf.analysis.config import DiagnosticsConfig
from undivided_tf.bin import config_flags

config_flags.define(DiagnosticsConfig())


def parse() -> DiagnosticsConfig:
    """Flags -> config."""
    return config_flags.parse(DiagnosticsConfig())


def main() -> None:
    """Flags -> config -> diagnostics, their tables and figures."""
    config = parse()
    from undivided_tf.analysis.diagnostics import run_diagnostics
    from undivided_tf.reporting import diagnostics, pages

    result = run_diagnostics(config)
    drawn = {"blocks": diagnostics.block_figure, "attention": diagnostics.attention_figure}
    if result["read_out"]:
        drawn["read_out"] = diagnostics.read_out_figure
    encoders = (config.init_checkpoint, config.second_checkpoint)
    command, table = config_flags.command(), diagnostics.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
