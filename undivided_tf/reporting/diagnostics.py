"""Figures and table of the diagnostics of one encoder, by depth, beside its untrained twin."""

import os
import textwrap
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from undivided_tf.reporting.axes import depth_axis, depth_line, depths, kind_marks
from undivided_tf.reporting.formatting import encoder_name
from undivided_tf.reporting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    drawing,
    legend,
)

Result = dict[str, Any]

COLLAPSE = (
    ("relative_residual", "residual to equal rows"),
    ("mean_cosine", "mean cosine"),
    ("effective_rank", "effective rank"),
)
SHARES = (
    ("first", "[CLS]", BLUE, "o"),
    ("separator", "[SEP]", VERMILION, "s"),
    ("self", "itself", GREEN, "^"),
    ("next", "next", ORANGE, "D"),
    ("previous", "previous", PURPLE, "v"),
)


def block_figure(result: Result, path: str | os.PathLike) -> None:
    """Draws collapse by tap, then size and linearity of what every block adds.

    Args:
        result: of kind `diagnostics`.
        path: where to write, `.png` or `.svg`.
    """
    taps, kinds = result["taps"], (("blocks", BLUE, "-"), ("untrained_blocks", GREY, "--"))
    with drawing(path, 1.55 * (len(COLLAPSE) + 2) + 0.9) as figure:
        rows = figure.subplots(len(COLLAPSE) + 2, 1, sharex=True)
        for axes, (name, words) in zip(rows, COLLAPSE, strict=False):
            for key, colour, style in kinds:
                depth_line(axes, taps, result[key]["collapse"][name], colour, style)
            axes.set_title(words, loc="left")
        for key, colour, style in kinds:
            norms = result[key]["contribution_norm"]
            depth_line(rows[-2], list(norms), list(norms.values()), colour, style)
            fits = result[key]["linear_r2"]
            scores = [of["contribution"] for of in fits.values()]
            depth_line(rows[-1], list(fits), scores, colour, style)
        if all(of["contribution"] is None for of in result["blocks"]["linear_r2"].values()):
            words = result["blocks"]["linear_reason"] or "no intermediate block"
            rows[-1].text(
                0.5,
                0.5,
                "\n".join(textwrap.wrap(words, 50)),
                transform=rows[-1].transAxes,
                ha="center",
                va="center",
            )
            rows[-1].set_yticks([])
        rows[-2].set_title("norm of the contribution / of the stream", loc="left")
        rows[-1].set_title("R² of a linear map for intermediate blocks", loc="left")
        depth_axis(rows[-1], depths(taps)[-1], encoder_name(result["encoder"]))
        legend(
            figure,
            [
                Line2D([], [], color=colour, ls=style, label=label)
                for (_, colour, style), label in zip(kinds, ("trained", "untrained"), strict=True)
            ],
            kind_marks(),
        )


def attention_figure(result: Result, path: str | os.PathLike) -> None:
    """Draws entropy and distance of every head, where the weight goes, and rollout.

    Args:
        result: of kind `diagnostics`.
        path: where to write, `.png` or `.svg`.
    """
    trained, twin = result["attention"], result["untrained_attention"]
    across = depths(list(trained))
    with drawing(path, 1.9 * 4 + 0.9) as figure:
        rows = figure.subplots(4, 1, sharex=True)
        for axes, name, words in (
            (rows[0], "entropy", "entropy of heads (nats)"),
            (rows[1], "distance", "mean distance of heads (tokens)"),
        ):
            for x, block in zip(across, trained, strict=True):
                heads = trained[block][name]
                axes.plot([x] * len(heads), heads, "o", color=BLUE, alpha=0.5, ms=4)
            means = [np.mean(block[name]) for block in trained.values()]
            axes.plot(across, means, color=BLUE)
            means = [np.mean(block[name]) for block in twin.values()]
            axes.plot(across, means, color=GREY, ls="--")
            axes.set_title(words, loc="left")
        for name, _, colour, marker in SHARES:
            shares = [np.mean(block[name]) for block in trained.values()]
            rows[2].plot(across, shares, color=colour, marker=marker)
        rows[2].set_title("share of the weight, mean of heads", loc="left")
        for blocks, colour, style in ((trained, SKY, "-"), (twin, GREY, "--")):
            rollout = [block["rollout_self"] for block in blocks.values()]
            rows[3].plot(
                across, rollout, color=colour, ls=style, marker="P" if style == "-" else None
            )
        rows[3].set_title("rollout: share of a token that is its own", loc="left")
        depth_axis(rows[3], depths(result["taps"])[-1], encoder_name(result["encoder"]))
        legend(
            figure,
            [
                Line2D([], [], color=colour, marker=marker, label=words)
                for _, words, colour, marker in SHARES
            ],
            [
                Line2D([], [], color=BLUE, ls="", marker="o", alpha=0.5, label="a head"),
                Line2D([], [], color=BLUE, label="mean of heads"),
                Line2D([], [], color=GREY, ls="--", label="untrained twin"),
            ],
        )


