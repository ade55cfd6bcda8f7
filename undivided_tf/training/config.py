"""Configs of pre-training, fine-tuning and their timings; needs no TensorFlow.

Names are those of google-research/bert, if it has them. Defaults are BERT's recipe.
"""

import dataclasses
import pathlib
import typing
from typing import Any, Self

from undivided_tf.config import (
    CLASSIFIER_POOLINGS,
    POOLING_HELP,
    SENTENCE_TASK_HELP,
    Config,
    EncoderConfig,
    option,
    section,
    seed_option,
)
from undivided_tf.errors import InputError
from undivided_tf.inputs import Input

STRATEGIES = ("one_device", "mirrored", "multi_worker", "tpu")
AUTO = "auto"
DTYPES = (AUTO, "float32", "bfloat16", "float16")
MASKING_UNITS = ("token", "whole_word", "span")
OPTIMIZERS = ("adamw", "lamb", "muon")
SCHEDULES = ("linear", "cosine", "one_cycle", "trapezoid")
COOLDOWNS = ("linear", "1-sqrt")
POSITION_INITIALIZERS = ("normal", "sinusoid", "neighbours")
OUTPUT_BIAS_INITIALIZERS = ("zeros", "unigram")
# The fields about initial values, if all weights come from a checkpoint.
GIVEN_WEIGHTS = {
    "position_initializer": "normal",
    "output_bias_initializer": "zeros",
    "zero_residual_outputs": False,
}
SELECTIONS = ("mean", "median", "maximum")
GLUE_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
# Of the synthetic corpora.
SPECIAL_IDS = 5  # [PAD], [UNK], [CLS], [SEP], [MASK].
LENGTH_OF_FACT = 6  # [CLS] key key key value [SEP].


def layerwise_decay_option() -> Any:
    """A field of a config for the decay of the learning rate from layer to layer."""
    return option(
        1.0,
        "Factor of the learning rate from each encoder layer to the one below it.",
        above=0,
        at_most=1,
    )


@dataclasses.dataclass(frozen=True)
class Stage:
    """A range of pre-training steps with one batch size and one set of records.

    Attributes:
        first_step: number of steps before the stage.
        last_step: number of steps at its end.
        batch_size: sequences per step.
        records_dir: records of these sequences.
        first_row: number of rows that earlier stages have used of the same records.
    """

    first_step: int
    last_step: int
    batch_size: int
    records_dir: str
    first_row: int


