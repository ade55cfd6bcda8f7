"""The stages of a pre-training run: the batches of each step and the cost of all steps."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.data import masking, streams
from undivided_tf.data.corpus import counts, records
from undivided_tf.errors import InputError
from undivided_tf.metrics.neighbour_model import NeighbourModel
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import memory, strategies
from undivided_tf.training.config import PretrainingConfig, Stage
from undivided_tf.training.evaluation import HeldOut


@dataclasses.dataclass(frozen=True)
class Need:
    """Memory need of a device in a stage.

    Attributes:
        stage: the stage.
        length: word pieces per row.
        predictions: masked positions per row.
        rows: number of rows whose activations are in memory together.
        bytes: estimate, see `memory.training_memory_bytes`.
    """

    stage: Stage
    length: int
    predictions: int
    rows: int
    bytes: int


class Curriculum:
    """Batches of all stages, and held-out batches.

    Args:
        config: the run.
        encoder: architecture, with the vocabulary of the records.
        tokenizer: tokenizer of the records.

    Attributes:
        metadata, length: metadata and length of the rows of the last stage. Its held-out records
            are used in all stages, so that all losses are comparable.
        lengths: word pieces per row, by stage.
        next_sentence_weight: weight of the loss on pairs; 0 if the records have no pairs.

    Raises:
        InputError: records that do not fit the encoder, or with different packings.
    """

    def __init__(self, config: PretrainingConfig, encoder: EncoderConfig, tokenizer: Tokenizer):
        self.config, self.encoder, self.tokenizer = config, encoder, tokenizer
        metadata = {
            stage.records_dir: records.check_records(stage.records_dir, encoder)
            for stage in config.stages
        }
        packings = {where: of.get("packing", "full") for where, of in metadata.items()}
        if len(set(packings.values())) > 1:
            listed = ", ".join(f"{where} {packing}" for where, packing in packings.items())
            raise InputError(f"the records of a curriculum must be packed alike, got {listed}")
        self.lengths = [metadata[s.records_dir]["max_seq_length"] for s in config.stages]
        self.metadata, self.length = metadata[config.stages[-1].records_dir], self.lengths[-1]
        pairs = records.has_pairs(self.metadata)
        self.next_sentence_weight = config.next_sentence_weight if pairs else 0.0
        self._masking = {
            "masked_lm_prob": config.masked_lm_prob,
            "max_predictions": config.max_predictions_per_seq,
            "masking_unit": config.masking_unit,
        }

    def slots(self, length: int) -> int:
        """Width of `masked_positions` in training on rows of a length."""
        config = self.config
        return accounting.prediction_slots(
            length,
            config.masked_lm_prob,
            config.max_predictions_per_seq,
            config.initial_masked_lm_prob,
        )

    def needs(self, replicas: int) -> list[Need]:
        """The memory need of each stage with a number of devices."""
        parts, needs = replicas * self.config.gradient_accumulation_steps, []
        for stage, length in zip(self.config.stages, self.lengths, strict=True):
            sizes = (length, self.slots(length), stage.batch_size // parts)
            need = memory.of_run(self.config, self.encoder, *sizes)["total"]
            needs.append(Need(stage, *sizes, need))
        return needs

    def batches(self, strategy: tf.distribute.Strategy, start_step: int) -> Iterator[Any]:
        """Endless global batches, starting with the batch of step `start_step` + 1."""
        config = self.config
        for stage in config.stages:
            first = max(start_step, stage.first_step)
            is_last = stage == config.stages[-1]
            if first >= stage.last_step and not is_last:
                continue
            dataset = masking.pretraining_batches(
                stage.records_dir,
                self.tokenizer,
                batch_size=stage.batch_size,
                seed=config.seed,
                start_step=first,
                start_row=stage.first_row + (first - stage.first_step) * stage.batch_size,
                initial_masked_lm_prob=config.initial_masked_lm_prob,
                num_train_steps=config.num_train_steps,
                # Only the cooldown depends on the budget, so that budgets can share the steps
                # before it.
                first_changing_step=config.cooldown_start,
                intermediate_blocks=self.encoder.pattern.num_intermediate,
                intermediate_drop_rate=config.intermediate_drop_rate,
                **self._masking,
            )
            steps = None if is_last else stage.last_step - first
            with streams.reading_errors(stage.records_dir):
                yield from itertools.islice(strategies.distribute(strategy, dataset), steps)

    @functools.cached_property
    def held_out(self) -> HeldOut:
        """The held-out rows with fixed masks at the last masking rate."""
        where = self.config.stages[-1].records_dir
        rows = masking.validation_arrays(
            where, self.tokenizer, max_rows=self.config.max_eval_rows, **self._masking
        )
        model = NeighbourModel(*counts.read_counts(where), ~self.tokenizer.is_special)
        return HeldOut(rows, model.masked_losses(rows), self.tokenizer)

    def validation_batches(
        self, strategy: tf.distribute.Strategy, rows: dict[str, np.ndarray] | None = None
    ) -> Any:
        """Batches of the held-out rows, or of other rows of the same form."""
        stage = self.config.stages[-1]
        size = stage.batch_size // self.config.gradient_accumulation_steps
        rows = self.held_out.rows if rows is None else rows
        return strategies.distribute(strategy, masking.full_batches(rows, size))

    def _sequences(self) -> list[int]:
        """Sequences of all steps of each stage."""
        return [(s.last_step - s.first_step) * s.batch_size for s in self.config.stages]

    @property
    def tokens(self) -> int:
        """Word pieces of all steps, padding included."""
        return sum(n * rows for n, rows in zip(self.lengths, self._sequences(), strict=True))

    @property
    def training_flops(self) -> int:
        """FLOPs of all steps; see `accounting.training_flops`."""
        return sum(
            accounting.training_flops(
                self.encoder, n, self.slots(n), rows, self.next_sentence_weight > 0
            )
            for n, rows in zip(self.lengths, self._sequences(), strict=True)
        )
