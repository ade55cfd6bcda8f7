"""Figure and table of the two synthetic corpora: facts to store, and values to copy."""

import os
import statistics
from collections.abc import Sequence
from typing import Any

from undivided_tf.reporting.style import drawing, legend, pattern_marks, styles_of


def corpora(encoders: Sequence[dict[str, Any]], path: str | os.PathLike) -> None:
    """Draws bits stored per block parameter by number of facts, and accuracy of copying by step.

    Args:
        encoders: as in results of kind `mechanism`.
        path: where to write, `.png` or `.svg`.
    """
    styles = styles_of(encoder["pattern"] for encoder in encoders)
    with drawing(path, 5.6 + 0.2 * len(styles)) as figure:
        upper, lower = figure.subplots(2, 1)
        numbers = sorted({of["num_facts"] for encoder in encoders for of in encoder["facts"]})
        for encoder in encoders:
            colour, marker = styles[encoder["pattern"]]
            storage = [
                (of["num_facts"], [bits / encoder["block_parameters"] for bits in of["bits"]])
                for of in encoder["facts"]
            ]
            across = [number for number, _ in storage]
            means = [statistics.fmean(values) for _, values in storage]
            upper.plot(across, means, color=colour, marker=marker)
            low, high = ([pick(values) for _, values in storage] for pick in (min, max))
            upper.fill_between(across, low, high, color=colour, alpha=0.2, lw=0)
            curve = encoder["copying"]["curve"]
            steps = [point["step"] for point in curve]
            accuracy = [point["accuracy"] for point in curve]
            lower.plot(
                steps, accuracy, color=colour, marker=marker, markevery=max(1, len(steps) // 8)
            )
        upper.set_xticks(numbers, [f"{number:,}" for number in numbers])
        upper.set_ylim(bottom=0)
        upper.set_xlabel("facts")
        upper.set_ylabel("bits stored\na block parameter")
        lower.set_ylim(-0.02, 1.02)
        lower.set_xlabel("training step")
        lower.set_ylabel("values copied\nfrom new sequences")
        legend(figure, pattern_marks(styles), [])


def table(result: dict[str, Any]) -> str:
    """A line a pattern and number of facts, then a line a pattern for copying."""
    lines = [
        f"facts of {result['bits_per_fact']:g} bits, stored",
        f"{'pattern':<12}{'parameters':>11}{'in blocks':>11}{'facts':>8}{'bits':>10}{'share':>8}"
        f"{'per block':>11}{'per any':>9}{'rate':>9}",
    ]
    for encoder in result["encoders"]:
        for of in encoder["facts"]:
            bits = statistics.fmean(of["bits"])
            share = bits / (of["num_facts"] * result["bits_per_fact"])
            per_block = bits / encoder["block_parameters"] if encoder["block_parameters"] else 0
            lines.append(
                f"{encoder['pattern']:<12}{encoder['parameters']:>11,}"
                f"{encoder['block_parameters']:>11,}{of['num_facts']:>8,}{bits:>10,.0f}"
                f"{share:>8.3f}{per_block:>11.3f}{bits / encoder['parameters']:>9.3f}{_rate(of)}"
            )
    lines += [
        "",
        "values copied from context",
        f"{'pattern':<12}{'accuracy':>11}{'loss':>11}{'mean over training':>20}{'rate':>9}",
    ]
    for encoder in result["encoders"]:
        of = encoder["copying"]
        accuracy, loss, mean = (
            statistics.fmean(of[name]) for name in ("accuracy", "loss", "mean_accuracy")
        )
        lines.append(
            f"{encoder['pattern']:<12}{accuracy:>11.3f}{loss:>11.3f}{mean:>20.3f}{_rate(of)}"
        )
    seeds = len(result["encoders"][0]["copying"]["seeds"])
    lines.append(
        f"means over {seeds} seed{'s' * (seeds != 1)}, each pattern at its best rate; "
        "* the lowest or highest rate that was tried"
    )
    return "\n".join(lines)


def _rate(of: dict[str, Any]) -> str:
    return f"{of['learning_rate']:>8g}{'*' if of['at_edge'] else ' '}"
