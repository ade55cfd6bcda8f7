"""What one run leaves to read: its table and figures in results.md, beside results.json."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from undivided_tf import files


def present(
    results: dict[str, Any],
    workdir: str | pathlib.Path,
    command: str,
    table: str,
    figures: Mapping[str, Callable[[dict[str, Any], pathlib.Path], object]] | None = None,
) -> str:
    """Draws the figures of a run, writes its results.md, and returns what to print.

    Args:
        results: what results.json holds.
        workdir: where that is.
        command: that made the results.
        table: the results as text, in columns.
        figures: by name, what draws the results into a file; each is drawn as PNG and SVG.
    """
    folder = pathlib.Path(workdir)
    for name, draw in (figures or {}).items():
        for kind in ("png", "svg"):
            draw(results, folder / f"{name}.{kind}")
    images = [f"![{name}]({name}.png)" for name in figures or ()]
    page = [f"```text\n{table}\n```", *images, f"Made by `{command}`."]
    files.write_text(folder / "results.md", "\n\n".join(page) + "\n")
    drawn = f"; {', '.join(figures)} (.png, .svg)" if figures else ""
    return f"{table}\nresults: {folder}/results.json, results.md{drawn}"
