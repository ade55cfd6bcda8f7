"""CKA between the encoders of a study."""

import functools
import itertools
import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from undivided_tf import accounting
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import (
    Bullets,
    Figure,
    Finding,
    Section,
    Table,
    Value,
    code,
    number,
)
from undivided_tf.reporting.formatting import encoder_name
from undivided_tf.reporting.layout import slug
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import INSIDE, START_SECONDS, Cell, Kind, Row, Speed
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import (
    LEVEL,
    MIN_BAND,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDERPOWERED,
    Claim,
    Evidence,
    Verdict,
)
from undivided_tf.study.results import StudyResults

ITSELF, UNTRAINED, OTHER_SEED, OTHER_PATTERN = "itself", "untrained", "other seed", "other pattern"


class Cka(Kind):
    """The reference with itself, the other patterns and its other seeds; these with one another;
    and every encoder with its untrained twin.
    """

    name = section = "cka"
    title = "CKA"
    call = "undivided_tf.analysis.similarity:run_cka"

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        recipe = config.cka.replace(seed=config.seed)
        arms = [arm for arm in encoders if arm.at_equal_steps]
        reference = arms[0]
        other_seeds = [arm for arm in arms if arm.pattern == reference.pattern][1:]
        for first, second in [
            *((reference, other) for other in arms),
            *itertools.combinations(other_seeds, 2),
            *((encoder, None) for encoder in arms),
        ]:
            label = {"first": _side(first, first.seed, True)}
            places = {"first_checkpoint": encoders[first]}
            if second:
                places["second_checkpoint"] = encoders[second]
                label["second"] = _side(second, second.seed, True)
            else:
                label["second"] = _side(first, config.seed, False)
            turn = max(cell.turn for cell in places.values())
            yield Cell(self, {**label, **first.extra}, recipe, places, turn=turn)

    def seconds(self, cell: Cell, speed: Speed) -> float:
        recipe, encoder = cell.recipe, cell.encoder
        taps = len(encoder.pattern) + 1
        passes = 4 * recipe.num_examples * accounting.forward_flops(encoder, recipe.max_seq_length)
        pairs = taps * taps * recipe.num_examples / 512
        return START_SECONDS + passes / speed.flops_per_second + 0.03 * pairs

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        attention = [
            [tap for tap in result[key] if tap.endswith("/attention")]
            for key in ("first_taps", "second_taps")
        ]
        # The i-th attention tap of the first encoder matches the i-th of the second.
        matched = set(zip(*attention, strict=False))
        for tap, values in zip(result["first_taps"], result["matrix"], strict=True):
            for other, value in zip(result["second_taps"], values, strict=True):
                taps = {"tap": tap, "second_tap": other, "value": value}
                yield {"metric": "cka", **taps}
                if (tap, other) in matched:
                    yield {"metric": "matched_attention", **taps}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        yield Claim(
            "similar attention",
            "The attention blocks learn what those of the full model learn.",
            "debiased linear CKA, mean over matched attention taps, between different seeds",
            "the band's lower end",
            "not below the one-sided 95 % prediction band of pairs of reference seeds",
            _similar,
        )

    def findings(self, study: StudyResults, pattern: str) -> Iterator[Finding]:
        if pattern == study.reference:
            return
        pairs = _against(study, pattern)
        known = pairs["value"].dropna()
        if known.empty:
            label = {"seed": study.config.seed, "second_seed": study.config.seed}
            absent = study.absence("cka", pattern=study.reference, second_pattern=pattern, **label)
            reason = f"no finished cell ({absent})" if pairs.empty else "no entry is defined"
            yield Finding("CKA", f"Not known against the reference: {reason}.")
            return
        text = (
            f"Matched attention taps agree with the reference's by a mean CKA of "
            f"{formatting.loss(statistics.fmean(known))} ({len(known)} of {len(pairs)} taps)."
        )
        matched_taps = matched(study)
        other_seeds = _related(matched_taps, OTHER_SEED, study.reference)
        baselines = {
            **{
                f"`{p}` against its untrained twin": _related(matched_taps, UNTRAINED, p)
                for p in (study.reference, pattern)
            },
            f"two seeds of `{study.reference}`": other_seeds,
        }
        means = [
            f"{name} {formatting.loss(statistics.fmean(values))}"
            for name, rows in baselines.items()
            if (values := rows["value"].dropna().tolist())
        ]
        text += f" For comparison: {'; '.join(means)}." if means else ""
        if study.config.num_pretraining_seeds == 1:
            text += " Both encoders began with equal values in their shared blocks."
        yield Finding("CKA", text)

    def methods(self, study: StudyResults) -> Iterator[Finding]:
        config = study.config.cka
        yield Finding(
            self.title,
            f"On the {config.split} split of {config.task}, {config.tokens_per_example} tokens of "
            "each example, the same for all encoders.",
        )

    def report(self, study: StudyResults) -> Iterator[Section]:
        from undivided_tf.reporting import cka as drawn  # Late: brings matplotlib.

        results = study.finished("cka")
        figures = [
            Figure(
                f"cka_{slug(pair)}",
                f"CKA: {pair}",
                f"Heat map of CKA between all taps of {pair}.",
                functools.partial(drawn.cka_heat_map, result),
            )
            for result in results
            for pair in [_pair(result)]
        ]
        gaps = tuple(_gaps(results))
        parts = (table(study), *([Bullets(gaps)] if gaps else []), *figures)
        yield Section(INSIDE, "Similarity of representations", parts)


