"""Pre-training: the encoders of a study, what they cost, and how well they model language."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from undivided_tf.errors import InputError
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Figure, Finding, Section, Table, Value, code, number
from undivided_tf.study import budgets, swept_rates
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import START_SECONDS, Cell, Kind, Row, compilation_seconds
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import (
    LOSS_MARGIN,
    NOT_SUPPORTED,
    NOT_WORSE,
    SUPPORTED,
    UNDERPOWERED,
    Claim,
    Evidence,
    Scores,
    Verdict,
    not_worse,
    paired,
)
from undivided_tf.study.kinds import records, timing
from undivided_tf.study.kinds.surgery import Surgery
from undivided_tf.study.results import StudyResults
from undivided_tf.surgery.config import SurgeryConfig
from undivided_tf.training.config import PretrainingConfig

COST_CHAPTER, CHAPTER = "Size and cost", "Pre-training"
_ROUNDS = 15
_MEASURES = (
    "parameters",
    "forward_flops",
    "training_flops",
    "steps",
    "tokens",
    "step_milliseconds",
    "tokens_per_second",
    "training_seconds",
    "latency_milliseconds",
    "peak_memory_bytes",
    "unigram_entropy",
    "validation_unigram_cross_entropy",
)


class Pretraining(Kind):
    """One cell for each pattern, seed, budget and size."""

    name = section = "pretraining"
    title = "Pre-training"
    call = "undivided_tf.study.kinds.pretraining:pretrain_and_time"

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        return iter(encoders.values())

    def starting_seconds(self, cell: Cell) -> float:
        return START_SECONDS + compilation_seconds(cell.recipe.encoder)

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        for name in _MEASURES:
            yield {"metric": name, "value": result[name]}
        validation = result["validation"]
        loss, at_mask = validation["loss"], validation.get("loss_at_mask")
        yield {"metric": "perplexity", "value": math.exp(loss)}
        yield {"metric": "below_unigram_entropy", "value": result["unigram_entropy"] - loss}
        if history := result.get("training_history"):
            # The mean over the last steps that were logged together.
            yield {"metric": "training_loss", "value": history[-1]["loss"]}
        for name, value in validation.items():
            yield {"metric": f"validation_{name}", "value": value}
        for name, encoder_loss in (
            ("neighbour_model_loss", loss),
            ("neighbour_model_loss_at_mask", at_mask),
        ):
            if encoder_loss is not None and validation.get(name) is not None:
                yield {"metric": f"below_{name}", "value": validation[name] - encoder_loss}
        if used := result.get("context_use"):
            yield {"metric": "context_use_loss", "value": used["loss"]}
            yield {"metric": "context_use_shuffled_rise", "value": used["shuffled"]["rise"]}
            for entry in used["hidden_beyond"]:
                name = f"context_use_hidden_beyond_{entry['distance']}_rise"
                yield {"metric": name, "value": entry["rise"]}
        if result.get("learnt") is not None:
            yield {"metric": "learnt", "value": result["learnt"]}
        for point in result.get("branches", ()):  # Older releases had none.
            values = {"training_flops": point["training_flops"]} | {
                name: point["validation"].get(name)
                for name in ("loss", "neighbour_model_loss", "learnt")
            }
            for name, value in values.items():
                if value is not None:
                    yield {"metric": f"annealed_{name}", "run": point["steps"], "value": value}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        yield Claim(
            "language modelling kept",
            "The held-out loss rises by little.",
            "mean log-likelihood of a masked piece of the held-out rows (nats; the negative of "
            "the loss), paired by pre-training seed",
            LOSS_MARGIN,
            NOT_WORSE,
            _language_modelling,
        )
        yield Claim(
            "fewer parameters",
            "There are fewer parameters.",
            "parameters of the pre-trained encoder",
            "none: 0",
            "there are fewer, by count",
            _parameters,
            "count",
            needs_learning=False,
        )

    def findings(self, study: StudyResults, pattern: str) -> Iterator[Finding]:
        if pattern != study.reference:
            (parameters, reference_parameters), (flops, reference_flops) = (
                [study.mean("pretraining", key, pattern=p) for p in (pattern, study.reference)]
                for key in ("parameters", "forward_flops")
            )
            if reference_parameters is None:
                yield Finding("Reference", f"`{study.reference}` has no results to compare with.")
            else:
                yield Finding(
                    "Size",
                    f"{formatting.count(parameters)} parameters, "
                    f"{formatting.ratio(parameters, reference_parameters)} the reference's; "
                    f"{formatting.large(flops)} forward FLOPs a sequence, "
                    f"{formatting.ratio(flops, reference_flops)}.",
                )
                yield _loss(study, pattern)
        yield _learning(study, pattern)

    def methods(self, study: StudyResults) -> Iterator[Finding]:
        config = study.config.pretraining
        encoder = config.encoder
        yield Finding(
            "Encoder",
            f"Hidden size {encoder.hidden_size}, {encoder.num_attention_heads} attention heads, "
            f"intermediate size {encoder.intermediate_size}, LayerNorm "
            f"{'before' if encoder.norm_first else 'behind'} each block, dropout "
            f"{encoder.hidden_dropout_prob:g}.",
        )
        yield Finding(
            self.title,
            f"Masked language modelling on {formatting.percent(config.masked_lm_prob)} % of the "
            f"word pieces, by {config.masking_unit.replace('_', ' ')}: "
            f"{formatting.count(config.num_train_steps)} steps of {config.train_batch_size} "
            f"sequences, {config.optimizer} with {_peak(study.config)}, weight decay "
            f"{config.weight_decay_rate:g}, {formatting.count(config.num_warmup_steps)} steps of "
            f"warm-up, {config.learning_rate_schedule.replace('_', '-')} schedule to 0.",
        )
        if study.values("pretraining", "validation_neighbour_model_loss"):
            yield Finding(
                "Learning",
                "An encoder has learnt from its context when its held-out loss is below that of "
                "the neighbour model under the same masks (one-sided 95 %, bootstrap over rows). "
                "This model counts the two pieces beside the masked one in the training rows, "
                "smoothed as by Witten and Bell. Unless the reference has learnt, no claim on what "
                "encoders have learnt is judged.",
            )

    def report(self, study: StudyResults) -> Iterator[Section]:
        from undivided_tf.reporting import pretraining as drawn  # Late: brings matplotlib.

        timed = [run for run in _runs(study) if run["step_milliseconds"] is not None]
        figures = []
        if timed:
            patterns = ", ".join(dict.fromkeys(run["pattern"] for run in timed))
            figures = [
                Figure(
                    "cost_bars",
                    "Cost of each pattern",
                    f"Bars of size and cost for {patterns}.",
                    functools.partial(drawn.cost_bars, timed),
                )
            ]
        yield Section(COST_CHAPTER, "", (cost(study), *figures))
        parts: list[Any] = [language_model(study)]
        results = study.finished("pretraining")
        if results:
            patterns = ", ".join(dict.fromkeys(r["pattern"] for r in results))
            parts.append(
                Figure(
                    "loss_curves",
                    "Loss over training steps, with the unigram entropy and the neighbour model",
                    f"Curves of training and held-out MLM loss by step for {patterns}.",
                    functools.partial(drawn.loss_curves, results),
                )
            )
        if measured := [r for r in results if r.get("context_use")]:
            patterns = ", ".join(dict.fromkeys(r["pattern"] for r in measured))
            parts.append(context_use(study, measured))
            parts.append(
                Figure(
                    "context_use",
                    "Loss by how far an encoder may look",
                    f"Curves of the loss at masked places by the distance beyond which pieces are "
                    f"hidden, for {patterns}.",
                    functools.partial(drawn.context_curves, measured),
                )
            )
        yield Section(CHAPTER, "", tuple(parts))
        if study.raw.get("sweeps"):  # Older releases did not keep them.
            yield swept_rates.section(study, CHAPTER)


# === Cells ===


def encoders(config: StudyConfig, size: str) -> dict[Arm, Cell]:
    """Pre-trainings of one size: at equal steps, then in the other budgets; the reference first."""
    patterns = config.canonical_patterns
    needed = records.cell(config)
    cells: dict[Arm, Cell] = {}

    def add(arm: Arm) -> None:
        later = not arm.at_equal_steps or arm.pattern not in config.core
        label = {"pattern": arm.pattern, "seed": arm.seed, **arm.extra}
        turn = arm.seed - config.seed + (config.num_pretraining_seeds if later else 0)
        places = {"records_dir": needed}
        if arm.budget == budgets.SURGERY:
            reference = {"input": cells[Arm(patterns[0], arm.seed, size=size)]}
            operation = SurgeryConfig(block_pattern=arm.pattern)
            places["init_checkpoint"] = Cell(Surgery(), label, operation, reference, turn=turn)
        timed = None
        if arm.budget == budgets.TIME:
            timed = timing.cell_of(config, cells[Arm(arm.pattern, config.seed, size=size)])
        recipe = budgets.pretraining(config, arm)
        cells[arm] = Cell(Pretraining(), label, recipe, places, timing=timed, turn=turn)

    for seed in config.seeds(patterns[0], size):
        for pattern in patterns:
            if seed in config.seeds(pattern, size):
                add(Arm(pattern, seed, size=size))
        for budget in budgets.others(config):
            for pattern in budgets.compared(config):
                if seed not in config.seeds(pattern, size):
                    continue
                try:
                    if budgets.same_as(config, pattern, budget, size):
                        continue
                except InputError:
                    continue  # Named by `budgets.infeasible`, which report and dry run show.
                add(Arm(pattern, seed, budget, size))
    return cells


def pretrain_and_time(config: PretrainingConfig) -> dict[str, Any]:
    """Pre-trains; returns what `pretrain` returns, and `latency_milliseconds`.

    The latter is the median time of a compiled forward pass of the encoder on one full row.
    """
    from undivided_tf.analysis.latency import forward_milliseconds  # Late: brings TensorFlow.
    from undivided_tf.models import checkpoints
    from undivided_tf.training.pretraining import pretrain

    results = pretrain(config)
    encoder, _ = checkpoints.load_encoder(config.workdir)
    length = encoder.config.max_position_embeddings
    times = forward_milliseconds({0: encoder}, batch_size=1, length=length, rounds=_ROUNDS)
    return {**results, "latency_milliseconds": statistics.median(times[0])}


# === Tables ===


@dataclasses.dataclass(frozen=True)
class Measure:
    """A column of a table: heading, metric, how it is written and compared."""

    heading: str
    metric: str
    show: Callable[[float], str]
    compare: Callable[[float, float], str] | None = None


def _nats(value: float, reference: float) -> str:
    return formatting.loss_difference(value - reference)


def _points(value: float, reference: float) -> str:
    return f"{formatting.points(value - reference)} points"


_ratio = formatting.ratio
PARAMETERS = Measure("parameters", "parameters", formatting.count, _ratio)
STEP_TIME = Measure(
    "step time, ms", "step_milliseconds", lambda value: formatting.decimals(value, 1), _ratio
)
LOSS = Measure("held-out MLM loss, nats", "validation_loss", formatting.loss, _nats)
COST = (
    PARAMETERS,
    Measure("forward FLOPs a sequence", "forward_flops", formatting.large, _ratio),
    STEP_TIME,
    Measure("tokens a second", "tokens_per_second", formatting.count, _ratio),
    Measure("training time", "training_seconds", formatting.duration, _ratio),
    Measure(
        "forward pass of one text, ms",
        "latency_milliseconds",
        lambda value: formatting.decimals(value, 2),
        _ratio,
    ),
    Measure("peak memory", "peak_memory_bytes", formatting.memory, _ratio),
)
LANGUAGE_MODEL = (
    Measure("steps", "steps", formatting.count),
    Measure("tokens seen", "tokens", formatting.large),
    LOSS,
    Measure("training loss at the end, nats", "training_loss", formatting.loss),
    Measure("below unigram entropy by, nats", "below_unigram_entropy", formatting.loss),
    Measure("held-out MLM accuracy, %", "validation_accuracy", formatting.percent, _points),
    Measure("perplexity", "perplexity", lambda value: formatting.decimals(value, 1), _ratio),
)
NEIGHBOURS = (
    Measure("neighbour model's loss, nats", "validation_neighbour_model_loss", formatting.loss),
    Measure("below it by, nats", "below_neighbour_model_loss", formatting.loss_difference),
    Measure(
        "below it where [MASK] shows by, nats",
        "below_neighbour_model_loss_at_mask",
        formatting.loss_difference,
    ),
)


def cost(study: StudyResults) -> Table:
    """Size and cost of each pattern."""
    note = (
        f"Small print: ratio to the reference `{study.reference}`; lowest and highest of n seeds. "
        "Step time is the median of rounds in turn with the reference, on which tokens a second "
        "and training time are based. A forward pass is compiled, of one full row."
    )
    return _table(study, "Size and cost", COST, note)


def language_model(study: StudyResults) -> Table:
    """Held-out loss, accuracy and perplexity of each pattern."""
    note = (
        f"Small print: difference or ratio to the reference `{study.reference}`; lowest and "
        "highest of n seeds. A model that ignores its input has about the unigram entropy as its "
        "loss. The training loss is the mean over the last steps that were logged together."
    )
    measures = LANGUAGE_MODEL
    if study.values("pretraining", NEIGHBOURS[0].metric):
        measures += NEIGHBOURS
        note += (
            " The neighbour model predicts a masked piece from counts of the two pieces beside "
            "it. It does not see the masked place, where one place in ten shows the piece itself; "
            "the last column leaves such places out."
        )
    return _table(study, "Masked language modelling", measures, note)


def _table(study: StudyResults, title: str, measures: tuple[Measure, ...], note: str) -> Table:
    rows = tuple(
        (code(pattern), *(measured(study, pattern, measure) for measure in measures))
        for pattern in study.patterns
    )
    return Table(title, ("pattern", *(measure.heading for measure in measures)), rows, note)


def measured(study: StudyResults, pattern: str, measure: Measure) -> Value:
    """The mean of a measure over the encoders of a pattern, beside the reference's."""
    values, reference = (
        study.values("pretraining", measure.metric, pattern=p) for p in (pattern, study.reference)
    )
    if not values:
        return absent(study, pattern)
    mean, notes = statistics.fmean(values), []
    if measure.compare and reference and pattern != study.reference:
        notes.append(measure.compare(mean, statistics.fmean(reference)))
    low, high = measure.show(min(values)), measure.show(max(values))
    if low != high:
        notes.append(f"{low} to {high}, n = {len(values)}")
    if failures := study.failures("pretraining", pattern=pattern):
        notes.append(f"{failures} failed")
    return Value(measure.show(mean), ", ".join(notes), mean)


