"""Figure and table of the structural probe: its two scores by depth."""

import os
from typing import Any

from matplotlib.lines import Line2D

from undivided_tf.reporting.axes import depth_axis, depth_line, depths, kind_marks
from undivided_tf.reporting.formatting import encoder_name
from undivided_tf.reporting.style import BLACK, BLUE, GREY, drawing, legend

SCORES = (("uuas", "UUAS: edges of the tree found"), ("spearman", "Spearman of distances"))


def structural_figure(result: dict[str, Any], path: str | os.PathLike) -> None:
    """Draws both scores by tap, beside the untrained twin and the chain of neighbours.

    Args:
        result: of kind `structural`.
        path: where to write, `.png` or `.svg`.
    """
    taps = result["taps"]
    with drawing(path, 5.2) as figure:
        rows = figure.subplots(2, 1, sharex=True)
        for axes, (key, words) in zip(rows, SCORES, strict=True):
            for prefix, colour, style in (("", BLUE, "-"), ("untrained_", GREY, "--")):
                depth_line(axes, taps, result[prefix + key], colour, style)
            if result[f"chain_{key}"] is not None:
                axes.axhline(result[f"chain_{key}"], color=BLACK, ls=":")
            axes.set_title(words, loc="left")
        depth_axis(rows[-1], depths(taps)[-1], encoder_name(result["encoder"]))
        legend(
            figure,
            [
                Line2D([], [], color=BLUE, label="trained"),
                Line2D([], [], color=GREY, ls="--", label="untrained twin"),
                Line2D([], [], color=BLACK, ls=":", label="chain of neighbours"),
            ],
            kind_marks(),
        )


def table(result: dict[str, Any]) -> str:
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


def _shown(value: float | None) -> str:
    return f"{'-':>20}" if value is None else f"{value:>20.3f}"
