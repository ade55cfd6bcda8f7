"""Tables of what a pattern costs and scores in each frame, of sizes, and of what lies inside."""

import statistics
from collections.abc import Iterator
from typing import Any

from undivided_tf.study import frames, numbers, tables
from undivided_tf.study.results import PRETRAINED, StudyResults
from undivided_tf.study.tables import Table, Value

# What quality is held against: keys of a pre-training's result, and their names.
COSTS = (
    ("parameters", "parameters"),
    ("training_flops", "training FLOPs"),
    ("training_seconds", "training time, s"),
    ("latency_milliseconds", "forward pass of one text, ms"),
)


def budgets(study: StudyResults) -> Table:
    """One row a pattern and frame: its budget beside the reference's, and its scores."""
    views = [study, *(study.in_frame(frame) for frame in frames.other_frames(study.config))]
    rows = [
        (Value(pattern, code=True), Value(frames.NAMES[view.frame]), *_row(view, pattern))
        for pattern in frames.compared(study.config)
        for view in views
    ]
    columns = (
        "pattern", "frame", "parameters", "steps", "training FLOPs", "training time",
        "held-out MLM loss, nats",
        *(f"{name} {numbers.metric(study.metric(name))}, %" for name in study.tasks),
    )  # fmt: skip
    note = (
        f"Beside each cost its ratio to the reference `{study.reference}`, which is the same in "
        "all frames; beside each score the difference, paired by seed. Ratios show how well a "
        "budget was met."
    )
    return Table("The same patterns with other budgets", columns, tuple(rows), note)


def _row(view: StudyResults, pattern: str) -> Iterator[Value]:
    own, full = view.pretraining(pattern), view.pretraining(view.reference)
    for key, show in (
        ("parameters", numbers.count), ("steps", numbers.count),
        ("training_flops", numbers.large), ("training_seconds", numbers.duration),
    ):  # fmt: skip
        if not own:
            yield Value(view.absence("pretraining", pattern=pattern))
            continue
        if any(r[key] is None for r in own):
            yield Value("not timed")
            continue
        mean = statistics.fmean(r[key] for r in own)
        against = numbers.ratio(mean, statistics.fmean(r[key] for r in full)) if full else ""
        yield Value(show(mean), against, mean)
    if own:
        loss = statistics.fmean(view.loss_by_seed(pattern).values())
        yield Value(numbers.loss(loss), number=loss)
    else:
        yield Value(view.absence("pretraining", pattern=pattern))
    for task in view.tasks:
        mean = view.mean_score(task, pattern)
        if mean is None:
            yield Value(view.absence("finetuning", task, pattern=pattern, start=PRETRAINED))
            continue
        against = tables.difference_to_reference(view, task, pattern)
        note = "" if against.number is None else f"{against.text} points"
        yield Value(numbers.percent(mean), note, mean)


def diagnostics(study: StudyResults) -> Table:
    """Rank collapse and linearity of the blocks of each pattern."""
    rows = []
    for pattern in study.patterns:
        found = list(study.by_seed("diagnostics", pattern).values())
        if not found:
            absent = study.absence("diagnostics", pattern=pattern)
            rows.append((Value(pattern, code=True), *[Value(absent)] * 5))
            continue
        last = [
            statistics.fmean(r[blocks]["collapse"]["relative_residual"][-1] for r in found)
            for blocks in ("blocks", "untrained_blocks")
        ]
        rank = statistics.fmean(r["blocks"]["collapse"]["effective_rank"][-1] for r in found)
        linear = [
            fit["contribution"]
            for r in found
            for fit in r["blocks"]["linear_r2"].values()
            if fit["contribution"] is not None
        ]
        rows.append(
            (
                Value(pattern, code=True),
                *(Value(numbers.loss(value), number=value) for value in last),
                Value(numbers.decimals(rank, 1), number=rank),
                Value(numbers.loss(statistics.fmean(linear)), number=statistics.fmean(linear))
                if linear
                else Value("no intermediate block" if "I" not in pattern else "not computable"),
                Value(numbers.count(len(found)), number=len(found)),
            )
        )
    columns = (
        "pattern", "relative residual at the last tap", "the same, untrained",
        "effective rank at the last tap", "linearity of intermediate blocks", "encoders",
    )  # fmt: skip
    note = (
        "Relative residual: how far the tokens of a text are from their mean, 0 when all are "
        "one. Linearity: share of the variance of what an intermediate block adds that an affine "
        "map of its input explains on other texts."
    )
    return Table("Collapse and linearity", columns, tuple(rows), note)


def grammar(study: StudyResults) -> Table:
    """BLiMP by pattern."""
    rows = []
    for pattern in study.patterns:
        found = list(study.by_seed("blimp", pattern).values())
        values = [r["accuracy"] for r in found if r["accuracy"] is not None]
        if not values:
            absent = study.absence("blimp", pattern=pattern)
            rows.append((Value(pattern, code=True), Value(absent), Value(absent), Value(absent)))
            continue
        mean = statistics.fmean(values)
        each = " ".join(map(numbers.percent, values))
        pairs = numbers.count(found[0]["pairs"])
        rows.append(
            (Value(pattern, code=True), Value(numbers.percent(mean), number=mean), Value(each),
             Value(pairs, number=found[0]["pairs"]))
        )  # fmt: skip
    columns = ("pattern", "accuracy, %", "each encoder", "pairs")
    note = "Share of minimal pairs whose grammatical sentence is likelier; chance is 50 %."
    return Table("BLiMP", columns, tuple(rows), note)


def sizes(study: StudyResults) -> list[Table]:
    """At a glance, for every further size of the encoders."""
    found = []
    for size in study.config.sizes:
        table = tables.overview(study.of_size(size))
        found.append(Table(f"Size {size}", table.columns, table.rows, table.note))
    return found


def quality(study: StudyResults, task: str) -> list[dict[str, Any]]:
    """Score and cost of every pattern in every frame, the reference at equal steps first.

    Returns:
        One dict for each that is finished: `pattern`, `frame`, `score` (mean over encoders),
        and what `COSTS` names (means over encoders). Nothing without the reference; those whose
        steps were not timed are left out.
    """
    found = []
    for frame in (frames.STEPS, *frames.other_frames(study.config)):
        view = study if frame == study.frame else study.in_frame(frame)
        for pattern in view.patterns if frame == frames.STEPS else view.reduced:
            score, runs = view.mean_score(task, pattern), view.pretraining(pattern)
            runs = [run for run in runs if run["training_seconds"] is not None]
            if score is None or not runs:
                continue
            costs = {key: statistics.fmean(run[key] for run in runs) for key, _ in COSTS}
            found.append({"pattern": pattern, "frame": frame, "score": score, **costs})
    return found if found and found[0]["pattern"] == study.reference else []
