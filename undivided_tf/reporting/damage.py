"""What cutting intermediate blocks costs: tables and figures."""

import os
import pathlib
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from undivided_tf.reporting import formatting, pages
from undivided_tf.reporting.axes import short_name
from undivided_tf.reporting.style import BLUE, GREY, STYLES, VERMILION, drawing, legend
from undivided_tf.support import files

Result = dict[str, Any]
# Measures that are 1 - score are shown as the score.
_SCORES = {"similarity": "Spearman", "task": "accuracy of a probe"}
_DAMAGES = {"drift": "1 - cosine", "error": "relative squared error", "text": "masked-LM loss"}


def write_order(about: Result, folder: str | os.PathLike) -> None:
    """Writes `damage.md`, `damage.png` and `damage.svg`.

    Args:
        about: the content of surgery.json, with an `order`.
        folder: where.
    """
    folder = pathlib.Path(folder)
    files.write_text(folder / "damage.md", order_table(about) + "\n")
    pages.draw(about, folder, {"damage": order_figure})


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


# === The experiment ===


def zero_shot_table(results: Result) -> str:
    """Measures without training, as Markdown: each single removal, then 0, 1, 2 ... cuts.

    Args:
        results: with `order` and `zero_shot` of results.json.
    """
    measures, order = results["zero_shot"], results["order"]["blocks"]
    heads = [name_of(of["measure"]) for of in measures]
    lines = [
        f"| cut | {' | '.join(heads)} |",
        "|".join(["", " --- ", *[" ---: "] * len(heads), ""]),
    ]
    rows = [(name, [of["single"][name] for of in measures]) for name in sorted(order)]
    rows += [
        (f"{number}" + (f", to {order[number - 1]}" if number else ""), values)
        for number, values in enumerate(zip(*(of["cuts"] for of in measures), strict=True))
    ]
    for name, values in rows:
        shown = (
            f"{value_of(of['measure'], damage):.4f}"
            for of, damage in zip(measures, values, strict=True)
        )
        lines.append(f"| {name} | {' | '.join(shown)} |")
    notes = "; ".join(f"{head}: {of['words']}" for head, of in zip(heads, measures, strict=True))
    note = f"Without training. {notes}. Where that is 1 - a score, or errors, the score is shown."
    return "\n".join([*lines, "", note])


def name_of(measure: str) -> str:
    """What a measure is called in tables and figures: `Spearman`."""
    return _SCORES.get(measure) or _DAMAGES[measure]


def value_of(measure: str, damage: float) -> float:
    """The value that tables show for a damage: the score, if the damage is 1 - score."""
    return 1 - damage if measure in _SCORES else damage


def zero_shot_figure(results: Result, path: str | os.PathLike) -> None:
    """Draws each measure without training by the number of blocks cut; points: single removals.

    Args:
        results: of kind `damage`, with `zero_shot`.
        path: where to write, `.png` or `.svg`.
    """
    measures = results["zero_shot"]
    with drawing(path, 0.8 + 1.8 * len(measures)) as figure:
        panels = figure.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
        for panel, of in zip(panels, measures, strict=True):
            cuts, single = (
                [value_of(of["measure"], damage) for damage in values]
                for values in (of["cuts"], of["single"].values())
            )
            panel.plot(range(len(cuts)), cuts, "o-", color=BLUE)
            panel.plot([1] * len(single), single, "x", color=VERMILION)
            panel.set_title(name_of(of["measure"]), loc="left")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[-1].set_xlabel("intermediate blocks cut in the order (crosses: one block alone)")


def write_damage(results: Result, folder: str | os.PathLike) -> None:
    """Writes `results.md`, `damage.*` and the order's `order.*`, as PNG and SVG.

    Args:
        results: of kind `damage`.
        folder: where.
    """
    folder = pathlib.Path(folder)
    lines = [
        *([zero_shot_table(results), ""] if results["zero_shot"] else []),
        damage_table(results),
        "",
        order_table(results),
        "",
        f"Made by `{results['command']}`.",
    ]
    files.write_text(folder / "results.md", "\n".join(lines) + "\n")
    figures = {"damage": damage_figure, "order": order_figure}
    if results["zero_shot"]:
        figures["zero_shot"] = zero_shot_figure
    pages.draw(results, folder, figures)


