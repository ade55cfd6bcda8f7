"""What the binaries around whole benchmarks can be told; as `undivided_tf.recipes`."""

import dataclasses
import typing

from undivided_tf.config import (
    Config,
    option,
    require_positive,
    require_share,
    section,
    seed_option,
)
from undivided_tf.errors import InputError
from undivided_tf.inputs import Input
from undivided_tf.recipes import FinetuningConfig

SELECTIONS = ("mean", "median", "maximum")
GLUE_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")


@dataclasses.dataclass(frozen=True)
class GlueConfig(Config):
    """Fine-tuning and scoring on the tasks of GLUE, each for itself."""

    workdir: str = option("", "Directory for a folder a task, results.json and results.md.")
    data: str = option(
        "tfds", "`tfds` (TensorFlow Datasets), or the folder that holds CoLA, SST-2, MRPC, ..."
    )
    tasks: tuple[str, ...] = option(GLUE_TASKS, "Tasks: " + ", ".join(GLUE_TASKS) + ".")
    learning_rates: tuple[float, ...] = option(
        (), "Peak learning rates to choose from; empty: only --learning_rate."
    )
    epochs: tuple[int, ...] = option(
        (), "Numbers of epochs to choose from; empty: only --num_train_epochs."
    )
    selection: str = option(
        "mean", "Which of several settings is reported: that with the best mean, median or "
        "maximum of the task's primary metric on validation, over all seeds.", SELECTIONS,
    )  # fmt: skip
    per_task: tuple[str, ...] = option(
        (), "Settings of single tasks: mrpc.num_train_epochs=5,sst2.max_train_rows=20000."
    )
    finetuning: FinetuningConfig = section(
        FinetuningConfig(pad_to_multiple_of=32), without=("workdir", "task", "from_scratch")
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        unknown = [task for task in self.tasks if task not in GLUE_TASKS]
        if unknown or not self.tasks:
            raise InputError(
                f"tasks has {', '.join(unknown) or 'none'}; known: {', '.join(GLUE_TASKS)}"
            )
        for task in GLUE_TASKS:
            self.of_task(task)

    def inputs(self, without: tuple[str, ...] = ()) -> dict[str, list[Input]]:
        """As of any config, and the files of all tasks in `data`."""
        tasks = [] if self.data == "tfds" else [Input("glue", self.data, self.tasks)]
        return {**super().inputs(without), **({"data": tasks} if tasks else {})}

    def of_task(self, task: str) -> FinetuningConfig:
        """The settings of a task, `per_task` included."""
        changes = {}
        for text in self.per_task:
            place, _, value = text.partition("=")
            owner, _, name = place.partition(".")
            kind = typing.get_type_hints(FinetuningConfig).get(name)
            if owner not in GLUE_TASKS or kind not in (int, float, str) or not value:
                raise InputError(
                    f"per_task {text!r} is no TASK.FIELD=VALUE with a task of GLUE and a number "
                    "or word among the flags of run_finetuning"
                )
            if owner == task:
                try:
                    changes[name] = kind(value)
                except ValueError as error:
                    raise InputError(f"per_task {text!r}: {value!r} is no {kind.__name__}") from (
                        error
                    )
        return self.finetuning.replace(**changes)


@dataclasses.dataclass(frozen=True)
class PredictConfig(Config):
    """Predictions of a fine-tuned model, as JSONL."""

    model: str = option("", "WORKDIR/model_SEED of a fine-tuning.")
    input: str = option(
        "-", "Text file, one text a line, or for pairs two with a tab between; -: standard input."
    )
    output: str = option("-", "JSONL file; -: standard output.")
    batch_size: int = option(32, "Texts a forward pass; from standard input also those waited for.")

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(self, "batch_size")


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
        "SQuAD JSON on which the null threshold is tuned; empty: null_score_diff_threshold.",
        input="file",
    )
    predict_file: str = option(
        "", "SQuAD JSON to predict and score, or tfds:NAME (validation).", input="file"
    )
    version_2_with_negative: bool = option(False, "Questions may have no answer (SQuAD 2.0).")
    max_seq_length: int = option(384, "Word pieces a window: question, context, special tokens.")
    doc_stride: int = option(128, "Word pieces from the start of one window to the next.")
    max_query_length: int = option(64, "Word pieces of a question; longer ones are cut.")
    max_answer_length: int = option(30, "Word pieces of a predicted answer.")
    n_best_size: int = option(20, "Answers a question in nbest.json.")
    null_score_diff_threshold: float = option(
        0.0, "No answer is predicted where null odds exceed it, unless validation_file tunes it."
    )
    train_batch_size: int = option(32, "Windows a step.")
    predict_batch_size: int = option(32, "Windows a forward pass.")
    learning_rate: float = option(5e-5, "Peak learning rate.")
    num_train_epochs: int = option(3, "Passes over the training windows.")
    warmup_proportion: float = option(0.1, "Share of the steps for linear warm-up.")
    weight_decay_rate: float = option(0.01, "Decoupled decay; spares LayerNorm and biases.")
    max_train_questions: int = option(0, "Train on so many questions at most; 0: all.")
    save_checkpoints_steps: int = option(200, "Steps between checkpoints.")
    num_runs: int = option(1, "Runs with seeds seed, seed + 1, ...")
    seed: int = seed_option("First seed: head, data order, dropout.")
    deterministic: bool = option(
        False, "Use deterministic kernels only; Keras then does without XLA, which is slower."
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(
            self, "max_seq_length", "doc_stride", "max_query_length", "max_answer_length",
            "n_best_size", "train_batch_size", "predict_batch_size", "learning_rate",
            "num_train_epochs", "save_checkpoints_steps", "num_runs",
        )  # fmt: skip
        require_share(self, "warmup_proportion", "weight_decay_rate")
        room = self.max_seq_length - self.max_query_length - 3
        if self.doc_stride > room:
            raise InputError(
                f"doc_stride {self.doc_stride} would pass over text: max_seq_length "
                f"{self.max_seq_length} less max_query_length {self.max_query_length} and three "
                f"special tokens leaves {room} word pieces of context in a window"
            )
        if self.validation_file and not self.version_2_with_negative:
            raise InputError("validation_file tunes the null threshold of version_2_with_negative")
