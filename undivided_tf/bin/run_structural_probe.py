"""Structural probe: are the trees of sentences distances in a linear view of every tap?

    python -m undivided_tf.bin.run_structural_probe --init_checkpoint=runs/full \
        --treebank=UD_English-EWT --workdir=runs/full_structure

A finished work directory is only shown again.
"""

from undivided_tf.analysis.config import StructuralConfig
from undivided_tf.bin import config_flags
from undivided_tf.study.pairs import encoder_name

config_flags.define(StructuralConfig())


def parse() -> StructuralConfig:
    """Flags -> config."""
    return config_flags.parse(StructuralConfig())


def main() -> None:
    """Flags -> config -> probe, its table and figure."""
    config = parse()
    from undivided_tf.analysis.structural import run_structural
    from undivided_tf.study import pages
    from undivided_tf.study.structural_figures import structural_figure

    result = run_structural(config)
    drawn = {"structure": structural_figure}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), _table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def _table(result) -> str:
    """A line a tap."""
    rows = result["rows"]
    keys = ("uuas", "spearman", "untrained_uuas", "untrained_spearman")
    lines = [
        encoder_name(result["encoder"])
        + f"; {rows['train']} training sentences, {rows['test']} of test",
        f"{'tap':<24}" + "".join(f"{key:>20}" for key in keys),
    ]
    for tap, *values in zip(result["taps"], *(result[key] for key in keys), strict=True):
        lines.append(f"{tap:<24}" + "".join(_shown(value) for value in values))
    chain = "".join(_shown(result[key]) for key in ("chain_uuas", "chain_spearman"))
    lines.append(f"{'chain of neighbours':<24}{chain}")
    # Runs of older releases did not compare them.
    dropped = result.get("duplicates_dropped", "not compared")
    lines.append(
        f"test sentences left out as in training: {dropped}, as cut off: "
        f"{result['left_out']['test']}"
    )
    return "\n".join(lines)


def _shown(value) -> str:
    return f"{'-':>20}" if value is None else f"{value:>20.3f}"


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
