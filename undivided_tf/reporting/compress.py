"""Table and figure of a compression: what is left of the quality, and at which cost."""

import os
from typing import Any

from undivided_tf.reporting import formatting
from undivided_tf.reporting.style import GREY, STYLES, drawing, legend, pattern_marks

Result = dict[str, Any]
_NAMES, _ORDER = ("whole", "cut", "healed"), "in the order of cuts"


def table(results: Result) -> str:
    """Costs and quality before and after, and what was exported, as text."""
    costs, chosen = results["costs"], results["chosen"]
    first, last = costs[0], costs[chosen]
    lines = [
        f"{first['pattern']} -> {last['pattern']}, {chosen} of {len(costs) - 1} intermediate "
        "blocks cut"
    ]
    for name, show in (
        ("parameters", formatting.count),
        ("flops", formatting.large),
        ("latency", lambda value: f"{value:.2f} ms"),
    ):
        share = formatting.ratio(last[name], first[name])
        lines.append(f"{name:<12}{show(first[name]):>12} -> {show(last[name])} ({share})")
    there = [name for name in _NAMES if name in results["quality"][0]]
    for one in results["quality"]:
        values = ", ".join(f"{name} {one[name]:.4f}" for name in there)
        lines.append(f"{one['words']}: {values}")
    for form, checked in results.get("exports", {}).items():
        lines.append(f"{form}: measures differ from Keras by {checked['difference']:.1e} at most")
    machine = results["hardware"]
    lines.append(f"times of one text on {machine['cpu']}, {machine['cores']} cores")
    return "\n".join(lines)


def quality_over_latency(results: Result, path: str | os.PathLike) -> None:
    """Draws the damage by the first measure over the latency of one text.

    A curve joins the encoders without 0, 1, 2 ... blocks, on the rows on which their order was
    chosen. Hollow marks are those of the result, on other rows, cut and healed.

    Args:
        results: of kind `compress`.
        path: where to write, `.png` or `.svg`.
    """
    costs, chosen = results["costs"], results["chosen"]
    styles = dict(zip([_ORDER, *_NAMES], STYLES, strict=False))
    first = results["quality"][0]
    with drawing(path, 3.4) as figure:
        axes = figure.subplots()
        colour, marker = styles[_ORDER]
        axes.plot([c["latency"] for c in costs], results["order"]["damages"], marker, color=colour)
        axes.plot([c["latency"] for c in costs], results["order"]["damages"], color=GREY, lw=0.9)
        shown = {name: styles[name] for name in _NAMES if name in first}
        for name, (colour, marker) in shown.items():
            latency = costs[0 if name == "whole" else chosen]["latency"]
            axes.plot(latency, first[name], marker, color=colour, mfc="none", ms=9)
        axes.set_xlabel("latency of one text (ms)")
        axes.set_ylabel("damage")
        axes.set_title(first["words"], loc="left", size="small")
        legend(figure, pattern_marks({_ORDER: styles[_ORDER], **shown}), [])