def absent(study: StudyResults, pattern: str) -> Value:
    """Why a pattern has no value of a measure."""
    if study.select("pretraining", pattern=pattern).empty:
        return Value(study.absence("pretraining", pattern=pattern))
    return Value("not measured")


def context_use(study: StudyResults, results: list[dict[str, Any]]) -> Table:
    """How the loss rises when context is shuffled or hidden."""
    distances = sorted(
        {entry["distance"] for r in results for entry in r["context_use"]["hidden_beyond"]}
    )[::-1]
    rises = ["shuffled", *(f"hidden_beyond_{distance}" for distance in distances)]
    rows, show = [], formatting.loss_difference
    for pattern in study.patterns:
        loss = study.mean("pretraining", "context_use_loss", pattern=pattern)
        if loss is None:
            rows.append((code(pattern), *[absent(study, pattern)] * (1 + len(rises))))
            continue
        runs = [r["context_use"] for r in results if r["pattern"] == pattern]
        intervals = [runs[0]["shuffled"]] + [
            entry for k in distances for entry in runs[0]["hidden_beyond"] if entry["distance"] == k
        ]
        cells = []
        for name, entry in zip(rises, intervals, strict=True):
            rise = study.mean("pretraining", f"context_use_{name}_rise", pattern=pattern)
            note = formatting.between(entry["interval"], show) if entry.get("interval") else ""
            cells.append(number(rise, show, note if len(runs) == 1 else ""))
        rows.append((code(pattern), number(loss, formatting.loss), *cells))
    columns = (
        "pattern",
        "loss with all context, nats",
        "rise when it is shuffled",
        *(f"rise when pieces beyond {k} are hidden" for k in distances),
    )
    note = (
        f"At {formatting.count(results[0]['context_use']['places'])} held-out places that show "
        "[MASK], each predicted alone; hidden pieces show [MASK] too. Encoders were not trained "
        "with so little context, so a rise is at most what the hidden pieces are worth. Small "
        "print: 95 % bootstrap interval over places, of one encoder."
    )
    return Table("What the encoders look at", columns, tuple(rows), note)


