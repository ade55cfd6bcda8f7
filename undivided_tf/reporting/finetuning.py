"""Table and figure of fine-tuning: every run's score beside the majority class."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from undivided_tf.metrics.inference import summarize
from undivided_tf.reporting import formatting
from undivided_tf.reporting.formatting import primary
from undivided_tf.reporting.style import BLACK, FONT, GREY, drawing, styles_of

Result = dict[str, Any]


def task_scores(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draws the test score, one panel a task: every run a dot, pre-trained above from scratch.

    The bar is the mean with its 95 % interval, over encoders when a pattern has several
    pre-training seeds (runs of one encoder are not independent), else over runs.

    Args:
        results: of kind `finetuning`.
        path: where to write, `.png` or `.svg`.
    """
    tasks = list(dict.fromkeys(result["task"] for result in results))
    styles = styles_of(result["pattern"] for result in results)
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
            metric = formatting.metric(primary(here[0]))
            axes.set_title(task if metric == "accuracy" else f"{task}: {metric}", loc="left")
        rows[-1].set_xlabel("test accuracy" if metric == "accuracy" else "test score")
        marks = [
            Line2D([], [], color=GREY, ls="", marker="o", label="pre-trained"),
            Line2D([], [], color=GREY, ls="", marker="o", mfc="white", label="from scratch"),
            Line2D([], [], color=BLACK, ls=":", lw=1.1, label="majority"),
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=3, columnspacing=1)


def _majority(axes: Axes, accuracy: float) -> None:
    """Draws the majority class as a line, or names it if it is too far from the scores."""
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
        every,
        [place] * len(every),
        marker,
        color=colour,
        ls="",
        ms=4.5,
        alpha=0.75,
        mfc="white" if hollow else colour,
    )


def table(results: Result) -> str:
    """What a run prints: mean and interval of every metric over its runs."""
    lines = [f"{results['task']}, {results['pattern']}, {results['start']}"]
    for split, majority in results["majority"].items():
        for metric in results["runs"][0][split]:
            estimate = formatting.estimate(run[split][metric] for run in results["runs"])
            interval = ""
            if estimate.interval:
                interval = ", 95 % interval {:.4f} to {:.4f}".format(*estimate.interval)
            lines.append(f"  {split} {metric}: mean {estimate.mean:.4f}, n {estimate.n}{interval}")
        lines.append(f"  {split} {results['primary']} of a constant answer: {majority:.4f}")
    return "\n".join(lines)
