"""What the blocks of an encoder do: rank collapse, contributions, linearity, attention, read-out.

    python -m undivided_tf.bin.run_diagnostics --init_checkpoint=runs/full \
        --workdir=runs/full_diagnostics

All of it stands beside the untrained twin. With --second_checkpoint the attention heads of two
encoders are matched. A finished work directory is only shown again.
"""

from undivided_tf.analysis.config import DiagnosticsConfig
from undivided_tf.bin import config_flags
from undivided_tf.study.pairs import encoder_name

config_flags.define(DiagnosticsConfig())


def parse() -> DiagnosticsConfig:
    """Flags -> config."""
    return config_flags.parse(DiagnosticsConfig())


def main() -> None:
    """Flags -> config -> diagnostics, their tables and figures."""
    config = parse()
    from undivided_tf.analysis.diagnostics import run_diagnostics
    from undivided_tf.study import diagnostics_figures as figures
    from undivided_tf.study import pages

    result = run_diagnostics(config)
    drawn = {"blocks": figures.block_figure, "attention": figures.attention_figure}
    if result["read_out"]:
        drawn["read_out"] = figures.read_out_figure
    table = f"{_blocks(result)}\n{_attention(result)}"
    encoders = (config.init_checkpoint, config.second_checkpoint)
    command = config_flags.command()
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def _blocks(result) -> str:
    """A line a tap."""
    blocks, read_out = result["blocks"], result["read_out"]
    columns = ["residual", "cosine", "rank", "added", "linear R2"]
    columns += ["loss", "accuracy", f"top {read_out['top']}"] if read_out else []
    lines = [
        encoder_name(result["encoder"]) + f"; {blocks['texts']} texts, {blocks['tokens']} tokens",
        f"{'tap':<24}" + "".join(f"{column:>11}" for column in columns),
    ]
    measures = ("relative_residual", "mean_cosine", "effective_rank")
    for i, tap in enumerate(result["taps"]):
        values = [blocks["collapse"][name][i] for name in measures]
        values.append(blocks["contribution_norm"].get(tap))
        values.append(blocks["linear_r2"].get(tap, {}).get("contribution"))
        if read_out:
            values += [read_out[name][i] for name in ("loss", "accuracy", "top_accuracy")]
        shown = ("-" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"{tap:<24}" + "".join(f"{value:>11}" for value in shown))
    if blocks["linear_reason"]:
        lines.append(f"linear R2: {blocks['linear_reason']}")
    if not read_out:
        lines.append("no read-out: the checkpoint has no masked-language-model head")
    return "\n".join(lines)


def _attention(result) -> str:
    """A line an attention block, means over its heads."""
    names = ("entropy", "distance", "first", "separator", "self", "next", "previous")
    lines = [f"{'block':<24}" + "".join(f"{n:>11}" for n in (*names, "rollout"))]
    for block, heads in result["attention"].items():
        values = [sum(heads[name]) / len(heads[name]) for name in names]
        values.append(heads["rollout_self"])
        lines.append(f"{block:<24}" + "".join(f"{value:>11.3f}" for value in values))
    for pair in result["heads"] or ():
        lines.append(
            f"{pair['first']} ~ {pair['second']}: matched heads differ by "
            f"{pair['mean_matched']:.3f} nats"
        )
    return "\n".join(lines)


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