def _side(arm: Arm, seed: int, trained: bool) -> dict[str, Any]:
    return {"pattern": arm.pattern, "seed": seed, "trained": trained}


def relation(pair: dict[str, Any]) -> str:
    """How the second of two encoders, given as `first` and `second`, differs from the first."""
    first, second = pair["first"], pair["second"]
    if not second["trained"]:
        return UNTRAINED
    if first["pattern"] != second["pattern"]:
        return OTHER_PATTERN
    return ITSELF if first["seed"] == second["seed"] else OTHER_SEED


def matched(study: StudyResults) -> pd.DataFrame:
    """CKA of matched attention taps, with the `relation` of the two encoders."""
    rows = study.select("cka", "matched_attention")
    other = rows["pattern"] != rows["second_pattern"]
    itself = (rows["seed"] == rows["second_seed"]).astype(bool)
    untrained = ~rows["second_trained"].astype(bool)
    relations = np.select(
        [untrained, other, itself], [UNTRAINED, OTHER_PATTERN, ITSELF], OTHER_SEED
    )
    return rows.assign(relation=relations)


def _related(rows: pd.DataFrame, which: str, pattern: str) -> pd.DataFrame:
    """The rows of pairs with this relation, in which a pattern is one of the two."""
    return rows[
        (rows["relation"] == which)
        & ((rows["pattern"] == pattern) | (rows["second_pattern"] == pattern))
    ]


def _against(study: StudyResults, pattern: str) -> pd.DataFrame:
    """Matched taps of a trained pattern and the trained reference."""
    rows = _related(matched(study), OTHER_PATTERN, pattern)
    return rows[(rows["pattern"] == study.reference) | (rows["second_pattern"] == study.reference)]


def _means(rows: pd.DataFrame) -> list[float]:
    """The mean over the matched taps of each pair of encoders."""
    return [
        statistics.fmean(values)
        for _, values in rows.dropna(subset="value").groupby("cell", sort=False)["value"]
    ]


