"""Budgets: what a pattern has in common with the reference.

That is steps, training FLOPs, training time, parameters, or the weights it starts from. At equal
steps the encoders differ in their blocks only, so that the smaller one costs less. Other budgets
let it spend what it saved on more steps, more blocks or wider ones, or start from the trained
reference.
"""

import dataclasses
import functools
from typing import Any

from undivided_tf import accounting, partners
from undivided_tf.config import EncoderConfig
from undivided_tf.data.corpus.config import PAIR_PACKINGS, RecordsConfig
from undivided_tf.errors import InputError
from undivided_tf.pattern import BlockPattern
from undivided_tf.study.config import PARTNERS, StudyConfig
from undivided_tf.training.config import GIVEN_WEIGHTS, PretrainingConfig

STEPS, FLOPS, TIME, SURGERY, PARAMETERS = "steps", "flops", "time", "surgery", "parameters"
INVESTMENTS = {
    "more_attention": "attention",
    "wider_intermediate": "intermediate",
    "wider_hidden": "hidden",
    "shared_intermediate": "shared",
}
NAMES = {
    STEPS: "equal steps",
    FLOPS: "equal training FLOPs",
    TIME: "equal training time",
    PARAMETERS: "equal parameters, in the shape that is best on pilot seeds",
    "more_attention": "equal parameters, more attention blocks",
    "wider_intermediate": "equal parameters, wider intermediate blocks",
    "wider_hidden": "equal parameters, a wider hidden size",
    "shared_intermediate": "equal parameters, one shared wide intermediate block",
    SURGERY: "an equal start, cut out of the trained reference and healed",
}
_EQUAL_PARAMETERS = "equal parameters, "
TOLERANCE = 0.01  # Of parameters, as a share of the reference's.


