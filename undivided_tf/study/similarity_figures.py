"""Figures of one comparison of two encoders: similarity by depth, and where the two differ."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from undivided_tf.study.axes import depths, mark_kinds
from undivided_tf.study.looks import (
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
from undivided_tf.study.pairs import encoder_name
from undivided_tf.study.results import MEASURE_NAMES

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
        numbers = range(1, int(deepest) + 1, -(-int(deepest) // 10))
        axes.set_xticks([0, *numbers], ["emb", *(str(number - 1) for number in numbers)])
        axes.set_xlabel(f"encoder block of {encoder_name(result['first'])}")
        axes.set_ylabel(MEASURE_NAMES[result.get("measure", "cka")])
        axes.set_title(f"against {encoder_name(result['second'])}", loc="left")
        left = [
            Line2D([], [], color=colour, marker=marker, ls=style, label=words)
            for _, words, colour, marker, style in lines
        ]
        right = [
            Line2D([], [], color=GREY, ls="", marker="o", label="attention block"),
            Line2D([], [], color=GREY, ls="", marker="o", mfc="white", label="intermediate"),
        ]
        if result["low"]:
            right.append(Patch(color=BLUE, alpha=0.18, label="95 % interval"))
        if result["without_high_norm"]:
            share = result["without_high_norm"]["share"]
            words = f"without {share:.0%} highest norms"
            right.append(Line2D([], [], color=BLACK, ls="-.", lw=1, label=words))
        legend(figure, left, right)


def _at(matrix: Sequence[Sequence[float | None]], places: Sequence[tuple[int, int]]) -> list[float]:
    values = [matrix[i][j] for i, j in places]
    return [np.nan if value is None else value for value in values]


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
        marks = [
            Patch(color=colour, label=f"{letter}: {kind} block")
            for kind, (letter, colour) in KINDS.items()
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=2)
