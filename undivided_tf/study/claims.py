"""The claims that a study tests, and its verdicts.

A verdict holds at the study's size and data, never for BERT-Base unless BERT-Base was run.
The margins are named in the study's config, before it runs. Needs no TensorFlow.
"""

from undivided_tf.study.budgets import STEPS
from undivided_tf.study.judging import Claim, Verdict
from undivided_tf.study.results import StudyResults


def declared(study: StudyResults) -> tuple[Claim, ...]:
    """The claims of the kinds of a study, from its config alone; of equal steps first."""
    claims = [
        claim
        for kind in study.kinds
        if kind.included(study.config)
        for claim in kind.claims(study.config)
    ]
    return tuple(sorted(claims, key=lambda claim: not {STEPS}.issuperset(claim.budgets)))


def verdicts(study: StudyResults) -> dict[str, dict[str, Verdict]]:
    """The verdict on every claim about every pattern but the reference.

    Args:
        study: the results.

    Returns:
        Verdicts by name of the claim, then by pattern.
    """
    return {
        claim.name: {pattern: claim.verdict(study, pattern) for pattern in study.reduced}
        for claim in declared(study)
    }
