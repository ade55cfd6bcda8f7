"""Figures of what intermediate blocks are worth: loss over compute, and the multiplier."""

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from undivided_tf.reporting import formatting
from undivided_tf.reporting.style import BLACK, GREY, drawing, legend, pattern_marks, styles_of

_FLOPS = FuncFormatter(lambda value, _: formatting.large(value))
# Of a band: FLOPs, then its middle, its lower and its upper end.
Band = Sequence[tuple[float, float, float, float]]


NEIGHBOURS, UNIGRAMS = "neighbour model", "unigram entropy"
_LINES = {NEIGHBOURS: ":", UNIGRAMS: "--"}


def loss_over_compute(
    patterns: Sequence[str],
    curves: Mapping[str, Band],
    lines: Mapping[str, float],
    path: str | os.PathLike,
) -> None:
    """Draws annealed losses over training FLOPs, one line an arm with its band.

    Args:
        patterns: all of the study, whose colours are those of its other figures.
        curves: from a pattern to its points; losses in nats.
        lines: losses of `NEIGHBOURS` and `UNIGRAMS`, where they are known.
        path: where to write, `.png` or `.svg`.
    """
    styles = {pattern: style for pattern, style in styles_of(patterns).items() if pattern in curves}
    with drawing(path, 3.0 + 0.2 * len(styles)) as figure:
        axes = figure.subplots()
        for pattern, points in curves.items():
            colour, marker = styles[pattern]
            flops, middle, low, high = np.transpose(sorted(points))
            axes.plot(flops, middle, color=colour, marker=marker)
            axes.fill_between(flops, low, high, color=colour, alpha=0.2, lw=0)
        for name, loss in lines.items():
            axes.axhline(loss, color=BLACK, ls=_LINES[name], lw=1.1)
            axes.annotate(
                f"{name} {formatting.loss(loss)}",
                (1, loss),
                (-2, 3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="bottom",
            )
        axes.margins(y=0.1)
        _compute_axis(axes, "training FLOPs")
        axes.set_ylabel("held-out MLM loss (nats)")
        legend(figure, pattern_marks(styles), [])


def multipliers(
    patterns: Sequence[str],
    bands: Mapping[str, Band],
    marked: Mapping[str, Sequence[tuple[float, float]]],
    margins: tuple[float, float],
    path: str | os.PathLike,
) -> None:
    """Draws compute multipliers over the training FLOPs of the reference, with their intervals.

    Args:
        patterns: all of the study, as for `loss_over_compute`.
        bands: from a pattern to its multipliers; an open end is 0 or inf and reaches the edge.
        marked: of each pattern the budgets that were trained, and their multipliers.
        margins: lower and upper, drawn as lines.
        path: where to write, `.png` or `.svg`.
    """
    styles = {pattern: style for pattern, style in styles_of(patterns).items() if pattern in bands}
    with drawing(path, 3.0 + 0.2 * len(styles)) as figure:
        axes = figure.subplots()
        ends = [1.0, *margins, *(x for band in bands.values() for _, *xs in band for x in xs)]
        ends = [x for x in ends if 0 < x < math.inf]
        bottom, top = min(ends) / 1.05, max(ends) * 1.05
        for pattern, band in bands.items():
            colour, marker = styles[pattern]
            flops, middle, low, high = np.transpose(sorted(band))
            axes.plot(flops, middle, color=colour)
            low, high = np.clip((low, high), bottom, top)
            axes.fill_between(flops, low, high, color=colour, alpha=0.2, lw=0)
            axes.plot(*np.reshape(marked[pattern], (-1, 2)).T, marker, color=colour)
        axes.axhline(1, color=GREY, lw=0.9)
        for margin, side in zip(margins, (-1, 1), strict=True):
            axes.axhline(margin, color=BLACK, ls="--", lw=1.1)
            axes.annotate(
                f"margin {margin:g}",
                (1, margin),
                (-2, 3 * side),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="bottom" if side > 0 else "top",
            )
        axes.set_ylim(bottom, top)
        _compute_axis(axes, "training FLOPs of the reference")
        axes.set_ylabel("compute multiplier")
        legend(figure, pattern_marks(styles), [])


def _compute_axis(axes: Axes, name: str) -> None:
    """A logarithmic axis with a few numbers, whether or not it holds a power of ten."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if high > 4 * low else (1, 1.5, 2, 3, 4, 6, 8))
    )
    axes.xaxis.set_major_formatter(_FLOPS)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(name)
