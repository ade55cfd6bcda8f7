"""Figures and table of the held-out loss by mask rate and by class of piece."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.lines import Line2D

from undivided_tf.reporting.formatting import Estimate, encoder_name
from undivided_tf.reporting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    drawing,
    legend,
    pattern_marks,
    styles_of,
)

_CLASS_STYLES = ((BLUE, "o"), (GREEN, "^"), (VERMILION, "s"), (ORANGE, "D"))


def by_rate(result: dict[str, Any], path: str | os.PathLike) -> None:
    """Draws the loss over the mask rate, of all pieces and of each class.

    Args:
        result: of kind `masked_loss`.
        path: where to write, `.png` or `.svg`.
    """
    rates = result["rates"]
    across = [100 * of["rate"] for of in rates]
    lines = {"all": (rates, BLACK, "X")} | {
        name: ([of["classes"][name] for of in rates], colour, marker)
        for name, (colour, marker) in zip(rates[0]["classes"], _CLASS_STYLES, strict=True)
    }
    lines = {name: line for name, line in lines.items() if all(of["pieces"] for of in line[0])}
    with drawing(path, 4.0) as figure:
        axes = figure.subplots()
        for losses, colour, marker in lines.values():
            axes.plot(across, [of["loss"] for of in losses], color=colour, marker=marker)
            beside = [of["neighbour_model_loss"] for of in losses]
            axes.plot(across, beside, color=colour, ls=":")
        axes.set_xticks(across, [f"{rate:g}" for rate in across])
        axes.set_xlabel("masked pieces, %")
        axes.set_ylabel("held-out MLM loss (nats)")
        axes.set_title(encoder_name(result["encoder"]), loc="left")
        kinds = [
            Line2D([], [], color=GREY, label="encoder"),
            Line2D([], [], color=GREY, ls=":", label="neighbour model"),
        ]
        marks = [
            Line2D([], [], color=colour, marker=marker, label=name)
            for name, (_, colour, marker) in lines.items()
        ]
        legend(figure, marks, kinds)


def differences(
    patterns: Sequence[str],
    rates: Mapping[str, Mapping[float, Estimate]],
    classes: Mapping[str, Mapping[str, Estimate]],
    path: str | os.PathLike,
) -> None:
    """Draws how far the loss lies above the reference's, by mask rate and by class.

    Args:
        patterns: all of the study, whose colours are those of its other figures.
        rates: from a pattern to its paired differences by mask rate.
        classes: the same by name of the class.
        path: where to write, `.png` or `.svg`.
    """
    styles = {pattern: style for pattern, style in styles_of(patterns).items() if pattern in rates}
    with drawing(path, 5.6 + 0.2 * len(styles)) as figure:
        upper, lower = figure.subplots(2, 1)
        names = list(dict.fromkeys(name for of in classes.values() for name in of))
        for number, (pattern, (colour, marker)) in enumerate(styles.items()):
            # Beside each other, so that intervals do not cover each other.
            aside = 0.12 * (number - (len(styles) - 1) / 2)
            places = [100 * rate + 8 * aside for rate in rates[pattern]]
            _points(upper, places, rates[pattern].values(), colour, marker, "-")
            places = [names.index(name) + aside for name in classes[pattern]]
            _points(lower, places, classes[pattern].values(), colour, marker, "")
        for axes in (upper, lower):
            axes.axhline(0, color=BLACK, lw=0.9)
            axes.set_ylabel("nats above the reference")
        ticks = sorted({100 * rate for of in rates.values() for rate in of})
        upper.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        upper.set_xlabel("masked pieces, %")
        lower.set_xticks(range(len(names)), names)
        lower.set_xlabel("class of the masked piece, all rates")
        legend(figure, pattern_marks(styles), [])


def _points(axes, places, estimates, colour, marker, style) -> None:
    """Draws means, with their intervals where there are several seeds."""
    estimates = list(estimates)
    means = [estimate.mean for estimate in estimates]
    axes.plot(places, means, color=colour, marker=marker, ls=style)
    for place, estimate in zip(places, estimates, strict=True):
        if estimate.interval:
            axes.plot([place] * 2, estimate.interval, color=colour, lw=1.1)


def table(result: dict[str, Any]) -> str:
    """A line a rate and class."""
    lines = [
        encoder_name(result["encoder"]),
        f"{result['masked_pieces']:,} masked pieces: {result['rows']:,} rows at each of "
        f"{len(result['rates'])} rates, of {result['held_out_rows']:,} held-out rows",
        f"{'masked':<8}{'class':<14}{'pieces':>9}{'loss':>8}{'low':>8}{'high':>8}{'neighbours':>12}",
    ]
    for of in (*result["rates"], {"rate": None, **result["all"]}):
        rate = "all" if of["rate"] is None else f"{100 * of['rate']:g} %"
        for name, scores in {"all": of, **of["classes"]}.items():
            values = (scores[key] for key in ("loss", "low", "high", "neighbour_model_loss"))
            shown = ["-" if value is None else f"{value:.3f}" for value in values]
            losses = "".join(f"{value:>8}" for value in shown[:3])
            lines.append(f"{rate:<8}{name:<14}{scores['pieces']:>9,}{losses}{shown[3]:>12}")
    lines.append(
        "loss in nats with its 95 % bootstrap interval over rows; neighbours: the neighbour model "
        "at the same places"
    )
    return "\n".join(lines)