def damage_table(results: Result) -> str:
    """A line for each number of blocks, as Markdown; scores times 100."""
    first = results["cells"][0]
    tasks = list(first["tasks"])
    sizes = results["config"]["latency_batch_sizes"]
    head = ["cut", "pattern", "last block cut", "parameters", "FLOPs a sequence"]
    head += [f"ms, batch {size}" for size in sizes]
    for task in tasks:
        primary = next(
            (
                c["tasks"][task]["primary"]
                for c in results["cells"]
                if "primary" in c["tasks"][task]
            ),
            "",
        )
        head += [f"{task} {primary}, frozen", f"{task}, fine-tuned"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for cell in results["cells"]:
        flops = cell["forward_flops"]
        row = [
            str(cell["num_cut"]),
            f"`{cell['pattern']}`",
            cell["blocks"][-1] if cell["blocks"] else "",
            f"{cell['parameters']:,} ({formatting.ratio(cell['parameters'], first['parameters'])})",
            f"{formatting.large(flops)} ({formatting.ratio(flops, first['forward_flops'])})",
        ]
        for size in sizes:
            time = cell["latency"][str(size)]
            row.append(f"{time['median']:.2f} ({formatting.decimals(time['speedup'], 2)}× as fast)")
        for task in tasks:
            task_scores = cell["tasks"][task]
            after = "failed"
            if "after" in task_scores:
                score = formatting.estimate(task_scores["after"])
                after = formatting.percent(score.mean) + (f", n {score.n}" if score.n > 1 else "")
            row += [formatting.percent(task_scores["before"]), after]
        lines.append(" | ".join(row))
    constants = [
        f"{task} {formatting.percent(first['tasks'][task]['constant'])}"
        for task in tasks
        if "constant" in first["tasks"][task]
    ]
    machine = results["hardware"]
    scores = (
        "Scores on the dev sets times 100; a constant answer has "
        f"{', '.join(constants) or 'none'}. Frozen: logistic regression on mean-pooled last "
        f"states of at most {results['config']['max_probe_rows'] or 'all'} training rows. "
    )
    note = (
        f"{scores if tasks else ''}Sequences of {first['sequence_length']} word pieces; times on "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['device']}, all encoders in turn."
    )
    return "\n".join([*(f"| {line} |" for line in lines), "", note])


def damage_figure(results: Result, path: str | os.PathLike) -> None:
    """Draws scores before and after fine-tuning, and costs, by the number of blocks cut.

    Args:
        results: of kind `damage`.
        path: where to write, `.png` or `.svg`.
    """
    cells, tasks = results["cells"], list(results["cells"][0]["tasks"])
    first, across = cells[0], [cell["num_cut"] for cell in results["cells"]]
    size = str(results["config"]["latency_batch_sizes"][-1])
    with drawing(path, 6.2 if tasks else 3.6) as figure:
        *scores, costs = figure.subplots(2 if tasks else 1, 1, sharex=True, squeeze=False)[:, 0]
        marks = []
        for (colour, marker), task in zip(STYLES * 2, tasks, strict=False):
            (panel,) = scores
            task_scores = [cell["tasks"][task] for cell in cells]
            before = [of["before"] for of in task_scores]
            after = [
                formatting.estimate(of["after"]).mean if "after" in of else None
                for of in task_scores
            ]
            after = [float("nan") if value is None else value for value in after]
            panel.plot(across, before, color=colour, marker=marker, mfc="white", ls="--")
            panel.plot(across, after, color=colour, marker=marker)
            if "constant" in first["tasks"][task]:
                panel.axhline(first["tasks"][task]["constant"], color=colour, ls=":", lw=1)
            marks.append(Line2D([], [], color=colour, marker=marker, label=task))
            panel.set_title("score on the dev set", loc="left")
        blocks = [cell["parameters_by_part"] for cell in cells]
        inner = [sum(of[kind] for kind in ("attention", "intermediate")) for of in blocks]
        shares = {
            "time of a batch of " + size: [1 / c["latency"][size]["speedup"] for c in cells],
            "FLOPs": [cell["forward_flops"] / first["forward_flops"] for cell in cells],
            "parameters of blocks": [value / inner[0] for value in inner],
            "all parameters": [cell["parameters"] / first["parameters"] for cell in cells],
        }
        for (colour, marker), (words, values) in zip(STYLES[4:], shares.items(), strict=True):
            costs.plot(across, values, color=colour, marker=marker)
            marks.append(Line2D([], [], color=colour, marker=marker, label=words))
        costs.set_ylim(bottom=0)
        costs.set_title(f"cost, as a share of that of {results['from']}", loc="left")
        costs.set_xticks(across)
        costs.set_xlabel("intermediate blocks cut, least damage first")
        ways = [
            Line2D([], [], color=GREY, label="fine-tuned"),
            Line2D([], [], color=GREY, ls="--", marker="o", mfc="white", label="frozen"),
            Line2D([], [], color=GREY, ls=":", lw=1, label="constant answer"),
        ]
        legend(figure, [*marks[: len(tasks)], *(ways if tasks else [])], marks[len(tasks) :])
