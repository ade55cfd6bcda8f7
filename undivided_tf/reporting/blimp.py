"""Figure and table of BLiMP: accuracy by phenomenon."""

import os
from typing import Any

from undivided_tf.reporting.formatting import encoder_name
from undivided_tf.reporting.style import BLUE, GREY, drawing


def phenomena(result: dict[str, Any], path: str | os.PathLike) -> None:
    """Draws the accuracy of each phenomenon with its 95 % interval; a dotted line is chance.

    Args:
        result: of kind `blimp`.
        path: where to write, `.png` or `.svg`.
    """
    scores = {name: of for name, of in result["phenomena"].items() if of["pairs"]}
    with drawing(path, 1.0 + 0.26 * len(scores)) as figure:
        axes = figure.subplots()
        for place, of in enumerate(scores.values()):
            axes.plot([of["low"], of["high"]], [place] * 2, color=BLUE, lw=1.2)
            axes.plot(of["accuracy"], place, "o", color=BLUE)
        axes.axvline(0.5, color=GREY, ls=":")
        axes.set_yticks(range(len(scores)), [name.replace("_", " ") for name in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of pairs (dotted: chance)")
        axes.set_title(encoder_name(result["encoder"]), loc="left")


def table(result: dict[str, Any]) -> str:
    """A line a phenomenon."""
    lines = [
        encoder_name(result["encoder"]),
        f"{'phenomenon':<28}{'accuracy':>10}{'low':>8}{'high':>8}{'pairs':>8}",
    ]
    for name, of in result["phenomena"].items():
        if of["pairs"]:
            values = "{accuracy:>10.3f}{low:>8.3f}{high:>8.3f}{pairs:>8}".format(**of)
            lines.append(f"{name:<28}{values}")
    if result["accuracy"] is not None:
        lines.append(f"mean over the paradigms {result['accuracy']:.3f}; chance 0.500")
    if result.get("margin") is not None:  # Not measured by older releases.
        lines.append(
            f"the grammatical sentence is likelier by {result['margin']:.3f} nats on average"
        )
    # Runs of older releases did not count ties and pairs of equal sentences.
    ties, equal = (result.get(key, "not counted") for key in ("ties", "equal_sentences"))
    lines.append(
        f"{result['pairs']} pairs, {result['pairs_of_unequal_length']} of them of unequal length, "
        f"ties (one half each): {ties}; left out as too long: {result['left_out']}, as pairs of "
        f"equal sentences: {equal}"
    )
    return "\n".join(lines)
