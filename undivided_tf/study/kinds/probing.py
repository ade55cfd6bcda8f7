"""Probing: what linear classifiers read from every tap of the encoders."""

import functools
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from undivided_tf import accounting
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Figure, Finding, Section, Table, Value, code, number
from undivided_tf.reporting.layout import slug
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import INSIDE, START_SECONDS, Cell, Kind, Row, Speed, per_encoder
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import (
    ACCURACY_MARGIN,
    NOT_WORSE,
    Claim,
    Scores,
    Verdict,
    not_worse,
    points,
)
from undivided_tf.study.results import StudyResults

_SECONDS = 0.4  # Of a probe, on 1000 rows of width 128.
TRAINED, UNTRAINED = "accuracy", "untrained_accuracy"


class Probing(Kind):
    """One cell for each encoder and task."""

    name = section = "probing"
    title = "Probing"
    call = "undivided_tf.analysis.probing:run_probing"

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        tasks = dict.fromkeys((*config.tasks, *config.probing_tasks))
        recipes = [
            ({"task": task}, config.probing.replace(task=task, seed=config.seed)) for task in tasks
        ]
        return per_encoder(self, encoders, recipes)

    def seconds(self, cell: Cell, speed: Speed) -> float:
        recipe, encoder = cell.recipe, cell.encoder
        rows = (recipe.max_train_rows or 10_000) + (recipe.max_test_rows or 2_000)
        flops = 2 * rows * accounting.forward_flops(encoder, recipe.max_seq_length)
        probes = 2 * (len(encoder.pattern) + 1) * len(recipe.inverse_l2)
        fits = _SECONDS * probes * rows / 1000 * encoder.hidden_size / 128
        extra = 1 + recipe.control_task + recipe.codelength
        return START_SECONDS + recipe.num_seeds * (flops / speed.flops_per_second + extra * fits)

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        yield {"metric": "majority_accuracy", "value": result["majority_accuracy"]}
        for name in (TRAINED, UNTRAINED):
            for tap, value in zip(result["taps"], result[name], strict=True):
                yield {"metric": name, "tap": tap, "value": value}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        yield Claim(
            "probe accuracy kept",
            "Linear probes on attention taps lose little.",
            "mean probe accuracy over attention taps, paired by pre-training seed",
            ACCURACY_MARGIN,
            NOT_WORSE,
            _kept,
            "points",
        )

    def findings(self, study: StudyResults, pattern: str) -> Iterator[Finding]:
        for task in study.probed:
            best, untrained = (
                best_tap(study, task, pattern, name) for name in (TRAINED, UNTRAINED)
            )
            if best is None or untrained is None:
                absent = study.absence("probing", task=task, pattern=pattern)
                yield Finding(f"Probe {task}", f"No finished probing ({absent}).")
                continue
            text = (
                f"The best linear probe has {formatting.percent(best[1])} % at `{best[0]}`; in the "
                f"untrained twin {formatting.percent(untrained[1])} %"
            )
            reference = best_tap(study, task, study.reference, TRAINED)
            if pattern != study.reference and reference is not None:
                text += f", in the reference {formatting.percent(reference[1])} %"
            yield Finding(f"Probe {task}", f"{text}.")

    def methods(self, study: StudyResults) -> Iterator[Finding]:
        yield Finding(
            "Probes",
            "Logistic regression on standardised activations of each tap, "
            f"{study.config.probing.pooling} pooling, beside an untrained encoder of the same "
            "pattern and the majority class.",
        )

    def report(self, study: StudyResults) -> Iterator[Section]:
        from undivided_tf.reporting import probing as drawn  # Late: brings matplotlib.

        for task in study.probed:
            parts = [table(study, task)]
            if results := study.finished("probing", task):
                parts.append(
                    Figure(
                        f"probes_{slug(task)}",
                        f"Probe accuracy by depth on {task}",
                        f"Curves of linear probe accuracy on {task} by tap, from embeddings to the "
                        "last block, trained and untrained, with the majority class. The best taps "
                        "stand in the table of probes.",
                        functools.partial(drawn.probe_curves, results),
                    )
                )
            yield Section(INSIDE, f"Probes on {task}", tuple(parts))


def best_tap(study: StudyResults, task: str, pattern: str, metric: str) -> tuple[str, float] | None:
    """The tap with the highest mean accuracy over the encoders, and that accuracy."""
    rows = study.select("probing", metric, task=task, pattern=pattern).dropna(subset="value")
    means = rows.groupby("tap", sort=False)["value"].mean()
    return None if means.empty else (means.idxmax(), float(means.max()))


def _kept(study: StudyResults, pattern: str) -> Verdict:
    def attention(task: str, of: str):
        rows = study.select("probing", TRAINED, task=task, pattern=of).dropna(subset="value")
        rows = rows[rows["tap"].str.endswith("/attention")]
        seeds = rows.groupby("seed", sort=False)["value"]
        return {seed: statistics.fmean(values) for seed, values in seeds}

    scores = {
        task: Scores(
            attention(task, pattern),
            attention(task, study.reference),
            next(iter(study.values("probing", "majority_accuracy", task=task)), 0.0),
        )
        for task in study.probed
    }
    margin = study.config.accuracy_margin
    return not_worse(scores, margin, points(margin, "probe accuracy"))


def table(study: StudyResults, task: str) -> Table:
    """The best tap of each pattern on a task, beside its untrained twin and the majority."""
    rows = []
    reference = best_tap(study, task, study.reference, TRAINED)
    majority = next(iter(study.values("probing", "majority_accuracy", task=task)), None)
    for pattern in study.patterns:
        best, untrained = (best_tap(study, task, pattern, name) for name in (TRAINED, UNTRAINED))
        if best is None or untrained is None:
            absent = Value(study.absence("probing", task=task, pattern=pattern))
            rows.append((code(pattern), *[absent] * 7))
            continue
        lost = study.failures("probing", task=task, pattern=pattern)
        encoders = study.select("probing", task=task, pattern=pattern)["cell"].nunique()
        if pattern == study.reference:
            against = Value("reference")
        elif reference is None:
            against = Value(study.absence("probing", task=task, pattern=study.reference))
        else:
            against = number(best[1] - reference[1], formatting.points)
        rows.append(
            (
                code(pattern),
                code(best[0]),
                number(best[1], formatting.percent),
                number(untrained[1], formatting.percent, f"at {untrained[0]}"),
                number(majority, formatting.percent),
                number(best[1] - untrained[1], formatting.points),
                against,
                number(encoders, formatting.count, f"{lost} failed" if lost else ""),
            )
        )
    columns = (
        "pattern",
        "best tap",
        "accuracy, %",
        "untrained twin, its best tap, %",
        "majority class, %",
        "gain over untrained, points",
        "difference to reference, points",
        "encoders",
    )
    note = (
        "Logistic regression on frozen activations. The best tap is chosen on the rows it is "
        "scored on, for trained and untrained encoders alike."
    )
    for result in study.finished("probing", task)[:1]:
        note += (
            f" {formatting.count(result['rows']['train'])} training rows, "
            f"{formatting.count(result['rows']['test'])} test rows."
        )
    return Table(f"Probes on {task}", columns, tuple(rows), note)