def _runs(study: StudyResults) -> list[dict[str, Any]]:
    """Pre-trainings as dicts of their numbers, None where a number is not known."""
    rows = study.select("pretraining")
    wide = rows.pivot_table(
        index=["cell", "pattern"], columns="metric", values="value", sort=False, dropna=False
    ).dropna(how="all")
    wide = wide.astype(object).where(wide.notna(), None)
    return wide.reset_index().to_dict("records")


# === Claims and findings ===


def _language_modelling(study: StudyResults, pattern: str) -> Verdict:
    arm, reference = (
        {seed: -loss for seed, loss in losses.items()}
        for losses in study.beside_reference("pretraining", "validation_loss", pattern)
    )
    unigrams = study.values(
        "pretraining", "validation_unigram_cross_entropy", pattern=study.reference
    )
    scores = {"held-out text": Scores(arm, reference, -min(unigrams, default=0.0))}
    margin = study.config.loss_margin
    return not_worse(scores, margin, f"{margin:g} nats")


def _parameters(study: StudyResults, pattern: str) -> Verdict:
    differences = paired(*study.beside_reference("pretraining", "parameters", pattern))
    if not differences:
        return Verdict(UNDERPOWERED, "no seed is finished for both")
    evidence = (Evidence("parameters", statistics.fmean(differences), None, len(differences)),)
    return Verdict(
        SUPPORTED if max(differences) < 0 else NOT_SUPPORTED, "counted, not estimated", evidence
    )


