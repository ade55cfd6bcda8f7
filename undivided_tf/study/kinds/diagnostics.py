"""Diagnostics: rank collapse of the tokens of a text, and linearity of blocks."""

import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from undivided_tf import accounting
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Section, Table, Value, code, number
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import INSIDE, START_SECONDS, Cell, Kind, Row, Speed, per_encoder
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import Claim, Verdict, beyond, paired
from undivided_tf.study.results import StudyResults

# Declared here, before any study runs.
COLLAPSED = 0.5  # Of the reference's residual.
NEARLY_LINEAR = 0.9  # Share of the variance that an affine map explains.


class Diagnostics(Kind):
    """One cell an encoder, where the study asks for them."""

    name = section = "diagnostics"
    title = "Diagnostics"
    call = "undivided_tf.analysis.diagnostics:run_diagnostics"

    def included(self, config: StudyConfig) -> bool:
        return config.diagnose

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        return per_encoder(self, encoders, [({}, config.diagnostics.replace(seed=config.seed))])

    def seconds(self, cell: Cell, speed: Speed) -> float:
        recipe, encoder = cell.recipe, cell.encoder
        forward = accounting.forward_flops(encoder, recipe.max_seq_length) / speed.flops_per_second
        singular_values = 0.002 * recipe.num_examples * 2 * (len(encoder.pattern) + 1)
        return 3 * START_SECONDS + 6 * recipe.num_examples * forward + singular_values

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        for prefix, key in (("", "blocks"), ("untrained_", "untrained_blocks")):
            for name, values in result[key]["collapse"].items():
                for tap, value in zip(result["taps"], values, strict=True):
                    yield {"metric": prefix + name, "tap": tap, "value": value}
            for tap, fit in result[key]["linear_r2"].items():
                value = fit["contribution"]
                yield {"metric": f"{prefix}linear_r2", "tap": tap, "value": value}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        yield Claim(
            "rank collapse",
            "The tokens of a text collapse into one.",
            "relative residual of the last tap (how far tokens are from their mean), logarithm of "
            "its ratio to the reference's, paired by pre-training seed",
            f"a ratio of {COLLAPSED:g}",
            "the ratio is below the margin (one-sided t-test); not supported when it is above",
            _collapse,
        )
        yield Claim(
            "near linearity",
            "The reference's intermediate blocks are nearly linear.",
            "share of the variance of what a block adds that the best affine map of its input "
            "explains on other texts, mean over the intermediate blocks of the reference",
            f"{NEARLY_LINEAR:g}",
            "the share is above the margin (one-sided t-test); not supported when it is below",
            _linear,
            budgets=(),
        )

    def report(self, study: StudyResults) -> Iterator[Section]:
        rows = []
        for pattern in study.patterns:
            residuals = last_tap(study, "relative_residual", pattern)
            if not residuals:
                absent = Value(study.absence("diagnostics", pattern=pattern))
                rows.append((code(pattern), *[absent] * 5))
                continue
            linear = study.mean("diagnostics", "linear_r2", pattern=pattern)
            missing = "no intermediate block" if "I" not in pattern else "not computable"
            means = [
                statistics.fmean(last_tap(study, name, pattern).values())
                for name in ("relative_residual", "untrained_relative_residual", "effective_rank")
            ]
            rows.append(
                (
                    code(pattern),
                    *(number(value, formatting.loss) for value in means[:2]),
                    number(means[2], lambda value: formatting.decimals(value, 1)),
                    Value(missing) if linear is None else number(linear, formatting.loss),
                    number(len(residuals), formatting.count),
                )
            )
        columns = (
            "pattern",
            "relative residual at the last tap",
            "the same, untrained",
            "effective rank at the last tap",
            "linearity of intermediate blocks",
            "encoders",
        )
        note = (
            "Relative residual: how far the tokens of a text are from their mean, 0 when all are "
            "one. Linearity: share of the variance of what an intermediate block adds that an "
            "affine map of its input explains on other texts."
        )
        table = Table("Collapse and linearity", columns, tuple(rows), note)
        yield Section(INSIDE, "Rank and linearity", (table,))


def last_tap(study: StudyResults, metric: str, pattern: str) -> dict[int, float]:
    """A measure at the last tap, by pre-training seed."""
    rows = study.select("diagnostics", metric, pattern=pattern)
    return rows.groupby("seed", sort=False)["value"].last().to_dict()


def _collapse(study: StudyResults, pattern: str) -> Verdict:
    arm, reference = (
        {
            seed: math.log(max(value, 1e-30))
            for seed, value in last_tap(study, "relative_residual", p).items()
        }
        for p in (pattern, study.reference)
    )
    words = (
        f"the residual is less than {COLLAPSED:g} of the reference's",
        f"the residual is more than {COLLAPSED:g} of the reference's",
    )
    bound = math.log(COLLAPSED)
    return beyond("log of the residual", paired(arm, reference), bound, words, below=True)


def _linear(study: StudyResults, pattern: str) -> Verdict:
    values = study.by_seed("diagnostics", "linear_r2", pattern=study.reference)
    words = (
        f"an affine map explains more than {NEARLY_LINEAR:g} of what they add, in the reference",
        f"an affine map explains less than {NEARLY_LINEAR:g} of what they add, in the reference",
    )
    return beyond("share explained, in the reference", list(values.values()), NEARLY_LINEAR, words)
