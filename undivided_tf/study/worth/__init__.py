"""What an intermediate block is worth in training compute; needs no TensorFlow.

Loss-compute curves become compute multipliers with intervals, a crossover, a joint fit over sizes
and budgets, and verdicts that stay valid while a study grows.
"""

from undivided_tf.study.worth.joint_fit import JointFit, fit_jointly
from undivided_tf.study.worth.multiplier import (
    Crossover,
    Multiplier,
    compute_multiplier,
    crossover,
    frontier,
)
from undivided_tf.study.worth.sequential import (
    Candidate,
    Look,
    chance_to_decide,
    choose_next,
    decide,
    look_levels,
)
from undivided_tf.study.worth.verdicts import Verdict, judge, name_interval, seeds_needed

__all__ = [
    "Candidate",
    "Crossover",
    "JointFit",
    "Look",
    "Multiplier",
    "Verdict",
    "chance_to_decide",
    "choose_next",
    "compute_multiplier",
    "crossover",
    "decide",
    "fit_jointly",
    "frontier",
    "judge",
    "look_levels",
    "name_interval",
    "seeds_needed",
]
