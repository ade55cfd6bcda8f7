"""Figures and table of probing: accuracy by depth, beside its baselines."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from undivided_tf.reporting.axes import depth_axis, depth_line, depths, kind_marks
from undivided_tf.reporting.formatting import encoder_name
from undivided_tf.reporting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILION,
    drawing,
    legend,
    pattern_marks,
    styles_of,
)

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
            1 + len(further),
            1,
            sharex=True,
            squeeze=False,
            height_ratios=[2] + [1] * len(further),
        )[:, 0]
        top = rows[0]
        if result["low"][0] is not None:
            top.fill_between(across, result["low"], result["high"], color=BLUE, alpha=0.18, lw=0)
        lines = [("accuracy", BLUE, "-"), ("untrained_accuracy", GREY, "--")]
        lines += [("control_accuracy", VERMILION, "-.")] if result["control_accuracy"] else []
        for key, colour, style in lines:
            depth_line(top, taps, result[key], colour, style)
        top.axhline(result["majority_accuracy"], color=GREY, ls=":")
        top.axhline(result["type_majority_accuracy"], color=GREEN, ls=":")
        if result["scalar_mix"]:
            mix = result["scalar_mix"]
            centre = float(np.interp(mix["centre_of_gravity"], range(len(taps)), across))
            top.plot(centre, mix["accuracy"], "*", color=BLACK, ms=11)
        top.set_title(f"{result['task']}: accuracy", loc="left")
        for axes, key in zip(rows[1:], further, strict=True):
            depth_line(axes, taps, result[key], BLUE, "-")
            if key == "compression":
                depth_line(axes, taps, result["untrained_compression"], GREY, "--")
            axes.axhline(0 if key == "selectivity" else 1, color=BLACK, lw=0.8)
            axes.set_title(key, loc="left")
        depth_axis(rows[-1], across[-1], encoder_name(_encoder(result)))
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
        right: list[Artist] = [*kind_marks()]
        if result["low"][0] is not None:
            right.append(Patch(color=BLUE, alpha=0.18, label="95 % interval"))
        if result["scalar_mix"]:
            words = "mix of taps, at its centre"
            right.append(Line2D([], [], color=BLACK, ls="", marker="*", label=words))
        legend(figure, left, right)


def probe_curves(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draws probe accuracy by depth, one panel a task, one line a pattern and seed.

    An attention block stands at its encoder block's number, an intermediate block half a step
    further, so that patterns with the same attention blocks line up.

    Args:
        results: of kind `probing`.
        path: where to write, `.png` or `.svg`.
    """
    tasks = list(dict.fromkeys(result["task"] for result in results))
    styles = styles_of(result["pattern"] for result in results)
    with drawing(path, 2.5 * len(tasks) + 0.4 + 0.2 * max(len(styles), 5)) as figure:
        rows = figure.subplots(len(tasks), 1, squeeze=False, sharex=True)[:, 0]
        for axes, task in zip(rows, tasks, strict=True):
            for result in (result for result in results if result["task"] == task):
                _probe_curve(axes, result, *styles[result["pattern"]])
            axes.set_title(task, loc="left")
            axes.set_ylabel("test accuracy")
        deepest = max(depths(result["taps"])[-1] for result in results)
        depth_axis(rows[-1], deepest)
        legend(
            figure,
            pattern_marks(styles),
            [
                Line2D([], [], color=GREY, label="trained"),
                Line2D([], [], color=GREY, ls="--", lw=1.1, label="untrained twin"),
                Line2D([], [], color=GREY, ls=":", label="majority class"),
                *kind_marks(),
            ],
        )


def _probe_curve(axes: Axes, result: Result, colour: str, marker: str) -> None:
    across = depths(result["taps"])
    axes.axhline(result["majority_accuracy"], color=GREY, ls=":")
    axes.plot(across, result["untrained_accuracy"], color=colour, ls="--", lw=1.1)
    axes.plot(across, result["accuracy"], color=colour)
    for tap, depth, accuracy in zip(result["taps"], across, result["accuracy"], strict=True):
        hollow = tap.endswith("/intermediate")
        axes.plot(depth, accuracy, marker, color=colour, mfc="white" if hollow else colour)


def table(result: Result) -> str:
    """What was measured at each tap, as text."""
    columns = {"accuracy": result["accuracy"]}
    if result["low"][0] is not None:
        columns |= {"low": result["low"], "high": result["high"]}
    columns["untrained"] = result["untrained_accuracy"]
    for name, key in (
        ("control", "control_accuracy"),
        ("select.", "selectivity"),
        ("new types", "new_type_accuracy"),
        ("ambiguous", "ambiguous_type_accuracy"),
        ("compr.", "compression"),
        ("untr. c.", "untrained_compression"),
    ):
        if result.get(key) and any(value is not None for value in result[key]):
            columns[name] = result[key]
    lines = [
        f"{encoder_name(_encoder(result))}, {result['task']}: "
        f"{result['rows']['train']} training {result['unit']}, {result['rows']['test']} of "
        f"{result['split']}, {len(result['seeds'])} seed(s)",
        f"{'tap':<24}" + "".join(f"{name:>10}" for name in columns),
    ]
    for i, tap in enumerate(result["taps"]):
        values = ("-" if of[i] is None else f"{of[i]:.3f}" for of in columns.values())
        lines.append(f"{tap:<24}" + "".join(f"{value:>10}" for value in values))
    lines.append(f"{'majority class':<24}{result['majority_accuracy']:>10.3f}")
    lines.append(f"{'majority of word type':<24}{result['type_majority_accuracy']:>10.3f}")
    if result["scalar_mix"]:
        mix = result["scalar_mix"]
        lines.append(
            f"{'scalar mix':<24}{mix['accuracy']:>10.3f}  centre of gravity "
            f"{mix['centre_of_gravity']:.2f} of {len(result['taps']) - 1}"
        )
    lines.append(
        f"word types of {result['split']} that are in training: {result['seen_type_share']:.1%}; "
        f"rows left out as in training: {result['duplicates_dropped']}, as cut off: "
        f"{result['unseen_words']}"
    )
    if result["unconverged"]:
        lines.append(f"{result['unconverged']} probes stopped before they converged")
    return "\n".join(lines)


def _encoder(result: Result) -> dict[str, Any]:
    return {"pattern": result["pattern"], "seed": result["pretraining_seed"], "trained": True}
