"""Probing: what linear classifiers read from every tap of the encoders."""

import functools
import itertools
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
TRAINED, AMBIGUOUS, COMPRESSION = "accuracy", "ambiguous_type_accuracy", "compression"
_UNTRAINED = "untrained_"  # Prefix of each of these for the untrained twin.
UNTRAINED = _UNTRAINED + TRAINED
COMPRESSION_MARGIN = 0.05  # Declared here, before any study runs.


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
        # The types of a task of sentences are first words, which say nothing of its labels.
        of_words = (AMBIGUOUS,) if result.get("unit") == "words" else ()
        for prefix, measure in itertools.product(
            ("", _UNTRAINED), (TRAINED, *of_words, COMPRESSION)
        ):
            # Not every task has ambiguous words, nor every recipe a codelength.
            values = result.get(prefix + measure) or [None] * len(result["taps"])
            for tap, value in zip(result["taps"], values, strict=True):
                if value is not None:
                    yield {"metric": prefix + measure, "tap": tap, "value": value}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        yield Claim(
            "probe accuracy kept",
            "Linear probes on attention taps lose little.",
            "mean probe accuracy over attention taps, paired by pre-training seed",
            ACCURACY_MARGIN,
            NOT_WORSE,
            functools.partial(_accuracy_kept, TRAINED),
            "points",
        )
        if any(task.startswith("ud:") for task in (*config.tasks, *config.probing_tasks)):
            yield Claim(
                "ambiguous words kept",
                "Linear probes on attention taps lose little on words whose label depends on the "
                "context.",
                "mean probe accuracy over attention taps, on words that have several labels in "
                "training, paired by pre-training seed",
                ACCURACY_MARGIN,
                NOT_WORSE,
                functools.partial(_accuracy_kept, AMBIGUOUS),
                "points",
            )
        if config.probing.codelength:
            yield Claim(
                "codelength kept",
                "The labels are described about as briefly from attention taps.",
                "compression (uniform over online codelength; Voita and Titov 2020), mean over "
                "attention taps, paired by pre-training seed",
                f"{COMPRESSION_MARGIN:g}",
                NOT_WORSE,
                _codelength,
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
            "pattern and the majority class. The best tap is chosen on the rows that it is scored "
            "on, for trained and untrained encoders alike: gains are comparable, levels slightly "
            "too high.",
        )

    def report(self, study: StudyResults) -> Iterator[Section]:
        from undivided_tf.reporting import probing as drawn  # Late: brings matplotlib.

        for task in study.probed:
            parts: list[Any] = [table(study, task), *_finer(study, task)]
            if results := study.finished("probing", task):
                parts.append(
                    Figure(
                        f"probes_{slug(task)}",
                        f"Probe accuracy by depth on {task}",
                        f"Curves of linear probe accuracy on {task} by tap, from embeddings to the "
                        "last block, trained and untrained, with the majority class.",
                        functools.partial(drawn.probe_curves, results),
                    )
                )
            yield Section(INSIDE, f"Probes on {task}", tuple(parts))


def best_tap(study: StudyResults, task: str, pattern: str, metric: str) -> tuple[str, float] | None:
    """The tap with the highest mean accuracy over the encoders, and that accuracy."""
    rows = study.select("probing", metric, task=task, pattern=pattern).dropna(subset="value")
    means = rows.groupby("tap", sort=False)["value"].mean()
    return None if means.empty else (means.idxmax(), float(means.max()))


def over_attention(study: StudyResults, task: str, pattern: str, metric: str) -> dict[int, float]:
    """Mean of a measure over the attention taps, by pre-training seed."""
    rows = study.select("probing", metric, task=task, pattern=pattern).dropna(subset="value")
    rows = rows[rows["tap"].str.endswith("/attention")]
    seeds = rows.groupby("seed", sort=False)["value"]
    return {seed: statistics.fmean(values) for seed, values in seeds}


def _scores(
    study: StudyResults, pattern: str, metric: str, constant: str = ""
) -> dict[str, Scores]:
    """Scores by task; the floor is the untrained twin of the reference, or a constant answer."""
    scores = {}
    for task in study.probed:
        arm, reference = (
            over_attention(study, task, p, metric) for p in (pattern, study.reference)
        )
        twin = over_attention(study, task, study.reference, _UNTRAINED + metric)
        floors = study.values("probing", constant, task=task)[:1] if constant else []
        if arm or reference:  # Not every task has every measure.
            floors += [statistics.fmean(twin.values())] if twin else []
            scores[task] = Scores(arm, reference, max(floors, default=0.0))
    return scores


def _accuracy_kept(metric: str, study: StudyResults, pattern: str) -> Verdict:
    margin = study.config.accuracy_margin
    constant = "majority_accuracy" if metric == TRAINED else ""
    scores = _scores(study, pattern, metric, constant)
    return not_worse(scores, margin, points(margin, "probe accuracy"))


def _codelength(study: StudyResults, pattern: str) -> Verdict:
    scores = _scores(study, pattern, COMPRESSION)
    return not_worse(scores, COMPRESSION_MARGIN, f"{COMPRESSION_MARGIN:g} of compression")


def _finer(study: StudyResults, task: str) -> Iterator[Table]:
    """A table of measures that vary less between encoders than accuracy, if there are any."""
    measures = {
        heading: (metric, show)
        for heading, metric, show in (
            ("accuracy, %", TRAINED, formatting.percent),
            ("on ambiguous words, %", AMBIGUOUS, formatting.percent),
            ("compression", COMPRESSION, formatting.loss),
        )
        if study.values("probing", metric, task=task)
    }
    if not measures.keys() - {"accuracy, %"}:
        return
    rows = []
    for pattern in study.patterns:
        row = [code(pattern)]
        for metric, show in measures.values():
            scores, twin = (
                over_attention(study, task, pattern, prefix + metric) for prefix in ("", _UNTRAINED)
            )
            if not scores:
                row.append(Value(study.absence("probing", task=task, pattern=pattern)))
                continue
            note = f"untrained {show(statistics.fmean(twin.values()))}" if twin else ""
            row.append(number(statistics.fmean(scores.values()), show, note))
        rows.append(tuple(row))
    note = (
        "Ambiguous words have several labels in training, so that only their context tells. "
        "Compression is the uniform over the online codelength of the labels."
    )
    yield Table(f"Means over attention taps, {task}", ("pattern", *measures), tuple(rows), note)


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
    note = ""
    for result in study.finished("probing", task)[:1]:
        note = (
            f"{formatting.count(result['rows']['train'])} training rows, "
            f"{formatting.count(result['rows']['test'])} test rows."
        )
    return Table(f"Probes on {task}", columns, tuple(rows), note)
