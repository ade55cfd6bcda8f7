"""Figures and table of a comparison of two encoders: similarity by taps and by depth."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from undivided_tf.reporting.axes import (
    depth_axis,
    depths,
    kind_marks,
    letter_size,
    mark_kinds,
    short_name,
)
from undivided_tf.reporting.formatting import MEASURE_NAMES, encoder_name
from undivided_tf.reporting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    KINDS,
    ORANGE,
    PURPLE,
    drawing,
    legend,
)

Result = dict[str, Any]

# Reference, its words, and how its line looks; each has a marker of its own beside its colour.
REFERENCES = (
    ("other_seed", "first, another seed", GREEN, "^", "-"),
    ("untrained", "first, untrained second", ORANGE, "D", "--"),
    ("other_sample", "another sample", PURPLE, "v", ":"),
    ("shuffled", "shuffled examples", GREY, "x", ":"),
)


def matched(first_taps: Sequence[str], second_taps: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the taps that stand for each other in two patterns.

    The embeddings; the i-th attention block of the one and that of the other; and intermediate
    blocks of the same name.
    """
    pairs = [(0, 0)]
    attention = [
        [i for i, tap in enumerate(taps) if tap.endswith("/attention")]
        for taps in (first_taps, second_taps)
    ]
    pairs += zip(*attention, strict=False)
    pairs += [
        (i, second_taps.index(tap))
        for i, tap in enumerate(first_taps)
        if tap.endswith("/intermediate") and tap in second_taps
    ]
    return sorted(pairs)


def depth_lines(result: Result, path: str | os.PathLike) -> None:
    """Draws the similarity of matched taps by depth, beside the reference lines.

    Args:
        result: of kind `cka`.
        path: where to write, `.png` or `.svg`.
    """
    lines = [("", "the two encoders", BLUE, "o", "-")]
    lines += [line for line in REFERENCES if line[0] in result["references"]]
    with drawing(path, 3.5 + 0.1 * len(lines)) as figure:
        axes = figure.subplots()
        deepest = 0.0
        for name, _, colour, marker, style in lines:
            shown = result["references"][name] if name else result
            places = matched(result["first_taps"], shown["second_taps"])
            taps = [result["first_taps"][i] for i, _ in places]
            across = depths(taps)
            deepest = max(deepest, across[-1])
            values = _at(shown["matrix"], places)
            if shown["low"]:
                low, high = _at(shown["low"], places), _at(shown["high"], places)
                axes.fill_between(across, low, high, color=colour, alpha=0.18, lw=0)
            axes.plot(across, values, color=colour, ls=style, lw=2 if not name else 1.2)
            for x, y, tap in zip(across, values, taps, strict=True):
                face = "white" if tap.endswith("/intermediate") else colour
                axes.plot(x, y, marker, color=colour, mfc=face)
        if result["without_high_norm"]:
            places = matched(result["first_taps"], result["second_taps"])
            values = _at(result["without_high_norm"]["matrix"], places)
            across = depths([result["first_taps"][i] for i, _ in places])
            axes.plot(across, values, color=BLACK, ls="-.", lw=1)
        axes.axhline(0, color=GREY, lw=0.8)
        depth_axis(axes, deepest, encoder_name(result["first"]))
        axes.set_ylabel(MEASURE_NAMES[result.get("measure", "cka")])
        axes.set_title(f"against {encoder_name(result['second'])}", loc="left")
        left = [
            Line2D([], [], color=colour, marker=marker, ls=style, label=words)
            for _, words, colour, marker, style in lines
        ]
        right: list[Artist] = [*kind_marks()]
        if result["low"]:
            right.append(Patch(color=BLUE, alpha=0.18, label="95 % interval"))
        if result["without_high_norm"]:
            share = result["without_high_norm"]["share"]
            words = f"without {share:.0%} highest norms"
            right.append(Line2D([], [], color=BLACK, ls="-.", lw=1, label=words))
        legend(figure, left, right)


def _at(matrix: Sequence[Sequence[float | None]], places: Sequence[tuple[int, int]]) -> list[float]:
    """The values at some places, NaN where undefined."""
    return [np.nan if matrix[i][j] is None else matrix[i][j] for i, j in places]


def _kind_patches() -> list[Patch]:
    return [
        Patch(color=colour, label=f"{letter}: {kind} block")
        for kind, (letter, colour) in KINDS.items()
    ]


