"""Figure of the structural probe: its two scores by depth."""

import os
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from undivided_tf.reporting.axes import depths
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
    across = depths(taps)
    with drawing(path, 5.2) as figure:
        rows = figure.subplots(2, 1, sharex=True)
        for axes, (key, words) in zip(rows, SCORES, strict=True):
            for prefix, colour, style in (("", BLUE, "-"), ("untrained_", GREY, "--")):
                values = [np.nan if value is None else value for value in result[prefix + key]]
                axes.plot(across, values, color=colour, ls=style)
                for x, value, tap in zip(across, values, taps, strict=True):
                    face = "white" if tap.endswith("/intermediate") else colour
                    axes.plot(x, value, "o", color=colour, mfc=face, ms=4)
            if result[f"chain_{key}"] is not None:
                axes.axhline(result[f"chain_{key}"], color=BLACK, ls=":")
            axes.set_title(words, loc="left")
        numbers = range(1, int(across[-1]) + 1, -(-int(across[-1]) // 10))
        rows[-1].set_xticks([0, *numbers], ["emb", *(str(number - 1) for number in numbers)])
        rows[-1].set_xlabel(f"encoder block of {encoder_name(result['encoder'])}")
        legend(
            figure,
            [
                Line2D([], [], color=BLUE, label="trained"),
                Line2D([], [], color=GREY, ls="--", label="untrained twin"),
                Line2D([], [], color=BLACK, ls=":", label="chain of neighbours"),
            ],
            [
                Line2D([], [], color=GREY, ls="", marker="o", label="attention block"),
                Line2D([], [], color=GREY, ls="", marker="o", mfc="white", label="intermediate"),
            ],
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
