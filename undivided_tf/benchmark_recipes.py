"""What the binaries around whole benchmarks can be told; as `undivided_tf.recipes`."""

import dataclasses
import typing

from undivided_tf.config import Config, option, require_positive, section
from undivided_tf.errors import InputError
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