@dataclasses.dataclass(frozen=True)
class PretrainingConfig(Config):
    """Masked-language-model pre-training; the defaults follow Devlin et al. 2018."""

    workdir: str = option("", "Directory for checkpoints, logs and results.")
    records_dir: str = option("", "Directory that create_pretraining_data wrote.", input="records")
    encoder: EncoderConfig = section(
        EncoderConfig(), without=("vocab_size", "vocabulary_hash", "do_lower_case")
    )
    init_checkpoint: str = option(
        "",
        "Checkpoint to start from; it determines the sizes of the encoder. Empty: random weights.",
        input="checkpoint",
    )
    new_weights: tuple[str, ...] = option(
        (), "Layers or weights with new initial values; init_checkpoint must have all others."
    )
    position_initializer: str = option(
        "normal",
        "Initial position embeddings: normal: random; sinusoid: sines and cosines of the "
        "position; neighbours: the same, and heads of the first attention block attend to adjacent "
        "tokens.",
        one_of=POSITION_INITIALIZERS,
    )
    output_bias_initializer: str = option(
        "zeros",
        "Initial output bias of the masked-language-model head; unigram: logarithms of the "
        "frequencies of word pieces.",
        one_of=OUTPUT_BIAS_INITIALIZERS,
    )
    zero_residual_outputs: bool = option(
        False, "Set the output kernels of all blocks to 0, so that each passes its input on."
    )
    teacher_checkpoint: str = option(
        "",
        "Frozen teacher for the distillation of hidden states and predictions; empty: none.",
        input="checkpoint",
    )
    distillation_hidden_weight: float = option(
        1.0,
        "Weight of the mean squared difference from the teacher's activations at matching taps.",
        at_least=0,
    )
    distillation_logits_weight: float = option(
        1.0,
        "Weight of the divergence from the teacher's predictions at masked positions.",
        at_least=0,
    )
    distillation_temperature: float = option(
        2.0, "Divisor of the logits of teacher and student before the softmax.", above=0
    )
    masked_lm_weight: float = option(
        1.0,
        "Weight of the masked-language-model loss; at 0, and without the teacher's predictions, "
        "the head is not trained.",
        at_least=0,
    )
    train_batch_size: int = option(256, "Sequences per step, over all devices.", above=0)
    gradient_accumulation_steps: int = option(
        1, "Number of parts into which each device splits its batch to save memory.", above=0
    )
    recompute: bool = option(
        False,
        "Compute the inner parts of blocks again in the backward pass instead of keeping them: "
        "less memory, about a fifth more time, the same results.",
    )
    num_train_steps: int = option(100_000, "Optimizer steps.", above=0)
    curriculum: tuple[str, ...] = option(
        (),
        "Later stages as STEP:BATCH_SIZE or STEP:BATCH_SIZE:RECORDS_DIR: after STEP steps, batches "
        "have this size and come from these records, which may have longer rows.",
    )
    learning_rate: float = option(1e-4, "Peak learning rate.", above=0)
    num_warmup_steps: int = option(10_000, "Steps of warm-up before the decay to 0.", at_least=0)
    learning_rate_schedule: str = option(
        "linear",
        "Warm-up and decay: linear: both linear; cosine: linear warm-up, half a cosine; one_cycle: "
        "two half cosines from 1/25 of the peak; trapezoid: linear warm-up, constant, and a "
        "cooldown at the end.",
        one_of=SCHEDULES,
    )
    cooldown_fraction: float = option(
        0.2, "Under trapezoid: share of all steps in the cooldown.", above=0, below=1
    )
    cooldown_shape: str = option(
        "linear",
        "Under trapezoid: decay to 0: linear, or one minus the square root of the finished share "
        "of the cooldown.",
        one_of=COOLDOWNS,
    )
    cooldown_steps: tuple[int, ...] = option(
        (),
        "Under trapezoid: further budgets below num_train_steps, in steps. For each budget, a "
        "branch of the run cools down to 0 at this step, and is evaluated and saved in "
        "WORKDIR/branches. The run itself does not change.",
        above=0,
    )
    optimizer: str = option(
        "adamw",
        "Optimizer; lamb is for large batches; muon updates the kernels of blocks and of the "
        "head's transform, and adamw all other weights.",
        one_of=OPTIMIZERS,
    )
    adam_learning_rate_ratio: float = option(
        1.0,
        "Under muon: learning rate of the weights that adamw updates, relative to learning_rate.",
        above=0,
    )
    muon_momentum: float = option(
        0.95, "Momentum of the kernels that muon updates.", at_least=0, below=1
    )
    weight_decay_rate: float = option(
        0.01, "Weight decay, except for LayerNorm and biases.", at_least=0, below=1
    )
    adam_beta_1: float = option(0.9, "Decay of Adam's first moment.", at_least=0, below=1)
    adam_beta_2: float = option(0.999, "Decay of Adam's second moment.", at_least=0, below=1)
    adam_epsilon: float = option(1e-6, "Added to the square root of Adam's second moment.", above=0)
    max_gradient_norm: float = option(1.0, "Gradients are clipped to this global norm.", above=0)
    ema_momentum: float = option(
        0.0,
        "Decay of a moving average of the weights, which is also evaluated and saved; 0: none.",
        at_least=0,
        below=1,
    )
    masked_lm_prob: float = option(0.15, "Share of word pieces to predict.", above=0, below=1)
    initial_masked_lm_prob: float = option(
        0.0,
        "Share of word pieces to predict in the first step; it changes linearly to masked_lm_prob "
        "in the last step (under trapezoid: during the cooldown). 0: it is masked_lm_prob "
        "throughout. Held-out records always have masked_lm_prob.",
        at_least=0,
        below=1,
    )
    max_predictions_per_seq: int = option(
        0, "Largest number of predictions per sequence; 0: no limit.", at_least=0
    )
    masking_unit: str = option(
        "token",
        "Unit of masking: single word pieces, whole words (do_whole_word_mask of "
        "google-research/bert), or spans of words.",
        one_of=MASKING_UNITS,
    )
    intermediate_drop_rate: float = option(
        0.0,
        "Probability that a sequence skips an intermediate block in training (stochastic depth).",
        at_least=0,
        below=1,
    )
    next_sentence_weight: float = option(
        1.0,
        "Weight of the loss on the label of pairs (next sentence or sentence order), if the "
        "records hold pairs; 0: masked language modelling only.",
        at_least=0,
    )
    eval_every_steps: int = option(1000, "Steps between evaluations on held-out records.", above=0)
    max_eval_rows: int = option(2048, "Held-out records used for evaluation.", above=0)
    save_checkpoints_steps: int = option(1000, "Steps between checkpoints.", above=0)
    keep_checkpoints: int = option(
        2, "Number of newest checkpoints to keep, in addition to the best.", above=0
    )
    max_skipped_steps: int = option(
        0, "Number of steps with NaN or Inf to skip; the next one ends the run.", at_least=0
    )
    seed: int = seed_option("Decides weights, data order, masks and dropout.")
    strategy: str = option("one_device", "tf.distribute strategy.", one_of=STRATEGIES)
    tpu_name: str = option("", "Name or address of the TPU; empty: the TPU of the environment.")
    dtype: str = option(
        "float32",
        "Type of the computation; weights, softmax, LayerNorm and losses are always float32. auto: "
        "bfloat16 if the processor multiplies faster in it (on CPUs without XLA), else float32.",
        one_of=DTYPES,
    )
    jit_compile: bool = option(True, "Compile the step with XLA.")
    deterministic: bool = option(True, "Use deterministic kernels only.")

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        for name in ("adam_learning_rate_ratio", "muon_momentum"):
            default = type(self).__dataclass_fields__[name].default
            if self.optimizer != "muon" and getattr(self, name) != default:
                raise InputError(
                    f"{name} {getattr(self, name)} is for --optimizer=muon, got {self.optimizer}"
                )
        if self.dtype == AUTO and self.strategy == "multi_worker":
            raise InputError(
                "dtype auto measures one processor, and the workers must agree: name the type"
            )
        if self.num_warmup_steps > self.num_train_steps:
            raise InputError(
                f"num_warmup_steps {self.num_warmup_steps} must be at most num_train_steps "
                f"{self.num_train_steps}"
            )
        if self.new_weights and not self.init_checkpoint:
            raise InputError("new_weights need an --init_checkpoint, which has all other weights")
        for name, value in GIVEN_WEIGHTS.items():
            if self.init_checkpoint and getattr(self, name) != value:
                raise InputError(
                    f"{name} {getattr(self, name)} is for random weights, but init_checkpoint "
                    "gives all weights: leave one of them out"
                )
        if self.position_initializer != "normal" and self.encoder.position_type != "absolute":
            raise InputError(
                f"position_initializer {self.position_initializer} is for position embeddings, "
                f"but position_type {self.encoder.position_type} has none: leave one of them out"
            )
        if self.position_initializer == "neighbours" and not self.encoder.pattern.num_attention:
            raise InputError(
                "position_initializer neighbours is for the first attention block, but "
                f"{self.encoder.block_pattern} has none"
            )
        if not self.masked_lm_weight and not self.distils:
            raise InputError(
                "masked_lm_weight 0 leaves nothing to learn: give --teacher_checkpoint"
            )
        self._validate_cooldowns()
        self.stages  # noqa: B018 - Raises InputError if the curriculum is wrong.

    def _validate_cooldowns(self) -> None:
        budgets = (*self.cooldown_steps, self.num_train_steps)
        if self.learning_rate_schedule != "trapezoid":
            if self.cooldown_steps:
                raise InputError(
                    f"cooldown_steps {_listed(self.cooldown_steps)} need "
                    f"--learning_rate_schedule=trapezoid, got {self.learning_rate_schedule}"
                )
            return
        if sorted(set(budgets)) != list(budgets):
            raise InputError(
                "cooldown_steps must increase and be below num_train_steps "
                f"{self.num_train_steps}, got {_listed(self.cooldown_steps)}"
            )
        for steps in budgets:
            start = steps - self._num_cooldown_steps(steps)
            if start < self.num_warmup_steps or (not start and steps in self.cooldown_steps):
                raise InputError(
                    f"the cooldown to step {steps} starts at step {start}, before or within the "
                    f"{self.num_warmup_steps} num_warmup_steps: lower num_warmup_steps or "
                    "cooldown_fraction, or leave this budget out"
                )

    def _num_cooldown_steps(self, steps: int) -> int:
        return max(1, round(self.cooldown_fraction * steps))

    @property
    def cooldown_start(self) -> int:
        """Number of steps before the cooldown; 0 if the run has no cooldown."""
        if self.learning_rate_schedule != "trapezoid":
            return 0
        return self.num_train_steps - self._num_cooldown_steps(self.num_train_steps)

    def branch_steps(self, first_step: int = 0, last_step: int | None = None) -> int:
        """Total number of steps of all branches, without the steps of the run itself.

        Args:
            first_step, last_step: count only steps between these two, such as those of a stage.
        """
        last_step = self.num_train_steps if last_step is None else last_step
        return sum(
            max(0, min(branch.num_train_steps, last_step) - max(branch.cooldown_start, first_step))
            for branch in self.branches
        )

    @property
    def branches(self) -> tuple[Self, ...]:
        """For each of `cooldown_steps`, the config of a run that would equal this branch."""
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
        """As for any config, and the records of all stages."""
        later = {stage.records_dir for stage in self.stages} - {self.records_dir}
        more = [Input("records", records_dir) for records_dir in sorted(later)]
        return {**super().inputs(without), **({"curriculum": more} if more else {})}

    @property
    def distils(self) -> bool:
        """Whether the loss uses a teacher."""
        weights = self.distillation_hidden_weight + self.distillation_logits_weight
        return bool(self.teacher_checkpoint and weights)

    @property
    def stages(self) -> tuple["Stage", ...]:
        """The stages of the curriculum, from step 0 on; one stage without a curriculum."""
        starts = [(0, self.train_batch_size, self.records_dir)]
        for text in self.curriculum:
            step, _, rest = text.partition(":")
            size, _, records_dir = rest.partition(":")
            if not step.isdecimal() or not size.isdecimal() or not int(size):
                raise InputError(
                    "curriculum must list STEP:BATCH_SIZE or STEP:BATCH_SIZE:RECORDS_DIR, got "
                    f"{text!r}"
                )
            starts.append((int(step), int(size), records_dir or starts[-1][2]))
        ends = [*(start[0] for start in starts[1:]), self.num_train_steps]
        stages, rows = [], {}
        for (step, size, records_dir), end in zip(starts, ends, strict=True):
            if end <= step:
                raise InputError(
                    f"the steps of the curriculum must increase between 0 and num_train_steps "
                    f"{self.num_train_steps}, got {', '.join(self.curriculum)}"
                )
            first_row = rows.get(records_dir, 0)
            stages.append(Stage(step, end, size, records_dir, first_row))
            rows[records_dir] = first_row + size * (end - step)
        return tuple(stages)

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Replaces `do_whole_word_mask` of older configs by `masking_unit`."""
        if "do_whole_word_mask" not in values:
            return values
        values = dict(values)
        whole_words = values.pop("do_whole_word_mask")
        return {"masking_unit": "whole_word" if whole_words else "token", **values}


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(map(str, numbers))


@dataclasses.dataclass(frozen=True)
class TimingConfig(Config):
    """Timing of pre-training steps of a pattern and of the reference, in alternation."""

    workdir: str = option("", "Directory of the cell; a study writes the result there.")
    records_dir: str = option("", "Directory that create_pretraining_data wrote.", input="records")
    pretraining: PretrainingConfig = section(
        PretrainingConfig(), "pretraining.", without=("workdir", "records_dir")
    )
    reference_pattern: str = option("(AI)*12", "Pattern to compare with.")
    num_rounds: int = option(30, "Rounds; each round times both patterns.", above=0)
    steps_per_round: int = option(3, "Steps per pattern and round.", above=0)


@dataclasses.dataclass(frozen=True)
class FinetuningConfig(Config):
    """Fine-tuning on a labelled task; the defaults follow Devlin et al. 2018."""

    workdir: str = option("", "Directory for results.")
    init_checkpoint: str = option(
        "",
        "Pre-training workdir, one of its checkpoints, or WORKDIR/model_SEED of a fine-tuning.",
        input="checkpoint",
    )
    new_weights: tuple[str, ...] = option(
        ("classifier_head",),
        "Layers or weights with new initial values; init_checkpoint must have all others. Empty: "
        "the head is loaded, too, and its labels are matched by name.",
    )
    from_scratch: bool = option(
        False, "Baseline: same architecture and vocabulary as init_checkpoint, random weights."
    )
    task: str = option("wiki_topic", SENTENCE_TASK_HELP, input="probing_task")
    max_seq_length: int = option(128, "Word pieces per example; longer ones are cut.", above=0)
    pad_to_multiple_of: int = option(
        0,
        "Batch rows of similar length and pad to a multiple of this; 0: pad to max_seq_length.",
        at_least=0,
    )
    train_batch_size: int = option(32, "Examples per step.", above=0)
    learning_rate: float = option(2e-5, "Peak learning rate.", above=0)
    num_train_epochs: int = option(
        3,
        "Epochs; 0: only score init_checkpoint with its head.",
        at_least=0,
    )
    warmup_proportion: float = option(
        0.1, "Share of the steps for linear warm-up.", at_least=0, below=1
    )
    weight_decay_rate: float = option(
        0.01, "Weight decay, except for LayerNorm and biases.", at_least=0, below=1
    )
    layerwise_lr_decay: float = layerwise_decay_option()
    early_stopping_epochs: int = option(
        0,
        "Stop after this number of epochs without a better validation score, and keep the best "
        "weights; 0: train all epochs.",
        at_least=0,
    )
    pooling: str = option("first", POOLING_HELP, one_of=CLASSIFIER_POOLINGS)
    classifier_dropout: float = option(
        0.1, "Dropout before the classifier's last layer.", at_least=0, below=1
    )
    max_train_rows: int = option(0, "Largest number of training rows; 0: all.", at_least=0)
    num_runs: int = option(5, "Runs with seeds seed, seed + 1, ...", above=0)
    seed: int = seed_option("First seed: head, data order, dropout (and random weights).")
    deterministic: bool = option(
        False, "Use deterministic kernels only; Keras then does without XLA, which is slower."
    )
    save_checkpoints_steps: int = option(
        500, "Steps between checkpoints, from which an interrupted run resumes.", above=0
    )
    save_models: bool = option(True, "Keep the fine-tuned weights of every run.")
    write_predictions: bool = option(
        False, "Write texts, labels, predictions and logits of all splits except train as JSONL."
    )

    def inputs(self, without: tuple[str, ...] = ()) -> dict[str, list[Input]]:
        """As for any config; `from_scratch` reads the architecture alone, without weights."""
        inputs = super().inputs(without)
        if self.from_scratch and "init_checkpoint" in inputs:
            inputs["init_checkpoint"] = [Input("architecture", self.init_checkpoint)]
        return inputs

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        if not self.num_train_epochs and (self.from_scratch or self.new_weights):
            raise InputError(
                "num_train_epochs 0 scores init_checkpoint without training, so it must have all "
                "weights: give --new_weights= (empty) and a fine-tuned model"
            )


@dataclasses.dataclass(frozen=True)
class GlueConfig(Config):
    """Fine-tuning and scoring on each task of GLUE."""

    workdir: str = option("", "Directory for a folder per task, results.json and results.md.")
    data: str = option(
        "tfds", "`tfds` (TensorFlow Datasets), or the folder with CoLA, SST-2, MRPC, ..."
    )
    tasks: tuple[str, ...] = option(GLUE_TASKS, "Tasks of GLUE.", one_of=GLUE_TASKS, min_items=1)
    learning_rates: tuple[float, ...] = option(
        (), "Peak learning rates to choose from; empty: only --learning_rate.", above=0
    )
    epochs: tuple[int, ...] = option(
        (), "Numbers of epochs to choose from; empty: only --num_train_epochs.", at_least=0
    )
    selection: str = option(
        "mean",
        "Of several settings, report the one whose primary metric on validation has the best mean, "
        "median or maximum over all seeds.",
        one_of=SELECTIONS,
    )
    per_task: tuple[str, ...] = option(
        (), "Settings of single tasks: mrpc.num_train_epochs=5,sst2.max_train_rows=20000."
    )
    finetuning: FinetuningConfig = section(
        FinetuningConfig(pad_to_multiple_of=32), without=("workdir", "task", "from_scratch")
    )

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        for task in GLUE_TASKS:
            self.of_task(task)

    def inputs(self, without: tuple[str, ...] = ()) -> dict[str, list[Input]]:
        """As for any config, and the files of all tasks in `data`."""
        tasks = [] if self.data == "tfds" else [Input("glue", self.data, self.tasks)]
        return {**super().inputs(without), **({"data": tasks} if tasks else {})}

    def of_task(self, task: str) -> FinetuningConfig:
        """The settings of a task, `per_task` included."""
        changes = {}
        for text in self.per_task:
            field, _, value = text.partition("=")
            of_task, _, name = field.partition(".")
            kind = typing.get_type_hints(FinetuningConfig).get(name)
            if of_task not in GLUE_TASKS or kind not in (int, float, str) or not value:
                raise InputError(
                    f"per_task {text!r} must be TASK.FIELD=VALUE, with a task of GLUE and a flag "
                    "of run_finetuning for a number or a word"
                )
            if of_task == task:
                try:
                    changes[name] = kind(value)
                except ValueError as error:
                    raise InputError(
                        f"per_task {text!r}: {value!r} is no {kind.__name__}"
                    ) from error
        return self.finetuning.replace(**changes)


@dataclasses.dataclass(frozen=True)
class PredictConfig(Config):
    """Predictions of a fine-tuned model, as JSONL."""

    model: str = option("", "WORKDIR/model_SEED of a fine-tuning.")
    input: str = option(
        "-", "Text file, one text or tab-separated pair per line; -: standard input."
    )
    output: str = option("-", "JSONL file; -: standard output.")
    batch_size: int = option(
        32, "Texts per forward pass; a batch of standard input is predicted once full.", above=0
    )


@dataclasses.dataclass(frozen=True)
class SquadConfig(Config):
    """Question answering on SQuAD 1.1 or 2.0; the defaults follow google-research/bert."""

    workdir: str = option("", "Directory for checkpoints, predictions and results.")
    init_checkpoint: str = option(
        "", "Pre-training workdir, or one of its checkpoints.", input="checkpoint"
    )
    train_files: tuple[str, ...] = option(
        (),
        "SQuAD JSON to train on: .json, .json.gz, or tfds:NAME for its split train.",
        input="file",
    )
    validation_file: str = option(
        "",
        "SQuAD JSON to tune the null threshold on; empty: use null_score_diff_threshold.",
        input="file",
    )
    predict_file: str = option(
        "", "SQuAD JSON to predict and score, or tfds:NAME (validation).", input="file"
    )
    version_2_with_negative: bool = option(False, "Questions may have no answer (SQuAD 2.0).")
    max_seq_length: int = option(
        384, "Word pieces per window: question, context, special tokens.", above=0
    )
    doc_stride: int = option(128, "Word pieces from the start of one window to the next.", above=0)
    max_query_length: int = option(64, "Word pieces of a question; longer ones are cut.", above=0)
    max_answer_length: int = option(30, "Word pieces of a predicted answer.", above=0)
    n_best_size: int = option(20, "Answers per question in nbest.json.", above=0)
    null_score_diff_threshold: float = option(
        0.0, "Predict no answer if the null odds exceed this, unless validation_file tunes it."
    )
    train_batch_size: int = option(32, "Windows per step.", above=0)
    predict_batch_size: int = option(32, "Windows per forward pass.", above=0)
    learning_rate: float = option(5e-5, "Peak learning rate.", above=0)
    num_train_epochs: int = option(3, "Epochs.", above=0)
    warmup_proportion: float = option(
        0.1, "Share of the steps for linear warm-up.", at_least=0, below=1
    )
    weight_decay_rate: float = option(
        0.01, "Weight decay, except for LayerNorm and biases.", at_least=0, below=1
    )
    max_train_questions: int = option(
        0, "Largest number of training questions; 0: all.", at_least=0
    )
    save_checkpoints_steps: int = option(200, "Steps between checkpoints.", above=0)
    num_runs: int = option(1, "Runs with seeds seed, seed + 1, ...", above=0)
    seed: int = seed_option("First seed: head, data order, dropout.")
    deterministic: bool = option(
        False, "Use deterministic kernels only; Keras then does without XLA, which is slower."
    )

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        room = self.max_seq_length - self.max_query_length - 3
        if self.doc_stride > room:
            raise InputError(
                f"doc_stride {self.doc_stride} would skip text: max_seq_length "
                f"{self.max_seq_length} minus max_query_length {self.max_query_length} and three "
                f"special tokens leaves {room} word pieces of context per window"
            )
        if self.validation_file and not self.version_2_with_negative:
            raise InputError("validation_file tunes the null threshold of version_2_with_negative")


@dataclasses.dataclass(frozen=True)
class MechanismConfig(Config):
    """Training of small encoders on two synthetic corpora: to store facts, and to copy values."""

    workdir: str = option("", "Directory for results and figures.")
    patterns: tuple[str, ...] = option(
        ("(AI)*2", "A*2", "A*6"), "Block patterns; the first is the reference.", min_items=1
    )
    encoder: EncoderConfig = section(
        EncoderConfig(
            hidden_size=16,
            num_attention_heads=2,
            intermediate_size=64,
            position_type="rotary",
            rotary_base=100.0,
            query_key_norm=True,
            norm_first=True,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        without=(
            "vocab_size",
            "vocabulary_hash",
            "do_lower_case",
            "block_pattern",
            "max_position_embeddings",
            "type_vocab_size",
        ),
    )
    num_values: int = option(
        256, "Number of values; a fact holds its binary logarithm in bits.", at_least=2
    )
    num_symbols: int = option(
        64, "Number of symbols; three of them are the key of a fact.", above=1
    )
    num_facts: tuple[int, ...] = option(
        (1000, 2000, 4000),
        "Numbers of facts to store, each by a separate encoder; the largest should exceed what an "
        "encoder can store.",
        above=0,
        min_items=1,
    )
    exposures: int = option(100, "How often training shows each fact.", above=0)
    num_copied: int = option(24, "Number of values to copy in a sequence.", above=0)
    num_copying_steps: int = option(300, "Steps of training to copy.", above=0)
    eval_every_steps: int = option(20, "Steps between evaluations of copying.", above=0)
    train_batch_size: int = option(128, "Facts, or sequences to copy, per step.", above=0)
    learning_rates: tuple[float, ...] = option(
        (5e-3, 1e-2, 2e-2),
        "Peak learning rates of Muon to choose from, for each pattern and corpus.",
        above=0,
        min_items=1,
    )
    weight_decay_rate: float = option(
        0.01, "Weight decay, except for LayerNorm and biases.", at_least=0, below=1
    )
    adam_beta_2: float = option(0.98, "Decay of Adam's second moment.", at_least=0, below=1)
    num_seeds: int = option(3, "Repetitions with seeds seed, seed + 1, ...", above=0)
    seed: int = seed_option("Decides the corpora, weights and order.")
    jit_compile: bool = option(True, "Compile the step with XLA.")

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Older releases copied pairs of a symbol and a value."""
        return {name: value for name, value in values.items() if name != "num_pairs"}

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        if max(self.num_facts) > self.num_symbols**3:
            raise InputError(
                f"num_facts {max(self.num_facts)} are more than the {self.num_symbols**3} keys "
                f"that three of {self.num_symbols} symbols can form: raise num_symbols"
            )
        for name in ("num_facts", "learning_rates"):
            values = getattr(self, name)
            if sorted(set(values)) != list(values):
                raise InputError(f"{name} must list increasing numbers, got {_listed(values)}")
        if len(set(self.canonical_patterns)) < len(self.patterns):
            raise InputError(f"two patterns of {', '.join(self.patterns)} spell the same blocks")

    @property
    def canonical_patterns(self) -> tuple[str, ...]:
        """The patterns in their canonical spelling."""
        return tuple(self.of_pattern(pattern).block_pattern for pattern in self.patterns)

    def of_pattern(self, pattern: str) -> EncoderConfig:
        """The encoder of a pattern, with the vocabulary and the length of the corpora."""
        return self.encoder.replace(
            block_pattern=pattern,
            vocab_size=SPECIAL_IDS + self.num_symbols + self.num_values,
            max_position_embeddings=max(LENGTH_OF_FACT, 3 + 2 * self.num_copied),
            type_vocab_size=1,
        )