def _loss(study: StudyResults, pattern: str) -> Finding:
    arm, reference = study.beside_reference("pretraining", "validation_loss", pattern)
    difference = formatting.paired(arm, reference)
    if difference is None:
        return Finding(
            "Held-out loss", "No pre-training seed is finished for both it and the reference."
        )
    shared = [seed for seed in arm if seed in reference]
    means = [statistics.fmean(losses[seed] for seed in shared) for losses in (arm, reference)]
    moved = formatting.compared(difference.mean, "higher", "lower", formatting.loss, "nats")
    return Finding(
        "Held-out loss",
        f"{formatting.loss(means[0])} nats against {formatting.loss(means[1])}: {moved} "
        f"({formatting.uncertainty(difference, 'encoder', formatting.loss_difference)}).",
    )


def _learning(study: StudyResults, pattern: str) -> Finding:
    """Whether it has learnt from its context."""

    def values(name: str):
        return study.values("pretraining", name, pattern=pattern)

    losses = values("validation_loss")
    worst = max(losses)
    highest = "its highest" if len(losses) > 1 else "its"
    loss = f"{highest} held-out loss is {formatting.loss(worst)} nats"
    known = values("learnt")
    if not known:
        entropy = min(values("unigram_entropy") + values("validation_unigram_cross_entropy"))
        return Finding(
            "Learning",
            "Not known whether it has learnt from its context: these results have no neighbour "
            f"model; {loss} against {formatting.loss(entropy)} of word frequencies alone.",
        )
    neighbours = values("validation_neighbour_model_loss")[losses.index(worst)]
    against = f"{loss} against {formatting.loss(neighbours)} of the neighbour model"
    if all(known):
        return Finding("Learning", f"It has learnt from its context: {against}.")
    who = "It has" if len(known) == 1 else f"{known.count(0)} of its {len(known)} encoders have"
    return Finding(
        "Learning",
        f"{who} not learnt from the context: {against}. The comparisons below say nothing of what "
        "blocks are worth.",
    )


def _peak(config: StudyConfig) -> str:
    """The peak learning rate, or that of each pattern and where it comes from."""
    if not config.learning_rates:
        return f"peak learning rate {config.pretraining.learning_rate:g}"
    rates = ", ".join(
        f"{rate:g} for `{pattern}`"
        + (f" with {budgets.NAMES[budget]}" if budget != budgets.STEPS else "")
        + (f" at size {size}" if size else "")
        for (pattern, size, budget), rate in config.learning_rates.items()
    )
    pilots = ", ".join(map(str, config.pilot_seeds))
    source = f" (chosen on pilot seeds {pilots}, none of which counts here)" if pilots else ""
    return f"peak learning rates {rates}{source}"
