"""The report of a study: one self-contained HTML page, Markdown and figures.

Nothing is typed by hand: every number comes from the study's results.
"""

import base64
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import jinja2
import markupsafe

from undivided_tf.pattern import BlockPattern
from undivided_tf.study import (
    analysis_tables,
    drawings,
    findings,
    frame_tables,
    frames,
    methods,
    record_files,
    report_figures,
    tables,
    verdict_tables,
)
from undivided_tf.study.results import StudyResults
from undivided_tf.study.tables import Table, Value
from undivided_tf.support import files

QUESTION = "Does BERT need its intermediate blocks?"
NO_CELL = "no finished cell"
_SCRIPT = pathlib.Path(__file__).with_name("report_sort.js")


def write_report(results: dict[str, Any], workdir: str | os.PathLike) -> None:
    """Writes report.html, report.md, figures/*.svg, cells.csv and citation.bib.

    Args:
        results: the study's results, as in its results.json.
        workdir: directory of the study.

    Raises:
        InputError: the config in `results` is none of this version.
    """
    study, workdir = StudyResults(results), pathlib.Path(workdir)
    content = _content(study)
    content["figures"] = report_figures.draw(study, workdir)
    for name, autoescape in (("report.html", True), ("report.md", False)):
        template = environment(autoescape).get_template(f"{name}.j2")
        files.write_text(workdir / name, template.render(content))
    files.write_text(workdir / "cells.csv", record_files.cells_csv(study))
    files.write_text(workdir / "citation.bib", record_files.bibtex(study))


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
        "context_use": tables.context_use(study),
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
        **_script(),
    }  # fmt: skip


def _script() -> dict[str, Any]:
    """The page's only script, and the hash by which its policy lets that run and no other."""
    text = _SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"script": markupsafe.Markup(text), "script_hash": f"sha256-{digest}"}


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
