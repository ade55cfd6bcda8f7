"""What a study shows, in sentences made from its numbers by the rules written here.

No sentence goes beyond the run: each holds at its size, its data and its number of seeds.
"""

import dataclasses

from undivided_tf.study import numbers
from undivided_tf.study.pairs import matched_attention, mean_matched_attention
from undivided_tf.study.results import FAILED, PRETRAINED, SCRATCH, StudyResults
from undivided_tf.study.tables import score_difference

FEW_SEEDS = 10


@dataclasses.dataclass(frozen=True)
class Finding:
    """Sentences on one matter; `...` marks code.

    Attributes:
        matter: what they are about, in one or two words.
        text: the sentences.
    """

    matter: str
    text: str


def scope(study: StudyResults) -> list[str]:
    """What was compared, and how far the answer reaches."""
    config, encoder = study.config, study.config.pretraining.encoder
    seeds, runs = _plural(config.num_pretraining_seeds, "seed"), config.finetuning.num_runs
    if config.num_other_seeds:
        core = ", ".join(f"`{pattern}`" for pattern in config.core)
        seeds += f" (those beside {core} from {config.num_other_seeds})"
    sentences = [
        f"{_plural(len(study.patterns), 'block pattern')} at hidden size {encoder.hidden_size}, "
        f"each pre-trained for {numbers.count(config.pretraining.num_train_steps)} steps from "
        f"{seeds}, then fine-tuned {_plural(runs, 'time')} on each of "
        f"{_plural(len(study.tasks), 'task')}. The reference is `{study.reference}`.",
        "Everything below holds at this size, on this data and with this number of seeds. It "
        "claims nothing for BERT-Base.",
        "None of the paper's own figures is used, since only its abstract is at hand: the "
        "patterns of this grid are our reading of it.",
    ]
    if study.left_cells:
        sentences.append(
            f"The study is not finished: {len(study.left_cells)} of "
            f"{_plural(len(study.cells), 'cell')} are not run yet, and what follows rests on the "
            "others."
        )
    if study.failed_cells:
        sentences.append(
            f"{len(study.failed_cells)} of {_plural(len(study.cells), 'cell')} failed; they are "
            "listed with their reasons under Failed cells and stand as failed in the tables."
        )
    return sentences


def findings(study: StudyResults, pattern: str) -> list[Finding]:
    """What the run shows of one pattern, against the reference when it is another."""
    if not study.pretraining(pattern):
        state = study.absence("pretraining", pattern=pattern)
        reason = "its pre-training failed" if state == FAILED else "it was not pre-trained"
        return [Finding("Pre-training", f"`{pattern}` has no results: {reason}.")]
    found = [_learning(study, pattern)]
    if pattern != study.reference:
        if study.pretraining(study.reference):
            found = [*_cost(study, pattern), _loss(study, pattern), *found]
        else:
            found.append(
                Finding("Reference", f"`{study.reference}` has no results to compare with.")
            )
    found += [f for task in study.tasks for f in _task(study, task, pattern)]
    found += _cka(study, pattern)
    found += [f for task in study.probed for f in _probe(study, task, pattern)]
    return found


def _cost(study: StudyResults, pattern: str) -> list[Finding]:
    def both(key):
        return (
            numbers.estimate(r[key] for r in study.pretraining(p)).mean
            for p in (pattern, study.reference)
        )

    parameters, full_parameters = both("parameters")
    flops, full_flops = both("forward_flops")
    time = "Its steps were not timed."
    if ratios := study.step_ratios(pattern):
        step, full_step = both("step_milliseconds")
        time = (
            f"A training step took {numbers.decimals(step, 1)} ms, "
            f"{numbers.ratio(step, full_step)} the reference's {numbers.decimals(full_step, 1)} "
            f"ms: medians of {len(ratios)} rounds in turn, so that both saw the same machine."
        )
    return [
        Finding(
            "Size",
            f"{numbers.count(parameters)} parameters, "
            f"{numbers.ratio(parameters, full_parameters)} the reference's "
            f"{numbers.count(full_parameters)}; {numbers.large(flops)} forward FLOPs a sequence, "
            f"{numbers.ratio(flops, full_flops)} its {numbers.large(full_flops)}.",
        ),
        Finding("Time", time),
    ]


