"""Figure of BLiMP: accuracy by phenomenon."""

import os
from typing import Any

from undivided_tf.study.looks import BLUE, GREY, drawing
from undivided_tf.study.pairs import encoder_name


def phenomena(result: dict[str, Any], path: str | os.PathLike) -> None:
    """Draws the accuracy of each phenomenon with its 95 % interval; a dotted line is chance.

    Args:
        result: of kind `blimp`.
        path: where to write, `.png` or `.svg`.
    """
    found = {name: of for name, of in result["phenomena"].items() if of["pairs"]}
    with drawing(path, 1.0 + 0.26 * len(found)) as figure:
        axes = figure.subplots()
        for place, of in enumerate(found.values()):
            axes.plot([of["low"], of["high"]], [place] * 2, color=BLUE, lw=1.2)
            axes.plot(of["accuracy"], place, "o", color=BLUE)
        axes.axvline(0.5, color=GREY, ls=":")
        axes.set_yticks(range(len(found)), [name.replace("_", " ") for name in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of pairs (dotted: chance)")
        axes.set_title(encoder_name(result["encoder"]), loc="left")
