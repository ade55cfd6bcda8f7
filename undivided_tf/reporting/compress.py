"""A compressed encoder beside the whole one: table and figure."""

import functools
import os
import pathlib
import statistics
from typing import Any

from matplotlib.lines import Line2D

from undivided_tf.reporting import damage as measured
from undivided_tf.reporting import formatting, pages
from undivided_tf.reporting.style import BLUE, GREEN, GREY, VERMILION, drawing, legend
from undivided_tf.support import files

Result = dict[str, Any]
_DECIMALS = functools.partial(formatting.decimals, places=4)
_RANDOM = "x"
_STYLES = {"whole": (BLUE, "o"), "cut": (VERMILION, "s"), "healed": (GREEN, "^")}


def named(name: str) -> str:
    """What a MEASURE:TASK is called in tables: `Spearman, STS-B`."""
    measure, _, task = name.partition(":")
    return f"{measured.name_of(measure)}, {pathlib.Path(task).name}"


def value_of(name: str, damage: float) -> float:
    """The value that tables show for a damage, by MEASURE:TASK."""
    return measured.value_of(name.partition(":")[0], damage)


def shown(name: str, damage: float) -> str:
    """`value_of` with four decimals."""
    return _DECIMALS(value_of(name, damage))


def compression_table(results: Result, served: Result | None = None) -> str:
    """A line for each cost and each measure, a column for each encoder, as Markdown.

    Args:
        results: of kind `compression`; `exports` may be missing.
        served: export.json by format, each with `served`; None: those of the results.
    """
    scores, budget = results["scores"], results["budget"]
    exports = results.get("exports", {}) if served is None else served
    random = results.get("random", ())  # Older releases had none.
    last = ["random cuts"] if random else []
    columns = [*scores, *exports, *last]
    whole, cut = (
        {**budget["encoders"][name], "pattern": results[pattern]}
        for name, pattern in (("whole", "from"), ("cut", "to"))
    )
    costs = {
        "pattern": lambda of: f"`{of['pattern']}`",
        "parameters": lambda of: (
            f"{of['parameters']:,} ({formatting.ratio(of['parameters'], whole['parameters'])})"
        ),
        "FLOPs": lambda of: (
            f"{formatting.large(of['flops'])} ({formatting.ratio(of['flops'], whole['flops'])})"
        ),
        "ms": lambda of: (
            f"{of['milliseconds']:.2f} ("
            f"{formatting.decimals(1 if of is whole else budget['latency_share'], 2)}×)"
        ),
    }
    empty = [""] * len([*exports, *last])
    rows = [
        [name, show(whole), *(show(cut) for _ in list(scores)[1:]), *empty]
        for name, show in costs.items()
    ]
    for name in results["words"]:
        cells = [shown(name, of[name]) for of in scores.values()]
        for format_ in exports.values():
            damage = format_["served"]["damage"]
            cells.append(shown(name, damage[name]) if name in damage else "not served")
        if random:
            values = sorted(value_of(name, of[name]) for of in random)
            mean = _DECIMALS(statistics.fmean(values))
            cells.append(f"{mean} ({formatting.between((values[0], values[-1]), _DECIMALS)})")
        rows.append([named(name), *cells])
        lost = ["", *(_lost(name, scores["whole"], of) for of in list(scores.values())[1:])]
        rows.append([f"{named(name)}: change in points", *lost, *empty])
    config = results["config"]
    machine = budget["hardware"]
    lines = [["", *columns], ["---", *("---:" for _ in columns)], *rows]
    notes = "; ".join(f"{named(name)}: {words}" for name, words in results["words"].items())
    note = (
        f"FLOPs of {config['sequence_length']} word pieces; ms of a batch of "
        f"{config['latency_batch_size']} on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['device']}, both encoders in turn. {notes}. Where that is 1 - a score, or "
        "errors, the score is shown."
    )
    if random:
        note += (
            f" Random cuts: {formatting.plural(len(random), 'other cut')} of as many blocks, not "
            "healed; mean (lowest to highest)."
        )
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", note])


def _lost(name: str, whole: Result, other: Result) -> str:
    difference = value_of(name, other[name]) - value_of(name, whole[name])
    return formatting.points(difference)


def served_lines(exports: Result) -> list[str]:
    """A sentence for each export: how far its outputs are from the Keras model's."""
    return [
        f"{name}: outputs and scores are those of the Keras model on "
        f"{formatting.plural(of['served']['rows'], 'row')}; largest difference "
        + ", ".join(f"{key} {value:.1e}" for key, value in of["served"]["differences"].items())
        for name, of in exports.items()
    ]


def write_compression(results: Result, folder: str | os.PathLike) -> None:
    """Writes `results.md` and the figure `quality` as PNG and SVG.

    Args:
        results: of kind `compression`.
        folder: where.
    """
    folder = pathlib.Path(folder)
    lines = [
        compression_table(results),
        "",
        f"Cut, first to last: {', '.join(results['blocks'])}. Chosen by: {results['damage']}.",
        *("\n" + line + "." for line in (*served_lines(results["exports"]), *results["exceeded"])),
        "",
        "![quality](quality.png)",
        "",
        f"Made by `{results['command']}`.",
    ]
    files.write_text(folder / "results.md", "\n".join(lines) + "\n")
    pages.draw(results, folder, {"quality": quality_figure})


def quality_figure(results: Result, path: str | os.PathLike) -> None:
    """Draws each measure of the whole, the cut and the healed encoder over their latency.

    Random cuts stand at the latency of the cut.

    Args:
        results: of kind `compression`.
        path: where to write, `.png` or `.svg`.
    """
    scores, encoders = results["scores"], results["budget"]["encoders"]
    names = list(results["words"])
    times = {of: encoders["whole" if of == "whole" else "cut"]["milliseconds"] for of in scores}
    with drawing(path, 1.2 + 1.8 * len(names)) as figure:
        panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for panel, name in zip(panels, names, strict=True):
            values = [value_of(name, of[name]) for of in scores.values()]
            panel.plot(list(times.values()), values, color=GREY, lw=1, zorder=1)
            for of in results.get("random", ()):
                panel.plot([times["cut"]], [value_of(name, of[name])], _RANDOM, color=GREY)
            for (of, time), value in zip(times.items(), values, strict=True):
                colour, marker = _STYLES[of]
                panel.plot([time], [value], marker, color=colour)
            panel.set_title(named(name), loc="left")
        panels[-1].set_xlim(left=0)
        size = results["config"]["latency_batch_size"]
        panels[-1].set_xlabel(f"milliseconds of a batch of {size}")
        marks = [
            Line2D([], [], ls="", color=colour, marker=marker, label=of)
            for of, (colour, marker) in _STYLES.items()
            if of in scores
        ]
        if results.get("random"):
            marks.append(Line2D([], [], ls="", color=GREY, marker=_RANDOM, label="random cuts"))
        legend(figure, marks[:2], marks[2:])