def _similar(study: StudyResults, pattern: str) -> Verdict:
    # Equal seeds begin with equal values in the blocks that both have, which raises CKA; so
    # only pairs of different seeds are compared with the pairs of reference seeds.
    pairs = _against(study, pattern)
    means = _means(pairs[pairs["seed"] != pairs["second_seed"]])
    band = _means(_related(matched(study), OTHER_SEED, study.reference))
    evidence = tuple(
        Evidence(matter, statistics.fmean(values), None, len(values))
        for matter, values in (("to the reference", means), ("between reference seeds", band))
        if values
    )
    if len(band) < MIN_BAND or not means:
        return Verdict(
            UNDERPOWERED,
            f"pairs of reference seeds: {len(band)}, a band takes {MIN_BAND}, "
            f"pairs with the pattern: {len(means)}",
            evidence,
        )
    reach = scipy.stats.t.ppf(1 - LEVEL, len(band) - 1) * statistics.stdev(band)
    bound = statistics.fmean(band) - reach * math.sqrt(1 / len(means) + 1 / len(band))
    return Verdict(
        SUPPORTED if statistics.fmean(means) >= bound else NOT_SUPPORTED,
        f"mean CKA {statistics.fmean(means):.3f}, lower end of the band {bound:.3f}",
        evidence,
    )


def table(study: StudyResults) -> Table:
    """Every pair of encoders of the study's size, finished or not."""
    rows = []
    for cell in (cell for cell in study.cells if cell["kind"] == "cka"):
        label = cell["label"]
        if label["first"].get("size", "") != study.size:
            continue
        pair = (
            *(code(encoder_name(label[side])) for side in ("first", "second")),
            Value(relation(label)),
        )
        values = study.whole[study.whole["cell"] == cell["name"]]
        result = cell["result"]
        unfinished = [Value(cell["status"])] * 5
        rows.append((*pair, *(_similarity(values, relation(label)) if result else unfinished)))
    columns = (
        "first encoder",
        "second encoder",
        "second is",
        "mean over matched attention taps",
        "lowest",
        "highest",
        "largest distance of the diagonal from 1",
        "entries not computable",
    )
    note = (
        "Matched taps: the output of the i-th attention block of one encoder and that of the "
        "other. The untrained twin shows the similarity that architecture and inputs give alone."
    )
    for result in study.finished("cka")[:1]:
        note += (
            f" Estimator: {result['estimator']}, {formatting.count(result['examples'])} examples, "
            f"{formatting.count(result['tokens'])} tokens."
        )
    return Table("CKA between encoders", columns, tuple(rows), note)


def _similarity(rows: pd.DataFrame, which: str) -> tuple[Value, ...]:
    entries = rows[rows["metric"] == "cka"]
    known = rows.loc[rows["metric"] == "matched_attention", "value"].dropna().tolist()
    missing = int(entries["value"].isna().sum())
    words = [Value("not computable")] * 3
    if known:
        words = [
            number(value, formatting.loss)
            for value in (statistics.fmean(known), min(known), max(known))
        ]
    return (
        *words,
        _self_check(entries) if which == ITSELF else Value("–"),
        number(missing, formatting.count, f"of {formatting.count(len(entries))}"),
    )


def _self_check(entries: pd.DataFrame) -> Value:
    diagonal = entries.loc[entries["tap"] == entries["second_tap"], "value"].dropna()
    if diagonal.empty:
        return Value("not computable")
    return number(max(abs(diagonal - 1)), lambda distance: f"{distance:.1g}")


def _pair(result: dict[str, Any]) -> str:
    second = ITSELF if relation(result) == ITSELF else encoder_name(result["second"])
    return f"{encoder_name(result['first'])} against {second}"


def _gaps(results: list[dict[str, Any]]) -> Iterator[str]:
    """Why entries of the matrices are not defined, each reason once with its count."""
    counts: dict[tuple[str, str], int] = {}
    for result in results:
        for reason in result["reasons"].values():
            counts[_pair(result), reason] = counts.get((_pair(result), reason), 0) + 1
    for (pair, reason), count in counts.items():
        yield f"`{pair}`: {reason} ({count} entries)"