def _loss(study: StudyResults, pattern: str) -> Finding:
    own, full = study.loss_by_seed(pattern), study.loss_by_seed(study.reference)
    difference = numbers.paired(own, full)
    if difference is None:
        return Finding(
            "MLM loss", "No pre-training seed is finished for both it and the reference."
        )
    steps = {r["steps"] for p in (pattern, study.reference) for r in study.pretraining(p)}
    frame = "after equally many steps" if len(steps) == 1 else "after different numbers of steps"
    shared = [seed for seed in own if seed in full]
    values = (numbers.estimate(losses[seed] for seed in shared).mean for losses in (own, full))
    own_mean, full_mean = map(numbers.loss, values)
    text = (
        f"Held-out MLM loss {own_mean} nats against {full_mean} {frame}: "
        f"{_compared(difference.mean, 'higher', 'lower', 'no difference', numbers.loss, 'nats')} "
        f"({_uncertainty(difference, 'encoder', lambda x: numbers.signed(x, 3))}). "
        f"{_reading(difference, 'higher', 'lower')}"
    )
    return Finding("MLM loss", text)


def _learning(study: StudyResults, pattern: str) -> Finding:
    """Whether it has learnt from its context, beside both reference lines."""
    runs = study.pretraining(pattern)
    entropy = min(min(r["unigram_entropy"], r["validation_unigram_cross_entropy"]) for r in runs)
    worst = max(runs, key=lambda r: r["validation"]["loss"])["validation"]
    which = "its held-out loss is"
    if len(runs) > 1:
        which = f"the highest held-out loss of {len(runs)} seeds is"
    loss = f"{which} {numbers.loss(worst['loss'])} nats"
    unigrams = f"{numbers.loss(entropy)} by word frequencies alone (unigram entropy)"
    known = [r["learnt"] for r in runs if r.get("learnt") is not None]
    if not known:
        return Finding(
            "Learning",
            "Not known whether it has learnt from its context, since these results have no "
            f"neighbour model beside them: {loss} against {unigrams}.",
        )
    against = (
        f"{loss} against {numbers.loss(worst['neighbour_model_loss'])} of the neighbour model and "
        f"{unigrams}"
    )
    if worst["loss_at_mask"] is not None:
        against += (
            f"; where [MASK] shows, {numbers.loss(worst['loss_at_mask'])} against "
            f"{numbers.loss(worst['neighbour_model_loss_at_mask'])} of the neighbour model"
        )
    if all(known):
        return Finding("Learning", f"It has learnt from its context: {against}.")
    who = "It has" if len(known) == 1 else f"{known.count(False)} of its {len(known)} encoders have"
    return Finding(
        "Learning",
        f"{who} not learnt from the context: {against}. What is compared below says nothing of "
        "what blocks are worth.",
    )


def _task(study: StudyResults, task: str, pattern: str) -> list[Finding]:
    score = study.score(task, pattern, PRETRAINED)
    if score.estimate is None:
        absent = study.absence("finetuning", task, pattern=pattern, start=PRETRAINED)
        return [Finding(task, f"No finished fine-tuning ({absent}).")]
    metric = numbers.metric(study.metric(task))
    text = f"Test {metric} {numbers.percent(score.estimate.mean)} %"
    if pattern != study.reference:
        difference, unit = score_difference(study, task, pattern)
        if difference is None:
            text += "; no seed is finished for both it and the reference."
        else:
            moved = _compared(
                difference.mean, "above", "below", "level with", numbers.percent, "points"
            )
            text += (
                f", {moved} the reference ({_uncertainty(difference, unit, numbers.points)}). "
                f"{_reading(difference, 'above', 'below')}"
            )
    else:
        text += "."
    return [Finding(task, f"{text} {_baselines(study, task, pattern)}")]


def _baselines(study: StudyResults, task: str, pattern: str) -> str:
    pretrained = study.score(task, pattern, PRETRAINED).estimate.mean
    majority, is_asked = study.majority(task), pattern in study.config.from_scratch
    of_random_weights = pattern if is_asked else study.reference
    scratch = study.score(task, of_random_weights, SCRATCH).estimate
    text = f"The majority class gives {numbers.percent(majority)} %"
    encoder = f"{'the same encoder' if is_asked else 'the reference'} from random weights"
    if scratch is None:
        return f"{text}; {encoder} has no finished run."
    text += f", {encoder} {numbers.percent(scratch.mean)} %"
    if not is_asked:
        return f"{text}."
    gain = pretrained - scratch.mean
    return f"{text}: pre-training changed it by {numbers.points(gain)} points."


