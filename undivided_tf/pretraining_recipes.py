"""What the binaries of records and pre-training can be told; as `undivided_tf.recipes`."""

import dataclasses
import pathlib
from typing import Any, Self

from undivided_tf.config import (
    Config,
    EncoderConfig,
    option,
    require_positive,
    require_share,
    section,
    seed_option,
)
from undivided_tf.errors import InputError
from undivided_tf.inputs import Input

STRATEGIES = ("one_device", "mirrored", "multi_worker", "tpu")
DTYPES = ("float32", "bfloat16", "float16")
MASKING_UNITS = ("token", "whole_word", "span")
OPTIMIZERS = ("adamw", "lamb", "muon")
SCHEDULES = ("linear", "cosine", "one_cycle", "trapezoid")
COOLDOWNS = ("linear", "1-sqrt")
POSITION_INITIALIZERS = ("normal", "sinusoid", "neighbours")
OUTPUT_BIAS_INITIALIZERS = ("zeros", "unigram")
PAIR_PACKINGS = ("next_sentence", "sentence_order")
PACKINGS = ("full", *PAIR_PACKINGS, "document")
DEDUPLICATIONS = ("none", "exact", "near")
BEAM_RUNNERS = ("DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner")
RUNNERS = ("in_process", "dask", *BEAM_RUNNERS)


