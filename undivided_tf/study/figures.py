"""Figures of results: drawn from the dicts of results.json, the same bytes each time.

All are as wide as a printed column or a phone, so that their letters stay readable there;
every colour comes with a marker or a letter of its own. Needs no TensorFlow and no display.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from undivided_tf.metrics.inference import summarize
from undivided_tf.study import numbers as writing
from undivided_tf.study.axes import depths, letter_size, mark_kinds
from undivided_tf.study.cost_figures import quality_against_cost as quality_against_cost
from undivided_tf.study.looks import (
    BLACK,
    FONT,
    GREY,
    KINDS,
    drawing,
    legend,
    looks,
    pattern_marks,
)
from undivided_tf.study.pairs import encoder_name
from undivided_tf.study.results import MEASURE_NAMES, primary

Result = dict[str, Any]


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
        marks = [
            Patch(color=colour, label=f"{letter}: {kind} block")
            for kind, (letter, colour) in KINDS.items()
        ]
        values = np.concatenate([_matrix(result).ravel() for result in results])
        if np.isnan(values).any():
            marks.append(Patch(facecolor="white", edgecolor=GREY, hatch="////", label="undefined"))
        if (values < 0).any():
            marks.append(Line2D([], [], ls="", marker="_", color=BLACK, label="negative"))
        figure.legend(handles=marks, loc="outside lower center", ncols=2)


def _matrix(result: Result) -> np.ndarray:
    return np.array(
        [[np.nan if value is None else value for value in row] for row in result["matrix"]]
    )


def _heat_map(axes: Axes, result: Result) -> Any:
    matrix = _matrix(result)
    axes.grid(False)
    # Bright is alike: a distance is 0 there, at most 2 for activations of unit norm.
    distance = result.get("is_distance", False)
    image = axes.imshow(
        np.ma.masked_invalid(matrix), cmap="cividis_r" if distance else "cividis", vmin=0,
        vmax=2 if distance else 1, aspect="auto",
    )  # fmt: skip
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


def probe_curves(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draws probe accuracy by depth, one panel a task, one line a pattern and seed.

    An attention block stands at its encoder block's number, an intermediate block half a step
    further, so that patterns with the same attention blocks line up.

    Args:
        results: of kind `probing`.
        path: where to write, `.png` or `.svg`.
    """
    tasks = list(dict.fromkeys(result["task"] for result in results))
    styles = looks(result["pattern"] for result in results)
    with drawing(path, 2.5 * len(tasks) + 0.4 + 0.2 * max(len(styles), 5)) as figure:
        rows = figure.subplots(len(tasks), 1, squeeze=False, sharex=True)[:, 0]
        for axes, task in zip(rows, tasks, strict=True):
            for result in (result for result in results if result["task"] == task):
                _probe_curve(axes, result, *styles[result["pattern"]])
            axes.set_title(task, loc="left")
            axes.set_ylabel("test accuracy")
        deepest = max(depths(result["taps"])[-1] for result in results)
        # At most ten numbers, so that those of deep encoders do not run into each other.
        numbers = range(1, int(deepest) + 1, -(-int(deepest) // 10))
        rows[-1].set_xticks([0, *numbers], ["emb", *(str(number - 1) for number in numbers)])
        rows[-1].set_xlabel("encoder block")
        legend(
            figure,
            pattern_marks(styles),
            [
                Line2D([], [], color=GREY, label="trained"),
                Line2D([], [], color=GREY, ls="--", lw=1.1, label="untrained twin"),
                Line2D([], [], color=GREY, ls=":", label="majority class"),
                Line2D([], [], color=GREY, ls="", marker="o", label="attention block"),
                Line2D([], [], color=GREY, ls="", marker="o", mfc="white", label="intermediate"),
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


def loss_curves(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draws MLM loss over steps: held-out with markers, training thin, reference lines.

    Dashed is the unigram entropy, which a model that ignores its input cannot beat; dotted, where
    it is known, the loss of the neighbour model, which one that has learnt from its context is
    below. The fall of the first steps, from above the upper edge, is left out.

    Args:
        results: of kind `pretraining`.
        path: where to write, `.png` or `.svg`.
    """
    styles = looks(result["pattern"] for result in results)
    with drawing(path, 3.0 + 0.2 * max(len(styles), 2)) as figure:
        axes = figure.subplots()
        for result in results:
            colour, marker = styles[result["pattern"]]
            training = result["training_history"]
            axes.plot(
                [point["step"] for point in training],
                [point["loss"] for point in training],
                color=colour, alpha=0.35, lw=0.8,
            )  # fmt: skip
            held_out = result["validation_history"]
            axes.plot(
                [point["step"] for point in held_out],
                [point["loss"] for point in held_out],
                color=colour, marker=marker, markevery=-(-len(held_out) // 12),
            )  # fmt: skip
        neighbours = {
            loss
            for result in results
            if (loss := result.get("validation", {}).get("neighbour_model_loss")) is not None
        }
        entropies = {result["unigram_entropy"] for result in results}
        # Curves fall from the upper left to the lower right, and leave these corners free.
        for name, style, values, side in (
            ("unigram entropy", "--", entropies, "right"),
            ("neighbour model", ":", neighbours, "left"),
        ):
            for value in sorted({round(value, 3) for value in values}):
                axes.axhline(value, color=BLACK, ls=style, lw=1.1)
                axes.annotate(
                    f"{name} {value:.3f}",
                    (side == "right", value), (-2 if side == "right" else 2, 3),
                    xycoords=("axes fraction", "data"), textcoords="offset points",
                    ha=side, va="bottom",
                )  # fmt: skip
        held_out = [point["loss"] for result in results for point in result["validation_history"]]
        entropy = max(result["unigram_entropy"] for result in results)
        top = min(max(*held_out, entropy), entropy + max(0.5, entropy - min(held_out)))
        bottom = min(axes.dataLim.y0, entropy, *neighbours)
        axes.set_ylim(bottom - 0.05 * (top - bottom), top + 0.1 * (top - bottom))
        axes.set_xlabel("training step")
        axes.set_ylabel("MLM loss (nats)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend(
            figure,
            pattern_marks(styles),
            [
                Line2D([], [], color=GREY, marker="o", label="held-out"),
                Line2D([], [], color=GREY, alpha=0.5, lw=0.8, label="training"),
            ],
        )


def context_curves(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draws the loss at masked places by the distance beyond which pieces are hidden.

    Behind the distances stand all context and, hollow, all pieces of a row in random order. A
    dotted line is the neighbour model at the same places.

    Args:
        results: of kind `pretraining`, with `context_use`.
        path: where to write, `.png` or `.svg`.
    """
    styles = looks(result["pattern"] for result in results)
    found = [result["context_use"] for result in results]
    distances = sorted({one["distance"] for used in found for one in used["hidden_beyond"]})
    places = {k: place for place, k in enumerate(distances)}
    last = len(distances)
    with drawing(path, 2.7 + 0.2 * max(len(styles), 2)) as figure:
        axes = figure.subplots()
        for result, used in zip(results, found, strict=True):
            colour, marker = styles[result["pattern"]]
            curve = [(places[one["distance"]], one["loss"]) for one in used["hidden_beyond"]]
            across, losses = zip(*curve, (last, used["loss"]), strict=True)
            axes.plot(across, losses, color=colour, marker=marker)
            axes.plot(
                last + 1, used["shuffled"]["loss"], marker, color=colour, mfc="white", ls=""
            )  # fmt: skip
        for loss in sorted({round(used["neighbour_model_loss"], 3) for used in found}):
            axes.axhline(loss, color=BLACK, ls=":", lw=1.1)
            axes.annotate(
                f"neighbour model {loss:.3f}",
                (0, loss), (2, 3), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="left", va="bottom",
            )  # fmt: skip
        axes.set_xticks(range(last + 2), [*map(str, distances), "all", "shuffled"])
        axes.set_xlabel("pieces visible on either side of the masked one")
        axes.set_ylabel("MLM loss (nats)")
        legend(figure, pattern_marks(styles), [])


def task_scores(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draws the test score, one panel a task: every run a dot, pre-trained above from scratch.

    The bar is the mean with its 95 % interval, over encoders when a pattern has several
    pre-training seeds (runs of one encoder are not independent), else over runs.

    Args:
        results: of kind `finetuning`.
        path: where to write, `.png` or `.svg`.
    """
    tasks = list(dict.fromkeys(result["task"] for result in results))
    styles = looks(result["pattern"] for result in results)
    patterns = list(styles)
    with drawing(path, (0.75 + 0.42 * len(patterns)) * len(tasks) + 0.5) as figure:
        rows = figure.subplots(len(tasks), 1, squeeze=False)[:, 0]
        for axes, task in zip(rows, tasks, strict=True):
            here = [result for result in results if result["task"] == task]
            for place, pattern in enumerate(patterns):
                for start, shift in (("pretrained", -0.17), ("scratch", 0.17)):
                    of_pattern = [
                        [run[result["split"]][primary(result)] for run in result["runs"]]
                        for result in here
                        if result["pattern"] == pattern and result["start"] == start
                    ]
                    hollow = start == "scratch"
                    _score_row(axes, place + shift, of_pattern, *styles[pattern], hollow)
            _majority(axes, here[0]["majority"][here[0]["split"]])
            axes.set_yticks(range(len(patterns)), patterns)
            axes.set_ylim(len(patterns) - 0.5, -0.5)
            axes.grid(False, axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(6))
            metric = writing.metric(primary(here[0]))
            axes.set_title(task if metric == "accuracy" else f"{task}: {metric}", loc="left")
        rows[-1].set_xlabel("test accuracy" if metric == "accuracy" else "test score")
        marks = [
            Line2D([], [], color=GREY, ls="", marker="o", label="pre-trained"),
            Line2D([], [], color=GREY, ls="", marker="o", mfc="white", label="from scratch"),
            Line2D([], [], color=BLACK, ls=":", lw=1.1, label="majority"),
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=3, columnspacing=1)


def _majority(axes: Axes, accuracy: float) -> None:
    """A line; in words when it lies so far off that it would squeeze all else together."""
    low, high = axes.get_xlim()
    if low - (high - low) < accuracy < high + (high - low):
        axes.axvline(accuracy, color=BLACK, ls=":", lw=1.1)
    else:
        arrow = "\N{LEFTWARDS ARROW}" if accuracy < low else "\N{RIGHTWARDS ARROW}"
        axes.set_title(f"{arrow} majority {accuracy:.3f}", loc="right", size=FONT)


def _score_row(
    axes: Axes, place: float, runs: list[list[float]], colour: str, marker: str, hollow: bool
) -> None:
    every = [score for encoder in runs for score in encoder]
    if not every:
        return
    summary = summarize([np.mean(encoder) for encoder in runs] if len(runs) > 1 else every)
    if summary["low"] is not None:
        axes.plot([summary["low"], summary["high"]], [place] * 2, color=colour, lw=1.2)
    axes.plot(summary["mean"], place, "|", color=colour, ms=11, mew=1.8)
    axes.plot(
        every, [place] * len(every), marker, color=colour, ls="", ms=4.5, alpha=0.75,
        mfc="white" if hollow else colour,
    )  # fmt: skip


COSTS = (
    ("parameters", "parameters"),
    ("forward_flops", "forward FLOPs"),
    ("step_milliseconds", "step time"),
    ("peak_memory_bytes", "peak memory"),
)


def cost_bars(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draws parameters, FLOPs, step time and peak memory relative to the first pattern.

    Args:
        results: of kind `pretraining`; the first one's pattern is the reference. Several seeds
            of a pattern are averaged.
        path: where to write, `.png` or `.svg`.
    """
    styles = looks(result["pattern"] for result in results)
    patterns = list(styles)
    with drawing(path, 0.9 + len(COSTS) * (0.2 + 0.24 * len(patterns))) as figure:
        axes = figure.subplots()
        thickness = 0.84 / len(patterns)
        for group, (key, _) in enumerate(COSTS):
            means = {
                pattern: np.mean([r[key] for r in results if r["pattern"] == pattern])
                for pattern in patterns
            }
            for i, pattern in enumerate(patterns):
                ratio = means[pattern] / means[patterns[0]]
                place = group + (i - (len(patterns) - 1) / 2) * thickness
                axes.barh(place, ratio, 0.9 * thickness, color=styles[pattern][0])
                axes.text(ratio + 0.01, place, f"{ratio:.2f}", va="center", size=FONT - 1)
        axes.axvline(1, color=BLACK, lw=0.8)
        axes.set_yticks(range(len(COSTS)), [name for _, name in COSTS])
        axes.set_ylim(len(COSTS) - 0.5, -0.5)
        axes.margins(x=0.1)
        axes.grid(False, axis="y")
        axes.set_xlabel(f"relative to {patterns[0]}")
        marks = [Patch(color=colour, label=pattern) for pattern, (colour, _) in styles.items()]
        figure.legend(handles=marks, loc="outside lower center", ncols=min(3, len(marks)))
