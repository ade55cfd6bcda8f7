"""The learning rates and shapes that a study takes from sweeps, and its report of the sweeps."""

import functools
import math
import pathlib
from typing import Any

from undivided_tf.errors import InputError
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Figure, Section, Table, Value, code, number
from undivided_tf.study import budgets
from undivided_tf.study.config import PARTNERS, StudyConfig
from undivided_tf.study.results import StudyResults
from undivided_tf.study.sweep import arms, read, size_of


def section(study: StudyResults, chapter: str) -> Section:
    """The curves of the sweeps that a study took its rates from."""
    from undivided_tf.reporting import worth as drawn  # Late: brings matplotlib.

    sweeps = {size_of(sweep): sweep for sweep in study.raw["sweeps"]}
    rows, curves = [], {}
    diverged = Value("every run diverged")
    for size, sweep in sweeps.items():
        steps = sweep["config"]["pretraining"]["num_train_steps"]
        for arm, swept in arms(sweep).items():
            if arm.partition(",")[0] not in study.config.canonical_patterns:
                continue
            known = [p for p in swept["curve"] if p["loss"] is not None]
            points = [(point["learning_rate"], point["loss"]) for point in known]
            if points:
                curves.setdefault(f"size {size}" if len(sweeps) > 1 else "", {})[arm] = points
            rows.append(
                (
                    Value(size),
                    code(arm),
                    number(swept["learning_rate"], "{:g}".format) if points else diverged,
                    number(swept["loss"], formatting.loss) if points else diverged,
                    Value("; ".join(f"{rate:g}: {loss:.3f}" for rate, loss in points)),
                    number(len(swept["curve"]) - len(known), formatting.count),
                    number(steps, formatting.count),
                    Value(", ".join(map(str, sweep["pilot_seeds"]))),
                )
            )
    columns = (
        "size",
        "pattern",
        "best peak rate",
        "held-out loss there, nats",
        "rate: loss",
        "diverged",
        "steps",
        "pilot seeds",
    )
    table = Table("Sweeps of the learning rate", columns, tuple(rows))
    names = dict.fromkeys(arm for panel in curves.values() for arm in panel)
    figure = Figure(
        "learning_rates",
        "Held-out loss over the peak learning rate, on pilot seeds",
        f"Curves of held-out MLM loss over the peak learning rate for {', '.join(names)}.",
        functools.partial(drawn.learning_rates, study.config.canonical_patterns, curves),
    )
    return Section(chapter, "Learning rates", (figure, table))


def with_rates(config: StudyConfig, *paths: str | pathlib.Path) -> StudyConfig:
    """A study with the rates and the shapes that sweeps found for its patterns and partners.

    A partner that was not swept trains at the rate of its pattern.

    Args:
        config: the study.
        paths: sweep.json of each size of the study.

    Raises:
        InputError: no sweep there, one of another optimizer or with a best rate at its edge; no
            sweep of a size, or two; no rate of a pattern; partners of another reference; or seeds
            of the study are pilot seeds.
    """
    sweeps: dict[str, Any] = {}
    for path in paths:
        sweep = read(path)
        _require_optimizer(config, sweep, path)
        if (size := size_of(sweep)) in sweeps:
            raise InputError(f"{path} and another sweep are both of size {size}")
        sweeps[size] = sweep, path
    rates, shapes, pilots = [], [], {}
    for size in ("", *config.sizes):
        name = config.size_name(size)
        if name not in sweeps:
            hidden, _, heads = name.partition("x")
            raise InputError(
                f"the sweeps are of size {', '.join(sweeps)}, none is of {name}: run run_sweep "
                f"with --pretraining.hidden_size={hidden} --pretraining.num_attention_heads={heads}"
            )
        sweep, path = sweeps[name]
        pilots |= dict.fromkeys(sweep["pilot_seeds"])
        at = f"@{size}" if size else ""
        for pattern in config.canonical_patterns:
            rates.append(f"{pattern}{at}={_rate(sweep['patterns'], pattern, path)!r}")
        for pattern in budgets.compared(config):
            swept = _swept_partners(config, sweep, pattern, path)
            for budget in budgets.others(config):
                shape = budget
                if budget == budgets.PARAMETERS and swept:
                    for candidate in swept:
                        _rate(swept, candidate, path)  # A better rate beyond an edge may change it.
                    shape = min(swept, key=lambda candidate: swept[candidate]["loss"] or math.inf)
                    shapes.append(f"{pattern}{at}={shape}")
                if budget in PARTNERS and shape in swept:
                    rates.append(f"{pattern}:{budget}{at}={_rate(swept, shape, path)!r}")
    return config.replace(
        pattern_learning_rates=tuple(rates),
        partner_shapes=tuple(shapes),
        pilot_seeds=tuple(pilots),
    )


def _swept_partners(
    config: StudyConfig, sweep: dict[str, Any], pattern: str, path: str | pathlib.Path
) -> dict[str, Any]:
    """What a sweep found of the partners of a pattern, by shape."""
    swept = sweep.get("partners", {}).get(pattern, {})
    swept = {shape: result for shape, result in swept.items() if "curve" in result}
    swept_reference, reference = next(iter(sweep["patterns"])), config.canonical_patterns[0]
    if swept and swept_reference != reference:
        raise InputError(
            f"{path} has partners with the parameters of {swept_reference}, but the reference of "
            f"the study is {reference}: run run_sweep with {reference} as the first of --patterns"
        )
    return swept


def _rate(swept: dict[str, Any], pattern: str, path: str | pathlib.Path) -> float:
    """The best rate of a pattern, or of the shape of a partner."""
    best = swept.get(pattern, {})
    if best.get("learning_rate") is None:
        raise InputError(
            f"{path} has no learning rate for {pattern}; it has some for "
            f"{', '.join(p for p in swept if swept[p]['learning_rate'])}: run run_sweep with "
            f"--patterns that name {pattern}"
        )
    if not best["interior"]:
        raise InputError(
            f"{path}: the best rate of {pattern}, {best['learning_rate']:g}, is at the edge of "
            "those measured, so a better one may lie beyond: run run_sweep with a higher "
            "--max_extensions"
        )
    return best["learning_rate"]


def _require_optimizer(
    config: StudyConfig, sweep: dict[str, Any], path: str | pathlib.Path
) -> None:
    optimizer = sweep["config"]["pretraining"]["optimizer"]
    if optimizer != config.pretraining.optimizer:
        raise InputError(
            f"{path} has learning rates for {optimizer}, but the study trains with "
            f"{config.pretraining.optimizer}: give --pretraining.optimizer={optimizer} or run "
            "another sweep"
        )