@dataclasses.dataclass(frozen=True)
class RecordsConfig(Config):
    """How text becomes packed token records."""

    input_files: tuple[str, ...] = option(
        ("sample",),
        "Corpus: files or globs, tfds:NAME, or `sample`, the embedded corpus. Files are text (one "
        "paragraph a line, a blank line ends a document), JSON lines (.jsonl, .ndjson, .json), "
        "either of them with .gz behind, or .parquet.",
        input="corpus",
    )
    text_field: str = option("text", "Field, or column, with the text of a document.")
    deduplicate: str = option(
        "none", "Leave out documents whose text was there before: exact, or near for those, too, "
        "that share four fifths of their runs of five words (MinHash).", DEDUPLICATIONS,
    )  # fmt: skip
    output_dir: str = option("", "Directory for the records, vocab.txt and metadata.json.")
    vocab_file: str = option(
        "", "Vocabulary, one word piece a line; empty: train one.", input="file"
    )
    vocab_size: int = option(8000, "Size of the vocabulary that is trained.")
    do_lower_case: bool = option(True, "Lower-case the text and strip accents.")
    max_seq_length: int = option(128, "Word pieces a record, [CLS] and [SEP] included.")
    packing: str = option(
        "full", "What a record holds: full: as much text as goes in, [SEP] between documents; "
        "next_sentence: two segments, the second from another document half the time; "
        "sentence_order: two, half the time in the wrong order; document: text of one document.",
        PACKINGS,
    )  # fmt: skip
    short_seq_prob: float = option(
        0.1, "Share of the documents whose pairs of segments get a random, shorter length."
    )
    num_shards: int = option(8, "Training record files; reading holds one in memory.")
    validation_fraction: float = option(
        0.02, "Share of the documents held out from training; at least one document."
    )
    random_seed: int = seed_option("Decides pairs, and which shard each record goes to.")
    runner: str = option(
        "in_process", "Who works; the records are the same: this process, a Dask cluster, or a "
        "runner of Apache Beam (extra `beam`). All workers must see the input and output folders.",
        RUNNERS,
    )  # fmt: skip
    num_processes: int = option(
        0, "Worker processes of the Dask cluster on this machine; 0: one a core."
    )
    scheduler: str = option(
        "", "Address of a standing Dask scheduler, such as tcp://HOST:8786; empty: a cluster on "
        "this machine."
    )  # fmt: skip
    pipeline_options: tuple[str, ...] = option(
        (), "Options of Apache Beam, such as --direct_num_workers=2."
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(self, "vocab_size", "num_shards")
        require_share(self, "validation_fraction", "short_seq_prob")
        if self.num_processes < 0:
            raise InputError(f"num_processes must be from 0, got {self.num_processes}")
        if self.scheduler and self.runner != "dask":
            raise InputError(f"scheduler is for the runner dask, not for {self.runner}")
        if self.pipeline_options and self.runner not in BEAM_RUNNERS:
            raise InputError(
                f"pipeline_options are for the runners {', '.join(BEAM_RUNNERS)}, not for "
                f"{self.runner}"
            )
        if self.max_seq_length < 8:
            raise InputError(f"max_seq_length must be at least 8, got {self.max_seq_length}")


@dataclasses.dataclass(frozen=True)
class Stage:
    """Steps of a pre-training run that have one batch size and one set of records.

    Attributes:
        first_step: steps done before the stage.
        last_step: steps done behind it.
        batch_size: sequences a step.
        records_dir: where they come from.
        first_row: rows that earlier stages took from the same records.
    """

    first_step: int
    last_step: int
    batch_size: int
    records_dir: str
    first_row: int


# What the fields of initial values are where all weights come from a checkpoint.
GIVEN_WEIGHTS = {
    "position_initializer": "normal",
    "output_bias_initializer": "zeros",
    "zero_residual_outputs": False,
}


@dataclasses.dataclass(frozen=True)
class PretrainingConfig(Config):
    """Masked-language-model pre-training; the defaults follow Devlin et al. 2018."""

    workdir: str = option("", "Directory for checkpoints, logs and results.")
    records_dir: str = option("", "What create_pretraining_data wrote.", input="records")
    encoder: EncoderConfig = section(
        EncoderConfig(), without=("vocab_size", "vocabulary_hash", "do_lower_case")
    )
    init_checkpoint: str = option(
        "",
        "Checkpoint to go on from; it brings its sizes along. Empty: random weights.",
        input="checkpoint",
    )
    new_weights: tuple[str, ...] = option(
        (), "Layers or weights that start anew; all others must be in init_checkpoint."
    )
    position_initializer: str = option(
        "normal", "Initial position embeddings: random; sines and cosines of the place (sinusoid); "
        "or those, and heads of the first attention block that look at the neighbours.",
        POSITION_INITIALIZERS,
    )  # fmt: skip
    output_bias_initializer: str = option(
        "zeros", "Initial output bias of the masked-language-model head; unigram: logarithms of "
        "the frequencies of word pieces.", OUTPUT_BIAS_INITIALIZERS,
    )  # fmt: skip
    zero_residual_outputs: bool = option(
        False, "Output kernels of all blocks begin at zero, so that each passes its input on."
    )
    teacher_checkpoint: str = option(
        "",
        "Frozen encoder whose states and answers are learnt too; empty: none.",
        input="checkpoint",
    )
    distillation_hidden_weight: float = option(
        1.0, "Weight of the mean squared difference from the teacher's states at matching taps."
    )
    distillation_logits_weight: float = option(
        1.0, "Weight of the divergence from the teacher's answers at masked positions."
    )
    distillation_temperature: float = option(2.0, "Divides both logits before their softmax.")
    masked_lm_weight: float = option(
        1.0, "Weight of the masked-language-model loss; at 0, and without the teacher's answers, "
        "the head stays as it is."
    )  # fmt: skip
    train_batch_size: int = option(256, "Sequences a step, over all devices.")
    gradient_accumulation_steps: int = option(
        1, "Parts into which each device splits its share of the batch to save memory."
    )
    recompute: bool = option(
        False, "Compute the inner parts of blocks once more in the backward pass, instead of "
        "keeping them: less memory, about a fifth more time, the same training."
    )  # fmt: skip
    num_train_steps: int = option(100_000, "Optimizer steps.")
    curriculum: tuple[str, ...] = option(
        (), "Later stages as STEP:BATCH_SIZE or STEP:BATCH_SIZE:RECORDS_DIR: behind so many steps "
        "the batch has that size and comes from those records, of longer rows perhaps."
    )  # fmt: skip
    learning_rate: float = option(1e-4, "Peak learning rate.")
    num_warmup_steps: int = option(10_000, "Steps of warm-up; decay to 0 follows.")
    learning_rate_schedule: str = option(
        "linear", "Warm-up and decay: linear is lines, cosine a line and half a cosine, one_cycle "
        "two half cosines from a 25th of the peak; trapezoid stays at the peak and decays in a "
        "cooldown at the end.", SCHEDULES,
    )  # fmt: skip
    cooldown_fraction: float = option(
        0.2, "Under trapezoid: share of all steps that the cooldown takes."
    )
    cooldown_shape: str = option(
        "linear", "Under trapezoid: how the rate falls to 0: a line, or one minus the root of the "
        "share of the cooldown that is done.", COOLDOWNS,
    )  # fmt: skip
    cooldown_steps: tuple[int, ...] = option(
        (), "Under trapezoid: further budgets below num_train_steps, in steps. For each a branch "
        "leaves the run, cools down to 0 at that step, and is evaluated and saved in "
        "WORKDIR/branches; the run goes on as if there were none."
    )  # fmt: skip
    optimizer: str = option(
        "adamw", "Optimizer; lamb is for large batches, muon moves the kernels of blocks and of "
        "the head's transform and leaves all else to adamw.", OPTIMIZERS,
    )  # fmt: skip
    adam_learning_rate_ratio: float = option(
        1.0, "Under muon: learning rate of what adamw moves, as a multiple of learning_rate."
    )
    muon_momentum: float = option(0.95, "Momentum of the kernels that muon moves.")
    weight_decay_rate: float = option(0.01, "Weight decay; spares LayerNorm and biases.")
    adam_beta_1: float = option(0.9, "Decay of Adam's first moment.")
    adam_beta_2: float = option(0.999, "Decay of Adam's second moment.")
    adam_epsilon: float = option(1e-6, "Added to the root of Adam's second moment.")
    max_gradient_norm: float = option(1.0, "Gradients are clipped to this global norm.")
    ema_momentum: float = option(
        0.0, "Decay of a moving average of the weights, evaluated and saved beside them; 0: none."
    )
    masked_lm_prob: float = option(0.15, "Share of word pieces to predict.")
    initial_masked_lm_prob: float = option(
        0.0, "That share in the first step; a line leads to masked_lm_prob in the last (under "
        "trapezoid it begins with the cooldown). 0: the same throughout. Held-out records always "
        "have masked_lm_prob."
    )  # fmt: skip
    max_predictions_per_seq: int = option(0, "Most predictions a sequence; 0: all of that share.")
    masking_unit: str = option(
        "token", "What is masked whole: single word pieces, words (do_whole_word_mask of "
        "google-research/bert), or spans of words.", MASKING_UNITS,
    )  # fmt: skip
    intermediate_drop_rate: float = option(
        0.0, "Probability that a sequence passes by an intermediate block in training."
    )
    next_sentence_weight: float = option(
        1.0, "Weight of the loss on the label of pairs (next sentence or sentence order), where "
        "the records hold pairs; 0: masked language modelling only."
    )  # fmt: skip
    eval_every_steps: int = option(1000, "Steps between evaluations on held-out records.")
    max_eval_rows: int = option(2048, "Held-out records used for evaluation.")
    save_checkpoints_steps: int = option(1000, "Steps between checkpoints.")
    keep_checkpoints: int = option(2, "Newest checkpoints to keep, beside the best.")
    max_skipped_steps: int = option(
        0, "Steps with NaN or Inf that are left out; one more ends the run."
    )
    seed: int = seed_option("Decides weights, data order, masks and dropout.")
    strategy: str = option("one_device", "tf.distribute strategy.", STRATEGIES)
    tpu_name: str = option("", "Name or address of the TPU; empty: what the environment names.")
    dtype: str = option(
        "float32",
        "What the layers compute in; weights, softmax, LayerNorm and losses stay float32.",
        DTYPES,
    )
    jit_compile: bool = option(True, "Compile the step with XLA.")
    deterministic: bool = option(True, "Use deterministic kernels only.")

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(
            self, "train_batch_size", "num_train_steps", "learning_rate", "adam_epsilon",
            "max_gradient_norm", "masked_lm_prob", "eval_every_steps", "max_eval_rows",
            "save_checkpoints_steps", "keep_checkpoints", "gradient_accumulation_steps",
            "distillation_temperature", "adam_learning_rate_ratio",
        )  # fmt: skip
        if self.max_skipped_steps < 0:
            raise InputError(f"max_skipped_steps must be from 0, got {self.max_skipped_steps}")
        require_share(
            self, "masked_lm_prob", "initial_masked_lm_prob", "adam_beta_1", "adam_beta_2",
            "weight_decay_rate", "ema_momentum", "intermediate_drop_rate", "muon_momentum",
        )  # fmt: skip
        for name in ("adam_learning_rate_ratio", "muon_momentum"):
            default = type(self).__dataclass_fields__[name].default
            if self.optimizer != "muon" and getattr(self, name) != default:
                raise InputError(
                    f"{name} {getattr(self, name)} is for --optimizer=muon, got {self.optimizer}"
                )
        if not 0 <= self.num_warmup_steps <= self.num_train_steps:
            raise InputError(
                f"num_warmup_steps {self.num_warmup_steps} must be from 0 to "
                f"num_train_steps {self.num_train_steps}"
            )
        for name in (
            "next_sentence_weight", "masked_lm_weight",
            "distillation_hidden_weight", "distillation_logits_weight",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be from 0, got {getattr(self, name)}")
        if self.new_weights and not self.init_checkpoint:
            raise InputError("new_weights are those that init_checkpoint lacks: give it")
        for name, value in GIVEN_WEIGHTS.items():
            if self.init_checkpoint and getattr(self, name) != value:
                raise InputError(
                    f"{name} {getattr(self, name)} is for random weights, but init_checkpoint "
                    "brings its own: leave one of them out"
                )
        if self.position_initializer != "normal" and self.encoder.position_type != "absolute":
            raise InputError(
                f"position_initializer {self.position_initializer} is of position embeddings, "
                f"which position_type {self.encoder.position_type} has not: leave one of them out"
            )
        if self.position_initializer == "neighbours" and not self.encoder.pattern.num_attention:
            raise InputError(
                "position_initializer neighbours is of the first attention block, which "
                f"{self.encoder.block_pattern} has not"
            )
        if not self.masked_lm_weight and not self.distils:
            raise InputError(
                "masked_lm_weight 0 leaves nothing to learn: give --teacher_checkpoint"
            )
        self._validate_cooldowns()
        self.stages  # noqa: B018 - Raises what is wrong with the curriculum.

    def _validate_cooldowns(self) -> None:
        budgets = (*self.cooldown_steps, self.num_train_steps)
        if self.learning_rate_schedule != "trapezoid":
            if self.cooldown_steps:
                raise InputError(
                    f"cooldown_steps {_listed(self.cooldown_steps)} need "
                    f"--learning_rate_schedule=trapezoid, got {self.learning_rate_schedule}"
                )
            return
        require_positive(self, "cooldown_fraction")
        require_share(self, "cooldown_fraction")
        if sorted(set(budgets)) != list(budgets):
            raise InputError(
                f"cooldown_steps must rise and lie below num_train_steps {self.num_train_steps}, "
                f"got {_listed(self.cooldown_steps)}"
            )
        for steps in budgets:
            start = steps - self._num_cooldown_steps(steps)
            if start < self.num_warmup_steps or (not start and steps in self.cooldown_steps):
                raise InputError(
                    f"a cooldown that ends at step {steps} begins at step {start}, before or "
                    f"within the {self.num_warmup_steps} num_warmup_steps: lower them or "
                    "cooldown_fraction, or leave that budget out"
                )

    def _num_cooldown_steps(self, steps: int) -> int:
        return max(1, round(self.cooldown_fraction * steps))

    @property
    def cooldown_start(self) -> int:
        """Steps that are done when the run begins to cool down; 0 where it has no cooldown."""
        if self.learning_rate_schedule != "trapezoid":
            return 0
        return self.num_train_steps - self._num_cooldown_steps(self.num_train_steps)

    def branch_steps(self, first_step: int = 0, last_step: int | None = None) -> int:
        """Steps of all branches together, those of the trunk left out.

        Args:
            first_step, last_step: count those between these two only, such as those of a stage.
        """
        last_step = self.num_train_steps if last_step is None else last_step
        return sum(
            max(0, min(branch.num_train_steps, last_step) - max(branch.cooldown_start, first_step))
            for branch in self.branches
        )

    @property
    def branches(self) -> tuple[Self, ...]:
        """The run that each branch equals, in the order of `cooldown_steps`."""
        return tuple(
            self.replace(
                workdir=str(pathlib.Path(self.workdir) / "branches" / f"step_{steps:08d}"),
                num_train_steps=steps,
                cooldown_steps=(),
                curriculum=tuple(
                    text
                    for text, stage in zip(self.curriculum, self.stages[1:], strict=True)
                    if stage.first_step < steps
                ),
            )
            for steps in self.cooldown_steps
        )

    def inputs(self, without: tuple[str, ...] = ()) -> dict[str, list[Input]]:
        """As of any config, and the records of all stages."""
        later = {stage.records_dir for stage in self.stages} - {self.records_dir}
        more = [Input("records", records_dir) for records_dir in sorted(later)]
        return {**super().inputs(without), **({"curriculum": more} if more else {})}

    @property
    def distils(self) -> bool:
        """Whether a teacher takes part in the loss."""
        weights = self.distillation_hidden_weight + self.distillation_logits_weight
        return bool(self.teacher_checkpoint and weights)

    @property
    def stages(self) -> tuple["Stage", ...]:
        """The stages of the curriculum, the first from step 0 on; one without a curriculum."""
        form = "curriculum must list STEP:BATCH_SIZE or STEP:BATCH_SIZE:RECORDS_DIR"
        starts = [(0, self.train_batch_size, self.records_dir)]
        for text in self.curriculum:
            step, _, rest = text.partition(":")
            size, _, records_dir = rest.partition(":")
            if not step.isdecimal() or not size.isdecimal() or not int(size):
                raise InputError(f"{form}, got {text!r}")
            starts.append((int(step), int(size), records_dir or starts[-1][2]))
        ends = [*(start[0] for start in starts[1:]), self.num_train_steps]
        stages, rows = [], {}
        for (step, size, records_dir), end in zip(starts, ends, strict=True):
            if end <= step:
                raise InputError(
                    f"the steps of the curriculum must rise and lie between 0 and num_train_steps "
                    f"{self.num_train_steps}, got {', '.join(self.curriculum)}"
                )
            first_row = rows.get(records_dir, 0)
            stages.append(Stage(step, end, size, records_dir, first_row))
            rows[records_dir] = first_row + size * (end - step)
        return tuple(stages)

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`do_whole_word_mask` of older configs is `masking_unit` now."""
        if "do_whole_word_mask" not in values:
            return values
        values = dict(values)
        whole = values.pop("do_whole_word_mask")
        return {"masking_unit": "whole_word" if whole else "token", **values}


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


@dataclasses.dataclass(frozen=True)
class TimingConfig(Config):
    """Pre-training steps of a pattern and of the reference, in turn."""

    workdir: str = option("", "Directory of the cell; a study writes the result there.")
    records_dir: str = option("", "What create_pretraining_data wrote.", input="records")
    pretraining: PretrainingConfig = section(
        PretrainingConfig(), "pretraining.", without=("workdir", "records_dir")
    )
    reference_pattern: str = option("(AI)*12", "Pattern that is timed beside it.")
    num_rounds: int = option(30, "Rounds, in each of which both have their turn.")
    steps_per_round: int = option(3, "Steps of each in a round.")

    def validate(self) -> None:
        """Raises InputError when there is nothing to time."""
        require_positive(self, "num_rounds", "steps_per_round")
