"""How all figures look: size, letters, the colours of patterns and of block kinds.

References:
    Okabe, Ito 2008, Color Universal Design (the palette).
"""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from undivided_tf.pattern import BlockPattern
from undivided_tf.support import files

WIDTH = 4.8  # Inches.
FONT = 9.5  # Points: 10 pixels where the figure is 390 pixels wide.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#6E6E6E"
STYLES = (
    (BLUE, "o"),
    (VERMILION, "s"),
    (GREEN, "^"),
    (ORANGE, "D"),
    (PURPLE, "v"),
    (SKY, "P"),
    (BLACK, "X"),
    (GREY, "*"),
)
KINDS = {"attention": ("A", BLUE), "intermediate": ("I", VERMILION)}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": FONT,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT + 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "savefig.dpi": 200,
    "svg.hashsalt": "undivided_tf",
}


@contextlib.contextmanager
def drawing(path: str | os.PathLike, height: float) -> Iterator[Figure]:
    """A figure that is written atomically when the body is done.

    Args:
        path: where to write, `.png` or `.svg`.
        height: in inches.
    """
    path = pathlib.Path(path)
    kind = path.suffix.removeprefix(".")
    # So that files of equal content are equal, whenever and by whatever version they are drawn.
    metadata = {"Software": None} if kind == "png" else {"Date": None}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure
        with files.atomic_path(path) as partial:
            figure.savefig(partial, format=kind, metadata=metadata)


def styles_of(patterns: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each pattern; the common ones keep theirs in every study.

    Blue: all intermediate blocks. Vermilion: none. Green, orange: every second, every third.
    Others take what is free, in their order.
    """
    patterns = list(dict.fromkeys(patterns))
    chosen: dict[str, tuple[str, str]] = {}
    for pattern in patterns:
        letters = BlockPattern.parse(pattern).letters
        for style, unit in zip(STYLES, ("AI", "A", "AAI", "AAAI"), strict=False):
            if letters == unit * (len(letters) // len(unit)) and style not in chosen.values():
                chosen[pattern] = style
    free = [style for style in STYLES if style not in chosen.values()]
    for i, pattern in enumerate(p for p in patterns if p not in chosen):
        if i < len(free):
            chosen[pattern] = free[i]
        else:  # More than eight: the colours come again, with other markers.
            chosen[pattern] = (STYLES[i % 8][0], STYLES[(i + 1 + i // 8) % 8][1])
    return {pattern: chosen[pattern] for pattern in patterns}


def legend(figure: Figure, left: Sequence[Artist], right: Sequence[Artist]) -> None:
    """A legend below the figure in two columns."""
    rows = max(len(left), len(right))
    blank = [Line2D([], [], ls="", label=" ")]
    left, right = ([*column, *blank * (rows - len(column))] for column in (left, right))
    figure.legend(handles=[*left, *right], loc="outside lower center", ncols=2)


def pattern_marks(styles: dict[str, tuple[str, str]]) -> list[Artist]:
    """The legend's entries for what `styles_of` gave."""
    return [
        Line2D([], [], color=colour, marker=marker, label=pattern)
        for pattern, (colour, marker) in styles.items()
    ]
