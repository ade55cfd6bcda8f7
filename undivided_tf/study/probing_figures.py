"""Figure of one probing: accuracy by depth and what it must be read against."""

import os
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from undivided_tf.study.axes import depths
from undivided_tf.study.looks import BLACK, BLUE, GREEN, GREY, VERMILION, drawing, legend
from undivided_tf.study.pairs import encoder_name

Result = dict[str, Any]


def probe_figure(result: Result, path: str | os.PathLike) -> None:
    """Draws accuracy with its baselines, then selectivity and compression where measured.

    Args:
        result: of kind `probing`.
        path: where to write, `.png` or `.svg`.
    """
    taps = result["taps"]
    across = depths(taps)
    further = [key for key in ("selectivity", "compression") if result[key]]
    with drawing(path, 3.0 + 1.6 * len(further) + 0.7) as figure:
        rows = figure.subplots(
            1 + len(further), 1, sharex=True, squeeze=False,
            height_ratios=[2] + [1] * len(further),
        )[:, 0]  # fmt: skip
        top = rows[0]
        if result["low"][0] is not None:
            top.fill_between(across, result["low"], result["high"], color=BLUE, alpha=0.18, lw=0)
        lines = [("accuracy", BLUE, "-"), ("untrained_accuracy", GREY, "--")]
        lines += [("control_accuracy", VERMILION, "-.")] if result["control_accuracy"] else []
        for key, colour, style in lines:
            _line(top, across, taps, result[key], colour, style)
        top.axhline(result["majority_accuracy"], color=GREY, ls=":")
        top.axhline(result["type_majority_accuracy"], color=GREEN, ls=":")
        if result["scalar_mix"]:
            mix = result["scalar_mix"]
            centre = float(np.interp(mix["centre_of_gravity"], range(len(taps)), across))
            top.plot(centre, mix["accuracy"], "*", color=BLACK, ms=11)
        top.set_title(f"{result['task']}: accuracy", loc="left")
        for axes, key in zip(rows[1:], further, strict=True):
            _line(axes, across, taps, result[key], BLUE, "-")
            if key == "compression":
                _line(axes, across, taps, result["untrained_compression"], GREY, "--")
            axes.axhline(0 if key == "selectivity" else 1, color=BLACK, lw=0.8)
            axes.set_title(key, loc="left")
        numbers = range(1, int(across[-1]) + 1, -(-int(across[-1]) // 10))
        rows[-1].set_xticks([0, *numbers], ["emb", *(str(number - 1) for number in numbers)])
        encoder = {"pattern": result["pattern"], "seed": result["pretraining_seed"]}
        rows[-1].set_xlabel(f"encoder block of {encoder_name({**encoder, 'trained': True})}")
        left = [
            Line2D([], [], color=colour, ls=style, label=words)
            for (_, colour, style), words in zip(
                lines, ("trained", "untrained", "control task"), strict=False
            )
        ]
        left += [
            Line2D([], [], color=GREY, ls=":", label="majority class"),
            Line2D([], [], color=GREEN, ls=":", label="majority of word type"),
        ]
        right = [
            Line2D([], [], color=GREY, ls="", marker="o", label="attention block"),
            Line2D([], [], color=GREY, ls="", marker="o", mfc="white", label="intermediate"),
        ]
        if result["low"][0] is not None:
            right.append(Patch(color=BLUE, alpha=0.18, label="95 % interval"))
        if result["scalar_mix"]:
            words = "mix of taps, at its centre"
            right.append(Line2D([], [], color=BLACK, ls="", marker="*", label=words))
        legend(figure, left, right)


def _line(axes, across, taps, values, colour, style) -> None:
    values = [np.nan if value is None else value for value in values]
    axes.plot(across, values, color=colour, ls=style)
    for x, value, tap in zip(across, values, taps, strict=True):
        face = "white" if tap.endswith("/intermediate") else colour
        axes.plot(x, value, "o", color=colour, mfc=face, ms=4)
