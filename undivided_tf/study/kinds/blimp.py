"""BLiMP: does an encoder find the grammatical one of two sentences likelier?"""

from collections.abc import Iterator, Mapping
from typing import Any

from undivided_tf import accounting
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Section, Table, Value, code, number
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import INSIDE, START_SECONDS, Cell, Kind, Row, Speed, per_encoder
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import ACCURACY_MARGIN, Claim, Scores, Verdict, not_worse, points
from undivided_tf.study.results import StudyResults

CHANCE = 0.5  # Of two sentences.
MARGIN = 0.05  # Nats a pair; declared here, before any study runs.
_PARADIGMS, _PIECES = 67, 12


class Blimp(Kind):
    """One cell an encoder, where the study has the data."""

    name = section = "blimp"
    title = "BLiMP"
    call = "undivided_tf.analysis.blimp:run_blimp"

    def included(self, config: StudyConfig) -> bool:
        return bool(config.blimp.data)

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        return per_encoder(self, encoders, [({}, config.blimp.replace(seed=config.seed))])

    def seconds(self, cell: Cell, speed: Speed) -> float:
        copies = 2 * _PARADIGMS * (cell.recipe.max_pairs or 1000) * _PIECES
        forward = accounting.forward_flops(cell.encoder, _PIECES + 2)
        head = accounting.masked_lm_head_flops(cell.encoder, 1)
        return 2 * START_SECONDS + copies * (forward + head) / speed.flops_per_second

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        yield {"metric": "accuracy", "value": result["accuracy"]}
        if "margin" in result:  # Older releases did not measure it.
            yield {"metric": "margin", "value": result["margin"]}
        yield {"metric": "pairs", "value": result["pairs"]}
        for phenomenon, of in result.get("phenomena", {}).items():
            yield {"metric": f"accuracy_{phenomenon}", "value": of["accuracy"]}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        yield Claim(
            "grammar kept",
            "It tells grammatical sentences as well.",
            "accuracy on BLiMP, mean over its paradigms, paired by pre-training seed",
            ACCURACY_MARGIN,
            "a loss of the margin or more is ruled out, and the reference beats chance by more "
            "(one-sided t-tests)",
            _grammar,
            "points",
        )
        yield Claim(
            "grammar margin kept",
            "It prefers grammatical sentences as much.",
            "by how many nats the grammatical sentence of a BLiMP pair is likelier, mean over its "
            "paradigms, paired by pre-training seed",
            f"{MARGIN:g}",
            "a loss of the margin or more is ruled out, and the reference is above 0 by more "
            "(one-sided t-tests)",
            _margin,
        )

    def report(self, study: StudyResults) -> Iterator[Section]:
        rows = []
        for pattern in study.patterns:
            values = study.values("blimp", "accuracy", pattern=pattern)
            if not values:
                rows.append((code(pattern), *[Value(study.absence("blimp", pattern=pattern))] * 4))
                continue
            pairs = study.values("blimp", "pairs", pattern=pattern)[0]
            margin = study.mean("blimp", "margin", pattern=pattern)
            rows.append(
                (
                    code(pattern),
                    number(sum(values) / len(values), formatting.percent),
                    Value(" ".join(map(formatting.percent, values))),
                    Value("-") if margin is None else number(margin, formatting.loss),
                    number(pairs, formatting.count),
                )
            )
        note = (
            "Share of minimal pairs whose grammatical sentence is likelier (chance is 50 %), and "
            "by how many nats, mean over the paradigms."
        )
        columns = ("pattern", "accuracy, %", "each encoder", "margin, nats", "pairs")
        yield Section(INSIDE, "Grammar", (Table("BLiMP", columns, tuple(rows), note),))


def _grammar(study: StudyResults, pattern: str) -> Verdict:
    scores = Scores(*study.beside_reference("blimp", "accuracy", pattern), CHANCE)
    margin = study.config.accuracy_margin
    return not_worse({"BLiMP": scores}, margin, points(margin, "accuracy"))


def _margin(study: StudyResults, pattern: str) -> Verdict:
    scores = Scores(*study.beside_reference("blimp", "margin", pattern), 0.0)
    return not_worse({"BLiMP": scores}, MARGIN, f"{MARGIN:g} nats")
