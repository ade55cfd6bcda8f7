"""The figures of a report: what is drawn of a study, and what stands below each."""

import base64
import dataclasses
import importlib
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from undivided_tf.study import frame_tables
from undivided_tf.study.pairs import cka_relation, encoder_name
from undivided_tf.study.results import StudyResults
from undivided_tf.support import files


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure that stands in the report.

    Attributes:
        path: of the SVG, relative to the work directory.
        title: its caption.
        alternative: what it shows, for those who cannot see it.
        data: the SVG in base64.
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


def _costs(study: StudyResults) -> Iterator[tuple[str, Any]]:
    """One figure of all pre-trainings whose steps were timed."""
    if timed := [r for r in study.finished("pretraining") if r["step_milliseconds"]]:
        yield ", ".join(dict.fromkeys(r["pattern"] for r in timed)), timed


def _context(study: StudyResults) -> Iterator[tuple[str, Any]]:
    """One figure of all pre-trainings whose use of context was measured."""
    if measured := [r for r in study.finished("pretraining") if r.get("context_use")]:
        yield ", ".join(dict.fromkeys(r["pattern"] for r in measured)), measured


def _quality(study: StudyResults) -> Iterator[tuple[str, Any]]:
    for task in study.tasks:
        if points := frame_tables.quality(study, task):
            yield task, points


def _per_pair(study: StudyResults) -> Iterator[tuple[str, Any]]:
    for result in study.finished("cka"):
        first, second = (encoder_name(result[key]) for key in ("first", "second"))
        second = "itself" if cka_relation(result) == "itself" else second
        yield f"{first} against {second}", result


# File, function of study/figures.py, title, alternative text, and what is drawn: pairs of a
# subject and the function's argument.
FIGURES = (
    (
        "loss_curves",
        "loss_curves",
        "Loss over training steps, with the unigram entropy and the neighbour model",
        "Curves of training and held-out MLM loss by step for {}; horizontal lines mark the "
        "unigram entropy and, where it is known, the loss of the neighbour model. The last values "
        "stand in the table of masked language modelling.",
        _together("pretraining"),
    ),
    (
        "context_use",
        "context_curves",
        "Loss by how far an encoder may look",
        "Curves of the loss at masked places by the distance beyond which pieces are hidden, for "
        "{}, with all context and with shuffled pieces at the right. The values stand in the "
        "table of what the encoders look at.",
        _context,
    ),
    (
        "cost_bars",
        "cost_bars",
        "Cost of each pattern",
        "Bars of size and cost for {}. The values stand in the table of size and cost.",
        _costs,
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


def draw(study: StudyResults, workdir: pathlib.Path) -> dict[str, dict[str, Figure]]:
    """Draws all figures into `workdir/figures`; gives them by kind and subject."""
    functions = importlib.import_module("undivided_tf.study.figures")  # Loads matplotlib: late.
    drawn: dict[str, dict[str, Figure]] = {}
    for name, function, title, alternative, arguments in FIGURES:
        drawn[name] = {}
        for subject, argument in arguments(study):
            one = title == title.format(subject)
            path = f"figures/{name if one else f'{name}_{_slug(subject)}'}.svg"
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
