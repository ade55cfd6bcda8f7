"""Figures and table of pre-training: loss, use of context, cost, and quality against cost."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from undivided_tf.reporting.style import (
    BLACK,
    FONT,
    GREY,
    drawing,
    legend,
    pattern_marks,
    styles_of,
)

Result = dict[str, Any]

# What quality is set against: metrics of pre-training, and their names.
COSTS = (
    ("parameters", "parameters"),
    ("training_flops", "training FLOPs"),
    ("training_seconds", "training time, s"),
    ("latency_milliseconds", "forward pass of one text, ms"),
)


def quality_against_cost(points: Sequence[dict[str, Any]], path: str | os.PathLike) -> None:
    """Draws the score on a task over parameters, training FLOPs, training time and latency.

    The first point is the full model: dotted lines mark its score and cost. The grey line joins
    what nothing else surpasses at no more cost.

    Args:
        points: `pattern`, `budget`, `score` and what `COSTS` names; the first one
            is the reference at equal steps.
        path: where to write, `.png` or `.svg`.
    """
    styles = styles_of(point["pattern"] for point in points)
    with drawing(path, 1.8 * len(COSTS) + 0.2 * (-(-len(styles) // 2) + 1)) as figure:
        for axes, (key, name) in zip(figure.subplots(len(COSTS), 1), COSTS, strict=True):
            axes.axvline(points[0][key], color=GREY, ls=":", lw=0.9)
            axes.axhline(points[0]["score"], color=GREY, ls=":", lw=0.9)
            best = frontier([(point[key], point["score"]) for point in points])
            axes.plot(*zip(*best, strict=True), color=GREY, lw=0.9, drawstyle="steps-post")
            for point in points:
                colour, marker = styles[point["pattern"]]
                hollow = point["budget"] != "steps"
                axes.plot(
                    point[key],
                    point["score"],
                    marker,
                    color=colour,
                    mfc="white" if hollow else colour,
                )
            axes.set_xlabel(name)
            axes.set_ylabel("score")
        legend(
            figure,
            pattern_marks(styles),
            [
                Line2D([], [], color=GREY, ls="", marker="o", label="equal steps"),
                Line2D([], [], color=GREY, ls="", marker="o", mfc="white", label="other budget"),
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


def loss_curves(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draws MLM loss over steps: held-out with markers, training thin, reference lines.

    Dashed is the unigram entropy, which a model that ignores its input cannot beat; dotted, where
    it is known, the loss of the neighbour model, which one that has learnt from its context is
    below. The fall of the first steps, from above the upper edge, is left out.

    Args:
        results: of kind `pretraining`.
        path: where to write, `.png` or `.svg`.
    """
    styles = styles_of(result["pattern"] for result in results)
    with drawing(path, 3.0 + 0.2 * max(len(styles), 2)) as figure:
        axes = figure.subplots()
        for result in results:
            colour, marker = styles[result["pattern"]]
            training = result["training_history"]
            axes.plot(
                [point["step"] for point in training],
                [point["loss"] for point in training],
                color=colour,
                alpha=0.35,
                lw=0.8,
            )
            held_out = result["validation_history"]
            axes.plot(
                [point["step"] for point in held_out],
                [point["loss"] for point in held_out],
                color=colour,
                marker=marker,
                markevery=-(-len(held_out) // 12),
            )
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
                    (side == "right", value),
                    (-2 if side == "right" else 2, 3),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    ha=side,
                    va="bottom",
                )
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
    styles = styles_of(result["pattern"] for result in results)
    context_uses = [result["context_use"] for result in results]
    distances = sorted(
        {point["distance"] for used in context_uses for point in used["hidden_beyond"]}
    )
    places = {k: place for place, k in enumerate(distances)}
    last = len(distances)
    with drawing(path, 2.7 + 0.2 * max(len(styles), 2)) as figure:
        axes = figure.subplots()
        for result, used in zip(results, context_uses, strict=True):
            colour, marker = styles[result["pattern"]]
            curve = [(places[point["distance"]], point["loss"]) for point in used["hidden_beyond"]]
            across, losses = zip(*curve, (last, used["loss"]), strict=True)
            axes.plot(across, losses, color=colour, marker=marker)
            axes.plot(last + 1, used["shuffled"]["loss"], marker, color=colour, mfc="white", ls="")
        for loss in sorted({round(used["neighbour_model_loss"], 3) for used in context_uses}):
            axes.axhline(loss, color=BLACK, ls=":", lw=1.1)
            axes.annotate(
                f"neighbour model {loss:.3f}",
                (0, loss),
                (2, 3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="left",
                va="bottom",
            )
        axes.set_xticks(range(last + 2), [*map(str, distances), "all", "shuffled"])
        axes.set_xlabel("pieces visible on either side of the masked one")
        axes.set_ylabel("MLM loss (nats)")
        legend(figure, pattern_marks(styles), [])


BARS = (
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
    styles = styles_of(result["pattern"] for result in results)
    patterns = list(styles)
    with drawing(path, 0.9 + len(BARS) * (0.2 + 0.24 * len(patterns))) as figure:
        axes = figure.subplots()
        thickness = 0.84 / len(patterns)
        for group, (key, _) in enumerate(BARS):
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
        axes.set_yticks(range(len(BARS)), [name for _, name in BARS])
        axes.set_ylim(len(BARS) - 0.5, -0.5)
        axes.margins(x=0.1)
        axes.grid(False, axis="y")
        axes.set_xlabel(f"relative to {patterns[0]}")
        marks = [Patch(color=colour, label=pattern) for pattern, (colour, _) in styles.items()]
        figure.legend(handles=marks, loc="outside lower center", ncols=min(3, len(marks)))


def figures(results: Result) -> dict[str, Callable[[Result, str | os.PathLike], None]]:
    """What a run draws, by file name: losses over steps and, where it was measured, context use."""

    def alone(draw: Callable) -> Callable[[Result, str | os.PathLike], None]:
        return lambda result, path: draw([result], path)

    drawn = {"loss": alone(loss_curves)}
    return drawn | ({"context_use": alone(context_curves)} if results.get("context_use") else {})


def table(results: Result) -> str:
    """What a run prints: its size, its losses, and whether it has learnt from its context."""
    from undivided_tf.training import context_use, learning  # Late: brings TensorFlow.

    validation, context = results["validation"], results.get("context_use")
    lines = [
        f"{results['pattern']}: {results['parameters']:,} parameters, {results['steps']:,} steps",
        f"held-out loss {validation['loss']:.3f} nats, accuracy {validation['accuracy']:.3f} on "
        f"{validation['masked_tokens']:,} masked tokens "
        f"(unigram entropy {results['unigram_entropy']:.3f})",
    ]
    for branch in results.get("branches", [])[:-1]:  # Older releases had none.
        loss = branch["validation"]["loss"]
        lines.append(f"cooled down at step {branch['steps']:,}: held-out loss {loss:.3f} nats")
    for words, name in (("states", "hidden_loss"), ("answers", "logits_loss")):
        if name in validation:
            lines.append(f"{words} differ from the teacher's by {validation[name]:.4f}")
    if verdict := learning.verdict(validation):
        lines += [verdict] if validation["learnt"] else [verdict, learning.ADVICE]
    return "\n".join([*lines, *(context_use.lines(context) if context else ())])
