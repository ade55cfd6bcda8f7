"""Figure of quality against cost: which encoder is best for what it takes."""

import os
from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D

from undivided_tf.study.frame_tables import COSTS
from undivided_tf.study.looks import GREY, drawing, legend, looks, pattern_marks


def quality_against_cost(points: Sequence[dict[str, Any]], path: str | os.PathLike) -> None:
    """Draws the score on a task over parameters, training FLOPs, training time and latency.

    The first point is the full model: dotted lines mark its score and cost. The grey line joins
    what nothing else surpasses at no more cost.

    Args:
        points: see `frame_tables.quality`; the first one is the reference at equal steps.
        path: where to write, `.png` or `.svg`.
    """
    styles = looks(point["pattern"] for point in points)
    with drawing(path, 1.8 * len(COSTS) + 0.2 * (-(-len(styles) // 2) + 1)) as figure:
        for axes, (key, name) in zip(figure.subplots(len(COSTS), 1), COSTS, strict=True):
            axes.axvline(points[0][key], color=GREY, ls=":", lw=0.9)
            axes.axhline(points[0]["score"], color=GREY, ls=":", lw=0.9)
            best = frontier([(point[key], point["score"]) for point in points])
            axes.plot(*zip(*best, strict=True), color=GREY, lw=0.9, drawstyle="steps-post")
            for point in points:
                colour, marker = styles[point["pattern"]]
                hollow = point["frame"] != "steps"
                axes.plot(
                    point[key], point["score"], marker, color=colour,
                    mfc="white" if hollow else colour,
                )  # fmt: skip
            axes.set_xlabel(name)
            axes.set_ylabel("score")
        legend(
            figure,
            pattern_marks(styles),
            [
                Line2D([], [], color=GREY, ls="", marker="o", label="equal steps"),
                Line2D([], [], color=GREY, ls="", marker="o", mfc="white", label="other frame"),
                Line2D([], [], color=GREY, ls=":", label="the full model"),
                Line2D([], [], color=GREY, label="not surpassed"),
            ],
        )


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other surpasses in score at no more cost, by rising cost."""
    best: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or score > best[-1][1]:
            best.append((cost, score))
    return best
