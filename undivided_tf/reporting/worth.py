"""Figures of what intermediate blocks are worth: loss over compute, and the multiplier."""

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from undivided_tf.reporting import formatting
from undivided_tf.reporting.style import BLACK, GREY, drawing, legend, pattern_marks, styles_of

# Of a band: FLOPs, then its middle, its lower and its upper end.
Band = Sequence[tuple[float, float, float, float]]


NEIGHBOURS, UNIGRAMS = "neighbour model", "unigram entropy"
_LINES = {NEIGHBOURS: ":", UNIGRAMS: "--"}


def loss_over_compute(
    patterns: Sequence[str],
    curves: Mapping[str, Mapping[str, Band]],
    lines: Mapping[str, float],
    path: str | os.PathLike,
) -> None:
    """Draws annealed losses over training FLOPs, one line an arm with its band.

    Args:
        patterns: all of the study, whose colours are those of its other figures.
        curves: from the title of a panel, such as a size, and a pattern to its points; losses in
            nats.
        lines: losses of `NEIGHBOURS` and `UNIGRAMS`, where they are known.
        path: where to write, `.png` or `.svg`.
    """
    with _panels_of(patterns, curves, path) as (panels, styles):
        for axes, panel_curves in zip(panels, curves.values(), strict=True):
            for pattern, points in panel_curves.items():
                colour, marker = styles[pattern]
                flops, middle, low, high = np.transpose(sorted(points))
                axes.plot(flops, middle, color=colour, marker=marker, ls=_line(pattern))
                axes.fill_between(flops, low, high, color=colour, alpha=0.2, lw=0)
            for name, loss in lines.items():
                axes.axhline(loss, color=BLACK, ls=_LINES[name], lw=1.1)
                # Curves fall from the upper left to the lower right, and leave these corners free.
                low = name == NEIGHBOURS
                text = f"{name} {formatting.loss(loss)}"
                text = text.replace(" ", "\n", 1) if low else text
                _label(axes, loss, text, above=not low, left=low)
            axes.margins(y=0.1)
            _compute_axis(axes, "training FLOPs")
        _left(panels, "held-out MLM loss (nats)")


def multipliers(
    patterns: Sequence[str],
    bands: Mapping[str, Mapping[str, Band]],
    marked: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    margins: tuple[float, float],
    path: str | os.PathLike,
) -> None:
    """Draws compute multipliers over the training FLOPs of the reference, with their intervals.

    Args:
        patterns: all of the study, as for `loss_over_compute`.
        bands: by panel and pattern the multipliers; an open end is 0 or inf and reaches the edge.
            Where a multiplier is NaN, the end that is known is drawn as a dotted line.
        marked: likewise the budgets that were trained, and their multipliers.
        margins: lower and upper, drawn as lines.
        path: where to write, `.png` or `.svg`.
    """
    points = [
        point for panel_bands in bands.values() for band in panel_bands.values() for point in band
    ]
    ends = [1.0, *margins, *itertools.chain.from_iterable(values for _, *values in points)]
    ends = [end for end in ends if 0 < end < math.inf]
    bottom, top = min(ends) / 1.05, max(ends) * 1.05
    with _panels_of(patterns, bands, path) as (panels, styles):
        for axes, (title, panel_bands) in zip(panels, bands.items(), strict=True):
            for pattern, band in panel_bands.items():
                colour, marker = styles[pattern]
                flops, middle, low, high = np.transpose(sorted(band))
                axes.plot(flops, middle, color=colour, ls=_line(pattern))
                known_end = np.where(low > 0, low, high)
                axes.plot(flops, np.where(np.isnan(middle), known_end, np.nan), ":", color=colour)
                low, high = np.clip((low, high), bottom, top)
                known = ~np.isnan(middle)
                axes.fill_between(flops, low, high, where=known, color=colour, alpha=0.2, lw=0)
                axes.plot(*np.reshape(marked[title][pattern], (-1, 2)).T, marker, color=colour)
            axes.axhline(1, color=GREY, lw=0.9)
            for margin, above in zip(margins, (False, True), strict=True):
                axes.axhline(margin, color=BLACK, ls="--", lw=1.1)
                _label(axes, margin, f"margin {margin:g}", above)
            axes.set_ylim(bottom, top)
            _compute_axis(axes, "training FLOPs of the reference")
        _left(panels, "compute multiplier")


