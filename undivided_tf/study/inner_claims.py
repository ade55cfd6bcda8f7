"""Claims on what goes on inside: rank collapse, linearity of blocks, grammar."""

import math
import statistics

from undivided_tf.study.judging import (
    ACCURACY_MARGIN,
    Claim,
    Scores,
    Verdict,
    beyond,
    not_worse,
    paired,
    points,
)
from undivided_tf.study.results import StudyResults

# Declared here, before any study runs.
COLLAPSED = 0.5  # Of the reference's residual.
CHANCE = 0.5  # Of two sentences.
NEARLY_LINEAR = 0.9  # Share of the variance that an affine map explains.


def _collapse(study: StudyResults, pattern: str) -> Verdict:
    own, full = (
        {
            seed: math.log(max(r["blocks"]["collapse"]["relative_residual"][-1], 1e-30))
            for seed, r in study.by_seed("diagnostics", p).items()
        }
        for p in (pattern, study.reference)
    )
    fallen = [-difference for difference in paired(own, full)]
    words = (
        f"the residual is less than {COLLAPSED:g} of the reference's",
        f"the residual is more than {COLLAPSED:g} of the reference's",
    )
    matter = "log of the reference's residual over its own"
    return beyond(matter, fallen, -math.log(COLLAPSED), words)


def _linear(study: StudyResults, pattern: str) -> Verdict:
    values = []
    for result in study.by_seed("diagnostics", study.reference).values():
        known = [
            fit["contribution"]
            for fit in result["blocks"]["linear_r2"].values()
            if fit["contribution"] is not None
        ]
        if known:
            values.append(statistics.fmean(known))
    words = (
        f"an affine map explains more than {NEARLY_LINEAR:g} of what they add, in the reference",
        f"an affine map explains less than {NEARLY_LINEAR:g} of what they add, in the reference",
    )
    return beyond("share explained, in the reference", values, NEARLY_LINEAR, words)


def _grammar(study: StudyResults, pattern: str) -> Verdict:
    own, full = (
        {
            seed: r["accuracy"]
            for seed, r in study.by_seed("blimp", p).items()
            if r["accuracy"] is not None
        }
        for p in (pattern, study.reference)
    )
    margin = study.config.accuracy_margin
    scores = {"BLiMP": Scores(own, full, CHANCE)}
    return not_worse(scores, margin, points(margin, "accuracy"))


DIAGNOSTICS = (
    Claim(
        "rank collapse",
        "The tokens of a text collapse into one.",
        "relative residual of the last tap (how far tokens are from their mean), logarithm of "
        "its ratio to the reference's, paired by pre-training seed",
        f"a ratio of {COLLAPSED:g}",
        "the ratio is below the margin (one-sided t-test); not supported when it is above",
        _collapse,
    ),
    Claim(
        "near linearity",
        "The reference's intermediate blocks are nearly linear.",
        "share of the variance of what a block adds that the best affine map of its input "
        "explains on other texts, mean over the intermediate blocks of the reference",
        f"{NEARLY_LINEAR:g}",
        "the share is above the margin (one-sided t-test); not supported when it is below",
        _linear,
        frames=(),
    ),
)
GRAMMAR = Claim(
    "grammar kept",
    "It tells grammatical sentences as well.",
    "accuracy on BLiMP, mean over its paradigms, paired by pre-training seed",
    ACCURACY_MARGIN,
    "a loss of the margin or more is ruled out, and the reference beats chance by more (one-sided "
    "t-tests)",
    _grammar,
    "points",
)