def _cka(study: StudyResults, pattern: str) -> list[Finding]:
    if pattern == study.reference:
        return []
    pairs = study.cka_with_reference(pattern)
    mean = mean_matched_attention(pairs)
    if mean is None:
        reason = (
            "no entry could be computed"
            if pairs
            else f"no finished cell ({_cka_absence(study, pattern)})"
        )
        return [Finding("CKA", f"Not known against the reference: {reason}.")]
    values = [value for pair in pairs for value in matched_attention(pair)]
    known = sum(value is not None for value in values)
    text = (
        f"Attention taps at the same attention index agree with the reference's by a mean CKA of "
        f"{numbers.loss(mean)} ({known} of {_plural(len(values), 'tap')}"
        + (f", {len(pairs)} pairs of encoders" if len(pairs) > 1 else "")
        + ")."
    )
    baselines = [
        (f"`{p}` against its untrained twin", mean_matched_attention(study.cka("untrained", p)))
        for p in (study.reference, pattern)
    ]
    baselines.append(
        (
            f"two seeds of `{study.reference}`",
            mean_matched_attention(study.cka("other seed", study.reference)),
        )
    )
    known = [f"{name} {numbers.loss(value)}" for name, value in baselines if value is not None]
    text += f" For comparison: {'; '.join(known)}." if known else " No baseline is finished."
    if baselines[-1][1] is None:
        text += " How far two seeds of the reference lie apart is not known from this run."
    if study.config.num_pretraining_seeds == 1:
        text += " Both encoders began with equal values in the blocks they share, which raises it."
    return [Finding("CKA", text)]


def _cka_absence(study: StudyResults, pattern: str) -> str:
    first, second = (
        {"pattern": p, "seed": study.config.seed, "trained": True}
        for p in (study.reference, pattern)
    )
    return study.absence("cka", first=first, second=second)


def _probe(study: StudyResults, task: str, pattern: str) -> list[Finding]:
    best = study.best_probe(task, pattern, "accuracy")
    untrained = study.best_probe(task, pattern, "untrained_accuracy")
    if best is None or untrained is None:
        absent = study.absence("probing", task, pattern=pattern)
        return [Finding(f"Probe {task}", f"No finished probing ({absent}).")]
    text = (
        f"The best linear probe reads {numbers.percent(best[1])} % at `{best[0]}`; in the "
        f"untrained twin {numbers.percent(untrained[1])} % at `{untrained[0]}`."
    )
    reference = study.best_probe(task, study.reference, "accuracy")
    if pattern != study.reference and reference is not None:
        text += f" The reference's best is {numbers.percent(reference[1])} % at `{reference[0]}`."
    return [Finding(f"Probe {task}", text)]


def _compared(difference: float, more: str, less: str, same: str, show, unit: str) -> str:
    """`1.2 points below`."""
    if difference == 0:
        return same
    return f"{show(abs(difference))} {unit} {more if difference > 0 else less}"


def _uncertainty(found: numbers.Estimate, unit: str, show) -> str:
    if found.interval is None:
        return f"n = 1 {unit}, no interval"
    return f"95 % interval {numbers.between(found.interval, show)}, n = {found.n} {unit}s"


def _reading(found: numbers.Estimate, more: str, less: str) -> str:
    """How a paired difference may be read; `more` and `less` name its two directions."""
    if found.interval is None:
        return "One pair shows neither a difference nor equality."
    if found.interval[0] <= 0 <= found.interval[1]:
        return (
            f"The interval covers 0; with {'so few' if found.n < FEW_SEEDS else 'these'} seeds "
            "that is no proof of equality."
        )
    direction = more if found.mean > 0 else less
    return f"The interval leaves 0 out: at this size and on this data it is {direction}."


def _plural(number: int, noun: str) -> str:
    return f"{numbers.count(number)} {noun}{'' if number == 1 else 's'}"
