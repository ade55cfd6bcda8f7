"""Held-out loss by mask rate and by class of piece: where does a pattern lose to the reference?"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from undivided_tf import accounting
from undivided_tf.metrics import inference
from undivided_tf.pattern import BlockPattern
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Figure, Section, Table, Value, code, number
from undivided_tf.reporting.formatting import Estimate
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import INSIDE, START_SECONDS, Cell, Kind, Row, Speed, per_encoder
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import (
    LEVEL,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDERPOWERED,
    Claim,
    Verdict,
    beyond,
)
from undivided_tf.study.results import StudyResults

# As `analysis.masked_loss.CLASSES`, whose module imports TensorFlow.
FREQUENT, RARE = "frequent", "rare"
CLASSES = (FREQUENT, "middle", RARE, "continuation")
PER_POINTS = 0.1  # The unit of the slope: ten points of the mask rate.


class MaskedLoss(Kind):
    """One cell an encoder, where the study asks for them."""

    name = section = "masked_loss"
    title = "Loss by mask rate and class"
    call = "undivided_tf.analysis.masked_loss:run_masked_loss"

    def included(self, config: StudyConfig) -> bool:
        return config.loss_by_piece

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        recipe = config.masked_loss.replace(seed=config.seed)
        for cell in per_encoder(self, encoders, [({}, recipe)]):
            records = cell.places["init_checkpoint"].places["records_dir"]
            yield dataclasses.replace(cell, places={**cell.places, "records_dir": records})

    def seconds(self, cell: Cell, speed: Speed) -> float:
        recipe, encoder = cell.recipe, cell.encoder
        length = encoder.max_position_embeddings
        rows = len(recipe.mask_rates) * recipe.masked_pieces / (length * sum(recipe.mask_rates))
        flops = rows * accounting.forward_flops(encoder, length)
        flops += accounting.masked_lm_head_flops(encoder, recipe.masked_pieces)
        return 3 * START_SECONDS + flops / speed.flops_per_second

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        for name in ("masked_pieces", "rows", "held_out_rows"):
            yield {"metric": name, "value": result[name]}
        for suffix, of in (
            ("", result["all"]),
            *((_at(part["rate"]), part) for part in result["rates"]),
        ):
            for name, scores in {"": of, **of["classes"]}.items():
                for key in ("pieces", "loss", "neighbour_model_loss"):
                    metric = f"{key}_{name}" if name else key
                    yield {"metric": metric + suffix, "value": scores[key]}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        yield Claim(
            "facts are in the intermediate blocks",
            "Intermediate blocks hold facts: without them the loss rises more the more pieces are "
            "masked, and the rarer these are.",
            "held-out loss less that of the reference on the same masked pieces (nats), paired by "
            "pre-training seed: its least-squares slope for ten points of the mask rate; and that "
            "at rare pieces less that at frequent pieces, over all mask rates",
            "none: 0",
            "both are above 0 (one-sided t-tests at 5 %, each of which must reject); not supported "
            "when one is below 0 (likewise, with Holm)",
            _facts,
        )

    def report(self, study: StudyResults) -> Iterator[Section]:
        from undivided_tf.reporting import masked_loss as drawn  # Late: brings matplotlib.

        parts: list[Any] = [by_rate(study), by_class(study)]
        rates = {pattern: _differences(study, pattern, _rates(study)) for pattern in study.reduced}
        classes = {pattern: _differences(study, pattern, _classes()) for pattern in study.reduced}
        rates, classes = (
            {p: of for p, of in by_pattern.items() if of} for by_pattern in (rates, classes)
        )
        if rates:
            parts.append(
                Figure(
                    "masked_loss",
                    "Loss above the reference's, by mask rate and by class of piece",
                    f"Paired differences of the held-out loss from the reference for "
                    f"{', '.join(rates)}: a line over the mask rate, and points by class of the "
                    "masked piece, with 95 % intervals.",
                    functools.partial(drawn.differences, study.patterns, rates, classes),
                )
            )
        yield Section(INSIDE, "Loss by mask rate and by class of piece", tuple(parts))


def _at(rate: float) -> str:
    return f"_at_{rate:g}"


def _rates(study: StudyResults) -> dict[float, str]:
    """The metric of each mask rate."""
    return {rate: f"loss{_at(rate)}" for rate in study.config.masked_loss.mask_rates}


def _classes() -> dict[str, str]:
    """The metric of each class, over all mask rates."""
    return {name: f"loss_{name}" for name in CLASSES}


# === Tables ===


def by_rate(study: StudyResults) -> Table:
    """Losses of the reference and paired differences from it, a column a mask rate."""
    metrics = {f"{100 * rate:g} % masked": metric for rate, metric in _rates(study).items()}
    slopes = {
        pattern: formatting.estimate(_slopes(study, pattern).values()) for pattern in study.reduced
    }
    note = "The last column is the least-squares slope of the difference over the mask rate."
    return _table(
        study, "Held-out loss by mask rate, nats", metrics, note, ("for ten points more", slopes)
    )


def by_class(study: StudyResults) -> Table:
    """As `by_rate`, a column a class of piece, over all mask rates."""
    gaps = {
        pattern: formatting.estimate(_gaps(study, pattern).values()) for pattern in study.reduced
    }
    note = (
        "Over all mask rates. Pieces that begin a word are frequent, middle or rare by their count "
        "in the training rows; each class has a third of the occurrences. Continuation: pieces "
        "that go on with a word."
    )
    return _table(
        study, "Held-out loss by class of piece, nats", _classes(), note, ("rare − frequent", gaps)
    )


def _table(
    study: StudyResults,
    title: str,
    metrics: Mapping[str, str],
    note: str,
    last: tuple[str, Mapping[str, Estimate | None]],
) -> Table:
    """A row a pattern, a column a metric; differences, except for the reference."""
    rows = []
    for pattern in study.patterns:
        encoders = study.values("masked_loss", "loss", pattern=pattern)
        if not encoders:
            absent = Value(study.absence("masked_loss", pattern=pattern))
            rows.append((code(pattern), *[absent] * (len(metrics) + 2)))
            continue
        if pattern == study.reference:
            values = [
                _loss(study.mean("masked_loss", metric, pattern=pattern))
                for metric in metrics.values()
            ]
            values.append(Value("reference"))
        else:
            differences = _differences(study, pattern, metrics)
            values = [_difference(differences.get(name)) for name in metrics]
            values.append(_difference(last[1][pattern]))
        rows.append((code(pattern), *values, number(len(encoders), formatting.count)))
    pieces = study.mean("masked_loss", "masked_pieces")
    counted = f"{formatting.count(pieces)} masked pieces of held-out rows, " if pieces else ""
    note = (
        f"{counted}the same for all encoders. First row: losses of the reference; below: paired "
        f"differences from it on the same pieces, with 95 % t intervals over seeds. {note}"
    )
    return Table(title, ("pattern", *metrics, last[0], "encoders"), tuple(rows), note)


def _loss(value: float | None) -> Value:
    return Value("no such piece") if value is None else number(value, formatting.loss)


def _difference(difference: Estimate | None) -> Value:
    if difference is None:
        return Value("not paired")
    show, interval = formatting.loss_difference, "no interval"
    if difference.interval:
        interval = formatting.between(difference.interval, show)
    return number(difference.mean, show, interval)


# === Differences ===


def _by_seed(study: StudyResults, pattern: str, metric: str) -> dict[int, float]:
    """Losses less those of the reference, by the seeds that both have."""
    arm, reference = study.beside_reference("masked_loss", metric, pattern)
    return {seed: arm[seed] - reference[seed] for seed in arm if seed in reference}


def _differences(
    study: StudyResults, pattern: str, metrics: Mapping[Any, str]
) -> dict[Any, Estimate]:
    """The known paired differences, by key of `metrics`."""
    estimates = {
        key: formatting.estimate(_by_seed(study, pattern, metric).values())
        for key, metric in metrics.items()
    }
    return {key: estimate for key, estimate in estimates.items() if estimate}


def _slopes(study: StudyResults, pattern: str) -> dict[int, float]:
    """Slope of the difference over the mask rate by seed, nats for ten points."""
    rates = _rates(study)
    differences = [_by_seed(study, pattern, metric) for metric in rates.values()]
    across = np.array(list(rates)) / PER_POINTS
    return {
        seed: float(np.polyfit(across, [of[seed] for of in differences], 1)[0])
        for seed in differences[0]
        if all(seed in of for of in differences)
    }


def _gaps(study: StudyResults, pattern: str) -> dict[int, float]:
    """Difference at rare pieces less that at frequent ones, by seed."""
    rare, frequent = (_by_seed(study, pattern, f"loss_{name}") for name in (RARE, FREQUENT))
    return {seed: rare[seed] - frequent[seed] for seed in rare if seed in frequent}


def _facts(study: StudyResults, pattern: str) -> Verdict:
    blocks, reference_blocks = (
        BlockPattern.parse(p).num_intermediate for p in (pattern, study.reference)
    )
    if blocks >= reference_blocks:
        return Verdict(
            UNDERPOWERED,
            f"it has {blocks} intermediate blocks, no fewer than the reference's "
            f"{reference_blocks}",
        )
    parts = {
        "slope over the mask rate": _slopes(study, pattern),
        "rare less frequent": _gaps(study, pattern),
    }
    verdicts = {name: beyond(name, list(of.values()), 0.0, ("", "")) for name, of in parts.items()}
    evidence = tuple(comparison for verdict in verdicts.values() for comparison in verdict.evidence)
    contrary = inference.holm([comparison.p_beyond for comparison in evidence])
    if wrong := _names(evidence, (p < LEVEL for p in contrary)):
        return Verdict(NOT_SUPPORTED, f"below 0: {wrong}", evidence)
    if left := _names(evidence, (comparison.p_within >= LEVEL for comparison in evidence)):
        short = next((v.reason for v in verdicts.values() if v.evidence[0].interval is None), "")
        return Verdict(UNDERPOWERED, short or f"not shown to be above 0: {left}", evidence)
    return Verdict(SUPPORTED, "its loss rises more with the mask rate and with rarity", evidence)


def _names(evidence: Iterable[Any], chosen: Iterable[bool]) -> str:
    pairs = zip(evidence, chosen, strict=True)
    return ", ".join(item.comparison for item, is_chosen in pairs if is_chosen)
