"""The page of one run: its table and figures in results.md, beside results.json."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from undivided_tf.support import files
from undivided_tf.training import learning

Figures = Mapping[str, Callable[[dict[str, Any], pathlib.Path], object]]


def draw(results: dict[str, Any], folder: str | pathlib.Path, figures: Figures) -> None:
    """Draws figures as PNG and SVG.

    Args:
        results: what they show.
        folder: where.
        figures: by file name without its ending, what draws the results into a file.
    """
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            figure(results, pathlib.Path(folder) / f"{name}.{kind}")


def present(
    results: dict[str, Any],
    workdir: str | pathlib.Path,
    command: str,
    table: str,
    figures: Figures | None = None,
    encoders: Sequence[str] = (),
) -> str:
    """Draws the figures of a run, writes its results.md, and returns what to print.

    Args:
        results: what results.json holds.
        workdir: where that is.
        command: that made the results.
        table: the results as text, in columns.
        figures: as for `draw`.
        encoders: checkpoints that the results are about; one that has not learnt is named.
    """
    table = "\n".join([table, *learning.warnings(encoders)])
    folder = pathlib.Path(workdir)
    draw(results, folder, figures or {})
    images = [f"![{name}]({name}.png)" for name in figures or ()]
    page = [f"```text\n{table}\n```", *images, f"Made by `{command}`."]
    files.write_text(folder / "results.md", "\n\n".join(page) + "\n")
    drawn = f"; {', '.join(figures)} (.png, .svg)" if figures else ""
    return f"{table}\nresults: {folder}/results.json, results.md{drawn}"