def read_out_figure(result: Result, path: str | os.PathLike) -> None:
    """Draws loss and accuracy of the masked-language-model head on every tap.

    Args:
        result: of kind `diagnostics` with a `read_out`.
        path: where to write, `.png` or `.svg`.
    """
    read_out, taps = result["read_out"], result["taps"]
    with drawing(path, 4.8) as figure:
        rows = figure.subplots(2, 1, sharex=True)
        depth_line(rows[0], taps, read_out["loss"], BLUE, "-")
        rows[0].set_title("loss of the head on each tap (nats)", loc="left")
        depth_line(rows[1], taps, read_out["accuracy"], BLUE, "-")
        depth_line(rows[1], taps, read_out["top_accuracy"], BLACK, ":")
        rows[1].set_title("share of masked pieces found", loc="left")
        depth_axis(rows[1], depths(taps)[-1], encoder_name(result["encoder"]))
        words = ("first", f"among the first {read_out['top']}")
        legend(
            figure,
            [
                Line2D([], [], color=colour, ls=style, label=label)
                for colour, style, label in zip((BLUE, BLACK), ("-", ":"), words, strict=True)
            ],
            kind_marks(),
        )


def _blocks(result: Result) -> str:
    """A line a tap."""
    blocks, read_out = result["blocks"], result["read_out"]
    columns = ["residual", "cosine", "rank", "added", "linear R2"]
    columns += ["loss", "accuracy", f"top {read_out['top']}"] if read_out else []
    lines = [
        encoder_name(result["encoder"]) + f"; {blocks['texts']} texts, {blocks['tokens']} tokens",
        f"{'tap':<24}" + "".join(f"{column:>11}" for column in columns),
    ]
    measures = ("relative_residual", "mean_cosine", "effective_rank")
    for i, tap in enumerate(result["taps"]):
        values = [blocks["collapse"][name][i] for name in measures]
        values.append(blocks["contribution_norm"].get(tap))
        values.append(blocks["linear_r2"].get(tap, {}).get("contribution"))
        if read_out:
            values += [read_out[name][i] for name in ("loss", "accuracy", "top_accuracy")]
        shown = ("-" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"{tap:<24}" + "".join(f"{value:>11}" for value in shown))
    if blocks["linear_reason"]:
        lines.append(f"linear R2: {blocks['linear_reason']}")
    if not read_out:
        lines.append("no read-out: the checkpoint has no masked-language-model head")
    return "\n".join(lines)


def _attention(result: Result) -> str:
    """A line an attention block, means over its heads."""
    names = ("entropy", "distance", "first", "separator", "self", "next", "previous")
    lines = [f"{'block':<24}" + "".join(f"{n:>11}" for n in (*names, "rollout"))]
    for block, heads in result["attention"].items():
        values = [sum(heads[name]) / len(heads[name]) for name in names]
        values.append(heads["rollout_self"])
        lines.append(f"{block:<24}" + "".join(f"{value:>11.3f}" for value in values))
    for pair in result["heads"] or ():
        lines.append(
            f"{pair['first']} ~ {pair['second']}: matched heads differ by "
            f"{pair['mean_matched']:.3f} nats"
        )
    return "\n".join(lines)


def table(result: Result) -> str:
    """What a run prints: a line a tap, then a line an attention block."""
    return f"{_blocks(result)}\n{_attention(result)}"
