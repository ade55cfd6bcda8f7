"""What cutting intermediate blocks costs: tables and figures."""

import os
import pathlib
from typing import Any

from matplotlib.ticker import MaxNLocator

from undivided_tf import files
from undivided_tf.study.axes import short_name
from undivided_tf.study.looks import BLUE, GREY, VERMILION, drawing

Result = dict[str, Any]


def write_order(about: Result, folder: str | os.PathLike) -> None:
    """Writes `damage.md`, `damage.png` and `damage.svg`.

    Args:
        about: the content of surgery.json, with an `order`.
        folder: where.
    """
    folder = pathlib.Path(folder)
    files.write_text(folder / "damage.md", order_table(about) + "\n")
    for kind in ("png", "svg"):
        order_figure(about, folder / f"damage.{kind}")


def order_table(about: Result) -> str:
    """A line a cut, as Markdown."""
    order = about["order"]
    way = "each cut measured again" if order["greedy"] else "ranked by single removals"
    lines = [
        f"Damage: {about['damage']}; {way}.",
        "",
        "| cut | block | damage | damage of this removal alone |",
        "| ---: | --- | ---: | ---: |",
        f"| 0 | | {order['damages'][0]:.4f} | |",
    ]
    for number, (name, damage) in enumerate(
        zip(order["blocks"], order["damages"][1:], strict=True), 1
    ):
        lines.append(f"| {number} | {name} | {damage:.4f} | {order['single'][name]:.4f} |")
    return "\n".join(lines)


def order_figure(about: Result, path: str | os.PathLike) -> None:
    """Draws the damage of each single removal by depth, and that of all cuts in their order.

    Args:
        about: as for `write_order`.
        path: where to write, `.png` or `.svg`.
    """
    order = about["order"]
    with drawing(path, 4.4) as figure:
        single, curve = figure.subplots(2, 1)
        names = list(order["single"])
        single.bar(range(len(names)), list(order["single"].values()), color=VERMILION, width=0.6)
        single.axhline(order["damages"][0], color=GREY, ls=":")
        single.set_xticks(range(len(names)), [short_name(name) for name in names])
        single.set_title("damage without one block (dotted: without none)", loc="left")
        curve.plot(range(len(order["damages"])), order["damages"], "o-", color=BLUE)
        curve.xaxis.set_major_locator(MaxNLocator(integer=True))
        labels = [str(number) for number in range(len(order["damages"]))]
        marks = ["", *(f"\n{short_name(name)}" for name in order["blocks"])]
        curve.set_xticks(range(len(labels)), [a + b for a, b in zip(labels, marks, strict=True)])
        curve.set_title(f"damage without all up to this one, {about['from']}", loc="left")
        curve.set_xlabel("intermediate blocks cut, and the last of them")
