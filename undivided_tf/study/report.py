"""The report of a study: one self-contained HTML page, Markdown and figures.

Nothing is typed by hand: every number comes from the study's results.
"""

import base64
import dataclasses
import importlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jinja2
import markupsafe

from undivided_tf import files
from undivided_tf.pattern import BlockPattern
from undivided_tf.study import (
    analysis_tables,
    drawings,
    findings,
    frame_tables,
    frames,
    methods,
    numbers,
    record_files,
    tables,
    verdict_tables,
)
from undivided_tf.study.results import StudyResults, cka_relation
from undivided_tf.study.tables import Table, Value

QUESTION = "Does BERT need its intermediate blocks?"
NO_CELL = "no finished cell"
LINES, COLUMNS = 25, 100


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure that stands in the report.

    Attributes:
        path: of the PNG, relative to the work directory.
        title: its caption.
        alternative: what it shows, for those who cannot see it.
        data: the PNG in base64.
    """

    path: str
    title: str
    alternative: str
    data: str


def _together(kind: str) -> Callable[[StudyResults], Iterator[tuple[str, Any]]]:
    """One figure of all finished cells of a kind."""

    def drawn(study: StudyResults) -> Iterator[tuple[str, Any]]:
        if results := study.finished(kind):
            yield ", ".join(dict.fromkeys(r["pattern"] for r in results)), results

    return drawn


def _per_task(kind: str) -> Callable[[StudyResults], Iterator[tuple[str, Any]]]:
    """A figure for each task, or each that is probed."""

    def drawn(study: StudyResults) -> Iterator[tuple[str, Any]]:
        for task in study.probed if kind == "probing" else study.tasks:
            if results := getattr(study, kind)(task):
                yield task, results

    return drawn


def _quality(study: StudyResults) -> Iterator[tuple[str, Any]]:
    for task in study.tasks:
        if points := frame_tables.quality(study, task):
            yield task, points


def _per_pair(study: StudyResults) -> Iterator[tuple[str, Any]]:
    for result in study.finished("cka"):
        first, second = (analysis_tables.encoder_name(result[key]) for key in ("first", "second"))
        second = "itself" if cka_relation(result) == "itself" else second
        yield f"{first} against {second}", result


# File, function of study/figures.py, title, alternative text, and what is drawn: pairs of a
# subject and the function's argument.
FIGURES = (
    (
        "loss_curves",
        "loss_curves",
        "Loss over training steps, with the unigram entropy",
        "Curves of training and held-out MLM loss by step for {}; a horizontal line marks the "
        "unigram entropy. The last values stand in the table of masked language modelling.",
        _together("pretraining"),
    ),
    (
        "cost_bars",
        "cost_bars",
        "Cost of each pattern",
        "Bars of size and cost for {}. The values stand in the table of size and cost.",
        _together("pretraining"),
    ),
    (
        "task_scores",
        "task_scores",
        "Test score on {}: pre-trained, random weights, majority class",
        "Test scores on {} by pattern, pre-trained and from random weights, with the majority "
        "class. The values stand in the table of the task.",
        _per_task("finetuning"),
    ),
    (
        "quality",
        "quality_against_cost",
        "Score on {} against parameters, training FLOPs, training time and latency",
        "Scores on {} over four costs, one point a pattern and budget; dotted lines mark the full "
        "model. The values stand in the tables of cost, of the task and of other budgets.",
        _quality,
    ),
    (
        "cka",
        "cka_heat_map",
        "CKA: {}",
        "Heat map of CKA between all taps of {}. Its summary stands in the table of CKA.",
        _per_pair,
    ),
    (
        "probes",
        "probe_curves",
        "Probe accuracy by depth on {}",
        "Curves of linear probe accuracy on {} by tap, from embeddings to the last block, trained "
        "and untrained, with the majority class. The best taps stand in the table of probes.",
        _per_task("probing"),
    ),
)


def write_report(results: dict[str, Any], workdir: str | os.PathLike) -> None:
    """Writes report.html, report.md, figures/*.png, cells.csv and citation.bib.

    Args:
        results: the study's results, as in its results.json.
        workdir: directory of the study.

    Raises:
        InputError: the config in `results` is none of this version.
    """
    study, workdir = StudyResults(results), pathlib.Path(workdir)
    content = _content(study)
    content["figures"] = _draw(study, workdir)
    for name, autoescape in (("report.html", True), ("report.md", False)):
        template = environment(autoescape).get_template(f"{name}.j2")
        files.write_text(workdir / name, template.render(content))
    files.write_text(workdir / "cells.csv", record_files.cells_csv(study))
    files.write_text(workdir / "citation.bib", record_files.bibtex(study))


def summary_lines(results: dict[str, Any]) -> list[str]:
    """The study in at most 25 lines of 100 columns, for the terminal.

    Args:
        results: as for `write_report`.
    """
    study = StudyResults(results)
    overview = tables.overview(study)
    grid = [overview.columns, *([value.text for value in row] for row in overview.rows)]
    grid = [[_short(text) for text in row] for row in grid]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    while len(widths) > 1 and sum(widths) + 2 * (len(widths) - 1) > COLUMNS:
        widths.pop()
    lines = [
        "  ".join(f"{text:{'<>'[i > 0]}{widths[i]}}" for i, text in enumerate(row[: len(widths)]))
        for row in grid
    ]
    closing = _closing(study, len(overview.columns) - len(widths))
    room = LINES - len(closing)
    if len(lines) > room:
        lines[room - 1 :] = [f"... and {len(lines) - room + 1} more patterns in the report"]
    return [line[:COLUMNS] for line in (*lines, *closing)]


def _short(heading: str) -> str:
    return re.sub(" test .*, %$", " %", heading.replace("held-out ", ""))


def _closing(study: StudyResults, hidden_columns: int) -> list[str]:
    metrics = dict.fromkeys(numbers.metric(study.metric(task)) for task in study.tasks)
    lines = [f"scores: test {', '.join(metrics)} after fine-tuning; loss: held-out"]
    if entropies := [r["unigram_entropy"] for r in study.finished("pretraining")]:
        lines.append(
            f"unigram entropy: {numbers.loss(min(entropies))} nats, "
            "about the loss of a model that ignores its input"
        )
    if hidden_columns:
        lines.append(f"{hidden_columns} more columns in the report")
    lines.append(
        f"cells: {len(study.cells) - len(study.failed_cells) - len(study.left_cells)} finished, "
        f"{len(study.failed_cells)} failed"
        + (f", {len(study.left_cells)} left to other shares" if study.left_cells else "")
    )
    for cell in study.failed_cells[:3]:
        reason = (cell["error"] or "no reason given").strip().splitlines()[-1]
        lines.append(f"  failed: {cell['name']}: {reason}")
    return lines


def _content(study: StudyResults) -> dict[str, Any]:
    return {
        "question": QUESTION,
        "raw": study.raw,
        "study": study,
        "scope": findings.scope(study),
        "overview": tables.overview(study),
        "verdicts": verdict_tables.verdicts(study),
        "rules": verdict_tables.rules(study),
        "evidence": verdict_tables.evidence(study),
        "findings": {pattern: findings.findings(study, pattern) for pattern in study.patterns},
        "drawings": [
            (pattern, markupsafe.Markup(drawings.block_pattern(pattern, f"pattern-{i}")),
             drawings.describe(BlockPattern.parse(pattern)))
            for i, pattern in enumerate(study.patterns)
        ],
        "cost": tables.cost(study),
        "language_model": tables.language_model(study),
        "tasks": {name: tables.task(study, name) for name in study.tasks},
        "cka": analysis_tables.cka(study),
        "cka_gaps": analysis_tables.cka_gaps(study),
        "probes": {name: analysis_tables.probing(study, name) for name in study.probed},
        "budgets": frame_tables.budgets(study) if frames.other_frames(study.config) else None,
        "obstacles": frames.obstacles(study.config),
        "sizes": frame_tables.sizes(study),
        "diagnostics": frame_tables.diagnostics(study) if study.config.diagnose else None,
        "grammar": frame_tables.grammar(study) if study.config.blimp.data else None,
        "procedure": methods.procedure(study),
        "limits": methods.limits(study),
        "sources": methods.sources(study),
        "corpus": methods.corpus(study),
        "environment": methods.environment(study),
        "settings": methods.settings(study),
        "cells": methods.cells(study),
        "no_cell": NO_CELL,
    }  # fmt: skip


def _draw(study: StudyResults, workdir: pathlib.Path) -> dict[str, dict[str, Figure]]:
    """Draws all figures; gives them by kind and subject."""
    functions = importlib.import_module("undivided_tf.study.figures")  # Loads matplotlib: late.
    drawn: dict[str, dict[str, Figure]] = {}
    for name, function, title, alternative, arguments in FIGURES:
        drawn[name] = {}
        for subject, argument in arguments(study):
            one = title == title.format(subject)
            path = f"figures/{name if one else f'{name}_{_slug(subject)}'}.png"
            (workdir / path).parent.mkdir(parents=True, exist_ok=True)
            getattr(functions, function)(argument, workdir / path)
            data = base64.b64encode((workdir / path).read_bytes()).decode()
            drawn[name][subject] = Figure(
                path, title.format(subject), alternative.format(subject), data
            )
    return drawn


def _slug(text: str) -> str:
    """A file name of letters, digits and `_` that differs whenever the text does."""
    plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]
    return f"{plain}_{files.sha256(text)[:6]}"


def environment(autoescape: bool) -> jinja2.Environment:
    """What lays out the templates of this folder, with filters for Markdown and HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("undivided_tf.study", "."),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"prose": _prose, "md": _markdown, "row": _markdown_row, "rule": _rule}
    return environment


def _prose(text: str) -> markupsafe.Markup:
    """HTML of a sentence in which backticks mark code."""
    escaped = str(markupsafe.escape(text)).replace(" %", "\N{NO-BREAK SPACE}%")
    return markupsafe.Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", escaped))


def _markdown(text: str) -> str:
    """Markdown of a sentence in which backticks mark code; all else is taken literally."""
    parts = " ".join(text.split()).split("`")
    parts[::2] = [re.sub(r"([\\*_\[\]<>|#])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"`{part}`".replace("|", "\\|") for part in parts[1::2]]
    return "".join(parts)


def _markdown_row(row: Iterable[Value]) -> str:
    """A line of a Markdown table."""
    cells = []
    for value in row:
        text = _markdown(f"`{value.text}`" if value.code else value.text)
        cells.append(f"{text} ({_markdown(value.note)})" if value.note else text)
    return f"| {' | '.join(cells)} |"


def _rule(table: Table) -> str:
    """Head and rule of a Markdown table."""
    heading = " | ".join(_markdown(column) for column in table.columns)
    return f"| {heading} |\n|{'---|' * len(table.columns)}"