def difference_map(result: Result, path: str | os.PathLike) -> None:
    """Draws how far the similarities among the taps of one encoder differ from the other's.

    Both encoders are compared with themselves; what is shown is the first's matrix less the
    second's, at the taps that both patterns have.

    Args:
        result: of kind `cka`.
        path: where to write, `.png` or `.svg`.
    """
    places = matched(result["first_taps"], result["second_taps"])
    first, second = (
        np.array(result[key], np.float64)[np.ix_(chosen, chosen)]
        for key, chosen in zip(
            ("within_first", "within_second"), zip(*places, strict=True), strict=True
        )
    )
    difference = first - second
    reach = max(0.1, np.nanmax(np.abs(difference), initial=0.0))
    with drawing(path, 4.6) as figure:
        axes = figure.subplots()
        axes.grid(False)
        image = axes.imshow(
            np.ma.masked_invalid(difference), cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto"
        )
        taps = [result["first_taps"][i] for i, _ in places]
        mark_kinds(axes, taps, taps)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, aspect=25, pad=0.02)
        bar.set_label(f"difference of {MEASURE_NAMES[result.get('measure', 'cka')]}")
        bar.outline.set_visible(False)
        axes.set_title(
            f"{encoder_name(result['first'])}\nless {encoder_name(result['second'])}", loc="left"
        )
        figure.legend(handles=_kind_patches(), loc="outside lower center", ncols=2)


def cka_heat_map(results: Result | Sequence[Result], path: str | os.PathLike) -> None:
    """Draws CKA of all pairs of taps; several results come below each other on one scale.

    The scale runs from 0 to 1. A negative estimate has the colour of 0 and a minus sign, an
    undefined one is hatched.

    Args:
        results: one result of kind `cka`, or several.
        path: where to write, `.png` or `.svg`.
    """
    results = [results] if isinstance(results, dict) else list(results)
    with drawing(path, 4.0 * len(results) + 0.5) as figure:
        rows = figure.subplots(len(results), 1, squeeze=False)[:, 0]
        for axes, result in zip(rows, results, strict=True):
            image = _heat_map(axes, result)
        bar = figure.colorbar(image, ax=list(rows), shrink=0.9 / len(results), aspect=25, pad=0.02)
        bar.set_label(MEASURE_NAMES[results[0].get("measure", "cka")])
        bar.outline.set_visible(False)
        marks: list[Artist] = [*_kind_patches()]
        values = np.concatenate([_matrix(result).ravel() for result in results])
        if np.isnan(values).any():
            marks.append(Patch(facecolor="white", edgecolor=GREY, hatch="////", label="undefined"))
        if (values < 0).any():
            marks.append(Line2D([], [], ls="", marker="_", color=BLACK, label="negative"))
        figure.legend(handles=marks, loc="outside lower center", ncols=2)


def _matrix(result: Result) -> np.ndarray:
    return np.array(result["matrix"], np.float64)  # None becomes NaN.


def _heat_map(axes: Axes, result: Result) -> Any:
    matrix = _matrix(result)
    axes.grid(False)
    # Bright is alike: a distance is 0 there, at most 2 for activations of unit norm.
    distance = result.get("is_distance", False)
    image = axes.imshow(
        np.ma.masked_invalid(matrix),
        cmap="cividis_r" if distance else "cividis",
        vmin=0,
        vmax=2 if distance else 1,
        aspect="auto",
    )
    for row, column in np.argwhere(np.isnan(matrix)):
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fc="white", ec=GREY, hatch="////", lw=0)
        )
    size = letter_size(result["first_taps"], result["second_taps"])
    for row, column in np.argwhere(matrix < 0):
        axes.text(column, row, "\N{MINUS SIGN}", color="white", ha="center", va="center", size=size)
    mark_kinds(axes, result["first_taps"], result["second_taps"])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(encoder_name(result["second"]))
    axes.set_ylabel(encoder_name(result["first"]))
    return image


def _cells(result: Result) -> str:
    """The matrix as text: rows are taps of the first encoder, columns those of the second."""
    names = [short_name(tap) for tap in result["second_taps"]]
    lines = [
        f"rows: {encoder_name(result['first'])}",
        f"columns: {encoder_name(result['second'])}",
        f"{result['estimator']}; {result['tokens']} tokens of {result['examples']} examples",
        " ".join(["     ", *(f"{name:>5}" for name in names)]),
    ]
    for tap, row in zip(result["first_taps"], result["matrix"], strict=True):
        values = ("  nan" if value is None else f"{value:5.2f}" for value in row)
        lines.append(" ".join([f"{short_name(tap):<5}", *values]))
    if result["negative"]:
        lines.append(f"{result['negative']} estimates are negative, and stand as they are")
    return "\n".join([*lines, *sorted(set(result["reasons"].values()))])


def _references(result: Result) -> str:
    """The mean over matched taps, beside that of every reference line."""

    def mean(shown: Result, key="matrix") -> str:
        places = matched(result["first_taps"], shown.get("second_taps", result["second_taps"]))
        values = [shown[key][i][j] for i, j in places]
        known = [value for value in values if value is not None]
        return f"{sum(known) / len(known):6.3f}" if known else "   nan"

    lines = [f"mean over matched taps {mean(result)}"]
    lines += [f"  {name:<20} {mean(shown)}" for name, shown in result["references"].items()]
    if result["without_high_norm"]:
        lines.append(f"  {'without_high_norm':<20} {mean(result['without_high_norm'])}")
    lines += [f"  {name}: {why}" for name, why in result["absent_references"].items()]
    return "\n".join(lines)


def table(result: Result) -> str:
    """What a run prints: the matrix, then the mean over matched taps beside its references."""
    return f"{_cells(result)}\n{_references(result)}"
