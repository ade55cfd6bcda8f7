"""Two synthetic corpora: do intermediate blocks store facts, and does attention copy?"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from undivided_tf import partners
from undivided_tf.errors import InputError
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Figure, Finding, Section, Table, Value, code, number
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import START_SECONDS, Cell, Kind, Row, Speed, compilation_seconds
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import (
    UNDERPOWERED,
    Claim,
    Scores,
    Verdict,
    beyond,
    not_worse,
    paired,
    points,
)
from undivided_tf.study.results import StudyResults
from undivided_tf.training.config import MechanismConfig

# Declared here, before any study runs.
COPY_MARGIN = 0.05  # Of the mean accuracy of copying over training.
# Of parameters: biases and LayerNorms of more blocks weigh more in encoders as small as these.
TOLERANCE = 0.02
CHAPTER = "Synthetic corpora"
PARTNER = "partner_"
_COPYING = ("accuracy", "loss", "mean_accuracy")
_RUN_SECONDS = 15.0


class Mechanism(Kind):
    """One cell a pattern, with its partner of equal parameters, where the study asks for them."""

    name = section = "mechanism"
    title = "Synthetic corpora"
    call = "undivided_tf.training.mechanism:run_mechanism"

    def included(self, config: StudyConfig) -> bool:
        return config.synthetic_corpora

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        if next(iter(encoders)).size:  # The encoders of other sizes would be the same.
            return
        for pattern in config.canonical_patterns:
            recipe = config.mechanism.replace(seed=config.seed)
            trained = (pattern, *_partner(recipe, pattern, config.canonical_patterns[0]))
            yield Cell(self, {"pattern": pattern}, recipe.replace(patterns=trained))

    def seconds(self, cell: Cell, speed: Speed) -> float:
        recipe = cell.recipe
        runs = len(recipe.num_facts) + 1
        runs *= len(recipe.learning_rates) * recipe.num_seeds
        return self.starting_seconds(cell) + len(recipe.patterns) * runs * _RUN_SECONDS

    def starting_seconds(self, cell: Cell) -> float:
        encoders = (cell.recipe.encoder.replace(block_pattern=p) for p in cell.recipe.patterns)
        return START_SECONDS + 2 * sum(map(compilation_seconds, encoders))

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        first, *_, last = [result["encoders"][0], *result["encoders"]]
        for prefix, encoder in (("", first), (PARTNER, last)):
            for name in ("parameters", "block_parameters"):
                yield {"metric": prefix + name, "value": encoder[name]}
            parts = [(of, f"_{of['num_facts']}") for of in encoder["facts"]]
            parts.append((encoder["copying"], "_copying"))
            for of, suffix in parts:
                rate = {f"learning_rate{suffix}": of["learning_rate"]}
                for name, value in {**rate, f"at_edge{suffix}": of["at_edge"]}.items():
                    yield {"metric": prefix + name, "value": value}
            for of, suffix in parts[:-1]:
                for seed, bits in zip(of["seeds"], of["bits"], strict=True):
                    offered = of["num_facts"] * result["bits_per_fact"]
                    for name, per in (
                        ("bits", 1),
                        ("share", offered),
                        ("bits_per_block_parameter", encoder["block_parameters"]),
                        ("bits_per_parameter", encoder["parameters"]),
                    ):
                        value = bits / per if per else None
                        yield {"metric": f"{prefix}{name}{suffix}", "seed": seed, "value": value}
            copied = encoder["copying"]
            for name in _COPYING:
                for seed, value in zip(copied["seeds"], copied[name], strict=True):
                    yield {"metric": f"{prefix}copying_{name}", "seed": seed, "value": value}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        most = config.mechanism.num_facts[-1]
        yield Claim(
            "blocks store facts",
            "Intermediate blocks store more facts than as many parameters in attention blocks.",
            f"bits of {formatting.count(most)} synthetic facts stored by the reference less those "
            "stored by the pattern with more attention blocks, per block parameter, paired by seed",
            "none: 0",
            "the difference is above 0 (one-sided t-test at 5 %); not supported when it is below",
            _stored,
            needs_learning=False,
        )
        yield Claim(
            "attention copies",
            "As many parameters in attention blocks copy from context as well.",
            "share of values copied from new sequences, mean over the evaluations of training, of "
            "the pattern with more attention blocks, paired by seed",
            f"{COPY_MARGIN:g}",
            "a loss of the margin or more is ruled out, and the reference beats a random value by "
            "more (one-sided t-tests)",
            _copied,
            "points",
            needs_learning=False,
        )

    def methods(self, study: StudyResults) -> Iterator[Finding]:
        config = study.config.mechanism
        encoder = config.encoder
        yield Finding(
            self.title,
            f"Encoders of hidden size {encoder.hidden_size}, trained by Muon with the best of the "
            f"rates {', '.join(f'{rate:g}' for rate in config.learning_rates)}, "
            f"{formatting.plural(config.num_seeds, 'seed')}. Facts: a key of three of "
            f"{config.num_symbols} symbols and one of {config.num_values} values, each shown "
            f"{config.exposures} times. Copying: {config.num_copied} values a sequence, "
            f"{formatting.count(config.num_copying_steps)} steps.",
        )

    def report(self, study: StudyResults) -> Iterator[Section]:
        from undivided_tf.reporting import mechanism as drawn  # Late: brings matplotlib.

        parts: list[Any] = [table(study)]
        if results := study.finished("mechanism"):
            encoders = {
                encoder["pattern"]: encoder for result in results for encoder in result["encoders"]
            }
            parts.append(
                Figure(
                    "mechanism",
                    "Facts stored, and values copied from context",
                    f"Curves for {', '.join(encoders)}: bits stored a block parameter by number of "
                    "facts, and accuracy of copying by training step.",
                    functools.partial(drawn.corpora, list(encoders.values())),
                )
            )
        yield Section(CHAPTER, "", tuple(parts))


def _partner(recipe: MechanismConfig, pattern: str, reference: str) -> tuple[str, ...]:
    """The pattern with as many parameters as the reference, by more attention blocks.

    Empty if there is none, or if it is the pattern itself.
    """
    encoder, reference_encoder = (recipe.of_pattern(p) for p in (pattern, reference))
    try:
        partner = partners.matched_partner(encoder, reference_encoder, "attention", TOLERANCE)
    except InputError:
        return ()
    return (partner.block_pattern,) if partner.block_pattern != pattern else ()


def table(study: StudyResults) -> Table:
    """Bits stored and values copied, a row an encoder; partners stand below their patterns."""
    facts = study.config.mechanism.num_facts[-1]
    measures = (
        ("parameters", formatting.count),
        ("block_parameters", formatting.count),
        (f"bits_{facts}", formatting.count),
        (f"share_{facts}", formatting.percent),
        (f"bits_per_block_parameter_{facts}", formatting.loss),
        ("copying_accuracy", formatting.percent),
        ("copying_mean_accuracy", formatting.percent),
    )
    rows = []
    for pattern in study.patterns:
        if not study.values("mechanism", "parameters", pattern=pattern):
            absent = Value(study.absence("mechanism", pattern=pattern))
            rows.append((code(pattern), *[absent] * len(measures)))
            continue
        has_partner = _parameters(study, pattern) != _parameters(study, pattern, PARTNER)
        for prefix in ("", PARTNER) if has_partner else ("",):
            note = "with more attention blocks" if prefix else ""
            values = (_value(study, pattern, prefix + name, show) for name, show in measures)
            rows.append((Value(pattern, note, code=True), *values))
    columns = (
        "pattern",
        "parameters",
        "in blocks",
        f"bits stored of {formatting.count(facts)} facts",
        "share of these bits, %",
        "bits a block parameter",
        "values copied, %",
        "mean over training, %",
    )
    note = (
        "Each encoder at its best learning rate. Small print: 95 % t interval over seeds. A share "
        "near 100 %: the facts are too few to tell encoders apart."
    )
    return Table("Facts stored and values copied", columns, tuple(rows), note)


def _value(study: StudyResults, pattern: str, metric: str, show) -> Value:
    estimate = formatting.estimate(study.values("mechanism", metric, pattern=pattern))
    if estimate is None:
        return Value("not defined")
    interval = formatting.between(estimate.interval, show) if estimate.interval else ""
    return number(estimate.mean, show, interval)


def _parameters(study: StudyResults, pattern: str, prefix: str = "") -> float | None:
    return study.mean("mechanism", f"{prefix}parameters", pattern=pattern)


def _unequal(study: StudyResults, pattern: str) -> Verdict | None:
    """Why a pattern has no encoder to compare at equal parameters; None where it has one."""
    parameters = _parameters(study, pattern, PARTNER)
    reference_parameters = _parameters(study, study.reference)
    if parameters is None or reference_parameters is None:
        return Verdict(UNDERPOWERED, "not measured for both it and the reference")
    if abs(parameters / reference_parameters - 1) > TOLERANCE:
        return Verdict(UNDERPOWERED, "no number of attention blocks gives it as many parameters")
    return None


def _by_seed(study: StudyResults, pattern: str, metric: str) -> tuple[dict, dict]:
    """A metric of the encoder with more attention blocks, and of the reference."""
    return (
        study.by_seed("mechanism", PARTNER + metric, pattern=pattern),
        study.by_seed("mechanism", metric, pattern=study.reference),
    )


def _stored(study: StudyResults, pattern: str) -> Verdict:
    if unequal := _unequal(study, pattern):
        return unequal
    metric = f"bits_per_block_parameter_{study.config.mechanism.num_facts[-1]}"
    arm, reference = _by_seed(study, pattern, metric)
    words = (
        "the reference stores more bits a block parameter",
        "the reference stores fewer bits a block parameter",
    )
    return beyond("bits a block parameter", paired(arm, reference), 0.0, words, below=True)


def _copied(study: StudyResults, pattern: str) -> Verdict:
    if unequal := _unequal(study, pattern):
        return unequal
    chance = 1 / study.config.mechanism.num_values
    scores = {"copying": Scores(*_by_seed(study, pattern, "copying_mean_accuracy"), chance)}
    return not_worse(scores, COPY_MARGIN, points(COPY_MARGIN, "accuracy"))
