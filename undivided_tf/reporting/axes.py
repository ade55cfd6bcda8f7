"""Taps on the axes of figures: their names, their depth, the colours of their blocks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from undivided_tf.reporting.style import BLACK, FONT, GREY, KINDS


def short_name(tap: str) -> str:
    """A tap's name on an axis: `block_03/attention` is `3A`, `embeddings` is `emb`."""
    if "/" not in tap:
        return tap[:3]
    block, kind = tap.split("/")
    return f"{int(block.removeprefix('block_'))}{KINDS[kind][0]}"


def depths(taps: Sequence[str]) -> list[float]:
    """Places of taps on an axis of encoder blocks, embeddings at 0.

    An attention block stands at its encoder block's number, an intermediate block half a step
    further, so that patterns with the same attention blocks line up.
    """
    depths = []
    for tap in taps:
        block, _, kind = tap.partition("/")
        depth = int(block.removeprefix("block_")) + 1 if kind else 0
        depths.append(depth + 0.5 * (kind == "intermediate"))
    return depths


def mark_kinds(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Writes the taps on both axes of a heat map, in the colours of their blocks."""
    size = letter_size(rows, columns)
    for axis, taps in ((axes.xaxis, columns), (axes.yaxis, rows)):
        axis.set_ticks(range(len(taps)), [short_name(tap) for tap in taps], size=size)
        axis.set_tick_params(length=0, pad=2)
        for label, tap in zip(axis.get_ticklabels(), taps, strict=True):
            label.set_color(KINDS.get(tap.partition("/")[2], ("", BLACK))[1])
    if size < 8:
        axes.tick_params(axis="x", rotation=90)


def letter_size(*taps: Sequence[str]) -> float:
    """Font size in a heat map, in points: the more taps, the smaller."""
    return min(FONT, 150 / max(map(len, taps)))


def depth_axis(axes: Axes, deepest: float, encoder: str = "") -> None:
    """Numbers encoder blocks along the axis, embeddings first.

    Args:
        axes: the lowest panel.
        deepest: the last of `depths`.
        encoder: its name, where the axis is of one.
    """
    # At most ten numbers, so that those of deep encoders do not run into each other.
    numbers = range(1, int(deepest) + 1, -(-int(deepest) // 10))
    axes.set_xticks([0, *numbers], ["emb", *(str(number - 1) for number in numbers)])
    axes.set_xlabel(f"encoder block of {encoder}" if encoder else "encoder block")


def depth_line(
    axes: Axes, taps: Sequence[str], values: Sequence[float | None], colour: str, style: str
) -> None:
    """Draws values by depth; intermediate blocks are hollow, undefined values left out."""
    values = [np.nan if value is None else value for value in values]
    across = depths(taps)
    axes.plot(across, values, color=colour, ls=style)
    for x, value, tap in zip(across, values, taps, strict=True):
        face = "white" if tap.endswith("/intermediate") else colour
        axes.plot(x, value, "o", color=colour, mfc=face, ms=4)


def kind_marks() -> list[Line2D]:
    """The legend's entries for the kinds of blocks."""
    return [
        Line2D([], [], color=GREY, ls="", marker="o", label="attention block"),
        Line2D([], [], color=GREY, ls="", marker="o", mfc="white", label="intermediate"),
    ]