def legend_name(name: str) -> str:
    """A value of `NAMES` for a legend: of a partner, only what the freed parameters become."""
    return name.removeprefix(_EQUAL_PARAMETERS)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One encoder of a study.

    Attributes:
        pattern: canonical pattern that it stands for; a partner of equal parameters may have
            more blocks.
        seed: of its pre-training.
        budget: one of `NAMES`.
        size: one of the config's `sizes`; empty: that of its flags.
    """

    pattern: str
    seed: int
    budget: str = STEPS
    size: str = ""

    @property
    def at_equal_steps(self) -> bool:
        """Whether it is trained as long as the reference, and no more."""
        return self.budget == STEPS

    @property
    def extra(self) -> dict[str, Any]:
        """What a label says beyond pattern and seed: nothing at equal steps and first size."""
        budget = {} if self.budget == STEPS else {"budget": self.budget}
        return budget | ({"size": self.size} if self.size else {})


def pretraining(config: StudyConfig, arm: Arm) -> PretrainingConfig:
    """The recipe of an arm; at equal time, that of equal steps until times are measured.

    Raises:
        InputError: the pattern cannot have this budget; see `partner`.
    """
    recipe = config.pretraining.replace(
        encoder=config.encoder(arm.pattern, arm.size),
        seed=arm.seed,
        learning_rate=next(
            (
                config.learning_rates[arm.pattern, arm.size, budget]
                for budget in (arm.budget, STEPS)
                if (arm.pattern, arm.size, budget) in config.learning_rates
            ),
            config.pretraining.learning_rate,
        ),
    )
    if arm.budget in PARTNERS:
        return recipe.replace(encoder=partner(config, arm.pattern, arm.budget, arm.size))
    if arm.budget == FLOPS:
        reference = config.encoder(config.canonical_patterns[0], arm.size)
        flops, reference_flops = (
            step_flops(config, encoder) for encoder in (recipe.encoder, reference)
        )
        return with_steps(recipe, reference_flops / flops)
    if arm.budget == SURGERY:
        whole = BlockPattern.parse(config.canonical_patterns[0])
        if "" in recipe.encoder.pattern.counterparts(whole):
            raise InputError(f"{arm.pattern} has more attention blocks than {whole}")
        healing = recipe.replace(**GIVEN_WEIGHTS, cooldown_steps=())
        return with_steps(healing, config.healing_proportion)
    return recipe


def with_steps(recipe: PretrainingConfig, factor: float) -> PretrainingConfig:
    """A recipe of `factor` times the steps; warm-up and budgets of branches keep their share."""
    steps = max(1, round(recipe.num_train_steps * factor))

    def scaled(number: int) -> int:
        return round(number * steps / recipe.num_train_steps)

    return recipe.replace(
        num_train_steps=steps,
        num_warmup_steps=scaled(recipe.num_warmup_steps),
        cooldown_steps=tuple(map(scaled, recipe.cooldown_steps)),
    )


def partner(config: StudyConfig, pattern: str, budget: str, size: str = "") -> EncoderConfig:
    """The encoder of a pattern with the reference's parameters, at one of `PARTNERS`.

    Raises:
        InputError: there is no such encoder, or its shape is not known.
    """
    plain, reference = (config.encoder(p, size) for p in (pattern, config.canonical_patterns[0]))
    vocabulary = vocab_size(config.records)
    if is_as_large(plain, reference, vocabulary):
        return plain
    if budget == PARAMETERS:
        if (pattern, size) not in config.shapes:
            raise InputError("no shape of it was tried on pilot seeds")
        budget = config.shapes[pattern, size]
    return matched(plain, reference, budget, vocabulary)


def partner_pattern(config: StudyConfig, pattern: str, budget: str, size: str = "") -> str:
    """The pattern of a partner of equal parameters; empty if it is `pattern`, or there is none."""
    try:
        block_pattern = partner(config, pattern, budget, size).block_pattern
    except InputError:
        return ""
    return "" if block_pattern == pattern else block_pattern


def is_as_large(plain: EncoderConfig, reference: EncoderConfig, vocabulary: int) -> bool:
    """Whether `plain` has as many parameters as `reference`, up to `TOLERANCE`."""
    parameters, wanted = (
        accounting.count_parameters(encoder.replace(vocab_size=vocabulary))
        for encoder in (plain, reference)
    )
    return abs(parameters / wanted - 1) <= TOLERANCE


def matched(
    plain: EncoderConfig, reference: EncoderConfig, budget: str, vocabulary: int
) -> EncoderConfig:
    """`plain`, enlarged by `INVESTMENTS[budget]` to the parameters of `reference`.

    Args:
        plain: the encoder to enlarge.
        reference: the encoder whose number of parameters it gets.
        budget: what the parameters are spent on; a key of `INVESTMENTS`.
        vocabulary: number of word pieces, which neither config holds yet.

    Raises:
        InputError: as `partners.matched_partner`.
    """
    larger = partners.matched_partner(
        *(encoder.replace(vocab_size=vocabulary) for encoder in (plain, reference)),
        INVESTMENTS[budget],
        TOLERANCE,
    )
    return larger.replace(vocab_size=plain.vocab_size)


def same_as(config: StudyConfig, pattern: str, budget: str, size: str = "") -> str | None:
    """The pattern whose encoder at equal steps is this one at this budget, where there is one.

    It is the pattern itself if it has the budget of the reference anyway, or another pattern of the
    grid if its partner happens to be that one.

    Raises:
        InputError: the pattern cannot have this budget.
    """
    recipe = pretraining(config, Arm(pattern, config.seed, budget, size))
    if budget in (STEPS, TIME, SURGERY):
        return pattern if budget == STEPS else None
    for other in config.canonical_patterns:
        if recipe == pretraining(config, Arm(other, config.seed, STEPS, size)):
            return other
    return None


def compared(config: StudyConfig) -> tuple[str, ...]:
    """The patterns that are compared at budgets beside equal steps."""
    return config.core[1:]


def others(config: StudyConfig) -> tuple[str, ...]:
    """The config's budgets beside equal steps, each once."""
    return tuple(budget for budget in dict.fromkeys(config.budgets) if budget != STEPS)


def infeasible(config: StudyConfig) -> list[str]:
    """Which patterns cannot have a budget, and why: a sentence each."""
    reasons = []
    for size in ("", *config.sizes):
        for budget in others(config):
            for pattern in compared(config):
                try:
                    pretraining(config, Arm(pattern, config.seed, budget, size))
                except InputError as error:
                    where = f"{NAMES[budget]}{f', size {size}' if size else ''}"
                    reasons.append(f"`{pattern}` cannot have {where}: {error}.")
    return reasons


def step_flops(config: StudyConfig, encoder: EncoderConfig) -> int:
    """Training FLOPs of one step of an encoder of the study."""
    recipe, records = config.pretraining, config.records
    length = records.max_seq_length
    slots = accounting.prediction_slots(
        length,
        recipe.masked_lm_prob,
        recipe.max_predictions_per_seq,
        recipe.initial_masked_lm_prob,
    )
    pairs = records.packing in PAIR_PACKINGS and recipe.next_sentence_weight > 0
    return accounting.training_flops(
        encoder.replace(vocab_size=vocab_size(records)),
        length,
        slots,
        recipe.train_batch_size,
        pairs,
    )


def vocab_size(records: RecordsConfig) -> int:
    """Word pieces of the records' vocabulary: lines of the file, or the size that is trained."""
    if records.vocab_file:
        return _lines(records.vocab_file)
    return records.vocab_size


@functools.cache
def _lines(vocab_file: str) -> int:
    from undivided_tf.tokenization import read_vocabulary  # Late: brings TensorFlow.

    return len(read_vocabulary(vocab_file))