def learning_rates(
    patterns: Sequence[str],
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    path: str | os.PathLike,
) -> None:
    """Draws held-out losses over the peak learning rate, one line an arm, the best one marked.

    Args:
        patterns: all of the study, as for `loss_over_compute`.
        curves: by panel and arm the rates with their losses in nats.
        path: where to write, `.png` or `.svg`.
    """
    with _panels_of(patterns, curves, path) as (panels, styles):
        for axes, panel_curves in zip(panels, curves.values(), strict=True):
            for arm, points in panel_curves.items():
                colour, marker = styles[arm]
                rates, losses = np.transpose(sorted(points))
                axes.plot(rates, losses, color=colour, marker=marker, ls=_line(arm))
                best = np.argmin(losses)
                axes.plot(rates[best], losses[best], marker, color=colour, ms=10, mfc="none")
            _log_axis(axes, "peak learning rate", lambda value, _: f"{value:g}")
        _left(panels, "held-out MLM loss (nats)")


@contextlib.contextmanager
def _panels_of(
    patterns: Sequence[str], content: Mapping[str, Mapping[str, Any]], path: str | os.PathLike
) -> Iterator[tuple[Sequence[Axes], dict[str, Any]]]:
    """Axes beside each other, one for each title, and the styles of the arms that they show.

    An arm is a pattern or `PATTERN, BUDGET`: a partner has the colour of its pattern, and its line
    is dashed.
    """
    shown = dict.fromkeys(arm for arms in content.values() for arm in arms)
    styles = {arm: styles_of(patterns)[arm.partition(",")[0]] for arm in shown}
    columns = min(len(content), 2)
    rows = math.ceil(len(content) / columns)
    with drawing(path, 0.4 + 2.6 * rows + 0.2 * len(styles)) as figure:
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for axes in panels[len(content) :]:
            axes.remove()
        panels = panels[: len(content)]
        for axes, title in zip(panels, content, strict=True):
            axes.set_title(title)
        yield panels, styles
        marks = pattern_marks(styles)
        for mark, arm in zip(marks, styles, strict=True):
            mark.set_linestyle(_line(arm))
        legend(figure, marks, [])


def _left(panels: Sequence[Axes], name: str) -> None:
    """Names the vertical axis of the panels on the left."""
    for axes in panels[::2]:
        axes.set_ylabel(name)


def _line(arm: str) -> str:
    return "--" if "," in arm else "-"


def _label(axes: Axes, height: float, text: str, above: bool, left: bool = False) -> None:
    """Labels a horizontal line at one end."""
    axes.annotate(
        text,
        (1 - left, height),
        (2 if left else -2, 3 if above else -3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom" if above else "top",
    )


def _short(value: float, _: int) -> str:
    """FLOPs without zeros behind the point, which have no room under a panel."""
    number, *unit = formatting.large(value).split()
    return " ".join([f"{float(number):g}", *unit])


def _compute_axis(axes: Axes, name: str) -> None:
    _log_axis(axes, name, _short)


def _log_axis(axes: Axes, name: str, show: Callable[[float, int], str]) -> None:
    """A logarithmic axis with a few numbers, whether or not it holds a power of ten."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    wide = LogLocator(subs=(1, 2, 5)) if high > 4 * low else MaxNLocator(4)
    axes.xaxis.set_major_locator(wide)
    axes.xaxis.set_major_formatter(FuncFormatter(show))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(name)
