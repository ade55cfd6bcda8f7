"""A study in a few lines of text, for the terminal and README: scores, costs and verdicts."""

import itertools
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Value
from undivided_tf.study import budgets, claims, judging, kinds, multiplier_section, multipliers
from undivided_tf.study.overview import overview
from undivided_tf.study.results import StudyResults

LINES, COLUMNS = 25, 100
CLAIMS = 10
_ANSWERS = dict(
    zip(judging.STATUSES, ("yes", "no", "open", "none", "not learnt"), strict=True),
)
_GATED = {
    judging.NO_VERDICT: "none: the reference has not learnt from its context",
    judging.DID_NOT_LEARN: "not learnt: the reference has learnt from its context, the pattern not",
}


def summary_lines(results: dict[str, Any]) -> list[str]:
    """The study in at most 25 lines of 100 columns, after those on compute multipliers.

    Args:
        results: the study's results, as in its results.json.

    Raises:
        InputError: the config in `results` is none of this version.
    """
    study = kinds.read_results(results)
    table = overview(study)
    rows = [[value.text for value in row] for row in table.rows]
    patterns, hidden = _aligned([[_short(text) for text in table.columns], *rows])
    verdicts = claims.verdicts(study)
    judged, more_hidden = _aligned(_judged(study, verdicts))
    judged = _at_most(CLAIMS + 1, judged, "claims")
    statuses = {verdict.status for of in verdicts.values() for verdict in of.values()}
    closing = _closing(study, hidden + more_hidden, statuses)
    patterns = _at_most(LINES - len(judged) - len(closing), patterns, "patterns")
    worth = _worth(study) if multipliers.has_curves(study.config) else []
    return [line[:COLUMNS] for line in (*worth, *patterns, *judged, *closing)]


def _worth(study: StudyResults) -> list[str]:
    """The sentence on each pattern, and the table of multipliers."""
    arms = multipliers.judged_arms(study)
    sentences = [text.replace("`", "") for text in multipliers.sentences(arms)]
    table = multiplier_section.table(study, arms)
    rows = [[_arm(arm), *(value.text for value in rest)] for arm, *rest in table.rows]
    rows, _ = _aligned([table.columns, *rows])
    lines = [textwrap.wrap(text, COLUMNS, break_on_hyphens=False) for text in sentences]
    return [*itertools.chain.from_iterable(lines), *rows]


def _arm(arm: Value) -> str:
    """A pattern, with its budget, which a report shows in small print."""
    return ", ".join(filter(None, [arm.text, budgets.legend_name(arm.note)]))


def _aligned(rows: Sequence[Sequence[str]]) -> tuple[list[str], int]:
    """Lines of a table, and how many of its last columns did not fit."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = len(widths)
    while len(widths) > 1 and sum(widths) + 2 * (len(widths) - 1) > COLUMNS:
        widths.pop()
    lines = [
        "  ".join(f"{row[i]:{'<>'[i > 0]}{width}}" for i, width in enumerate(widths))
        for row in rows
    ]
    return lines, columns - len(widths)


def _at_most(room: int, lines: list[str], what: str) -> list[str]:
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"... and {len(lines) - room + 1} more {what} in the report"]


def _short(heading: str) -> str:
    return re.sub(" test .*, %$", " %", heading.replace("held-out ", ""))


def _judged(
    study: StudyResults, verdicts: dict[str, dict[str, judging.Verdict]]
) -> list[list[str]]:
    """A row a claim, named as in the report; empty without a pattern beside the reference."""
    if not study.reduced:
        return []
    rows = [
        [name, *(_ANSWERS[of_pattern[pattern].status] for pattern in study.reduced)]
        for name, of_pattern in verdicts.items()
    ]
    return [["claim", *study.reduced], *rows]


def _closing(study: StudyResults, hidden_columns: int, statuses: set[str]) -> list[str]:
    metrics = dict.fromkeys(formatting.metric(study.metric(task)) for task in study.tasks)
    scored = [f"scores: test {', '.join(metrics)}"] if metrics else []
    lines = ["; ".join([*scored, "loss: held-out"])]
    if entropies := study.values("pretraining", "unigram_entropy"):
        lines.append(
            f"unigram entropy: {formatting.loss(min(entropies))} nats, "
            "about the loss of a model that ignores its input"
        )
    if neighbours := study.values("pretraining", "validation_neighbour_model_loss"):
        lines.append(
            f"neighbour model: {formatting.loss(min(neighbours))} nats, the loss of a model that "
            "counts both neighbours"
        )
    if study.reduced:
        lines.append(
            "verdicts: yes, supported; no, not supported; open, underpowered: neither was shown"
        )
        lines += [meaning for status, meaning in _GATED.items() if status in statuses]
    if hidden_columns:
        lines.append(f"columns in the report alone: {hidden_columns}")
    lines.append(
        f"cells: {len(study.cells) - len(study.failed_cells) - len(study.left_cells)} finished, "
        f"{len(study.failed_cells)} failed"
        + (f", {len(study.left_cells)} not run" if study.left_cells else "")
    )
    if study.left_patterns:
        lines.append(f"not begun: {', '.join(study.left_patterns)}")
    for cell in study.failed_cells[:3]:
        reason = (cell["error"] or "no reason given").strip().splitlines()[-1]
        lines.append(f"  failed: {cell['name']}: {reason}")
    return lines
