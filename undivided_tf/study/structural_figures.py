"""Figure of the structural probe: its two scores by depth."""

import os
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from undivided_tf.study.axes import depths
from undivided_tf.study.looks import BLACK, BLUE, GREY, drawing, legend
from undivided_tf.study.pairs import encoder_name

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
