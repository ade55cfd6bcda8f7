"""Masked-language-model pre-training: one loop around `strategy.run`.

Keras `fit` neither restores the data position of an interrupted epoch nor runs under every
strategy, so the loop is ours. The same call resumes: weights, optimizer, step, dropout states
and data position come from the newest checkpoint, and masks are a function of seed and step.
"""

import pathlib
import resource
import statistics
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from undivided_tf import accounting
from undivided_tf.config import results_once
from undivided_tf.data import masking, records, streams
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer, masked_lm_sums
from undivided_tf.progress import bar
from undivided_tf.recipes import PretrainingConfig
from undivided_tf.training import checkpoints, optimizers, strategies

_LOG_POINTS = 100  # Points of the training curve, whatever the number of steps.


def pretrain(config: PretrainingConfig) -> dict[str, Any]:
    """Trains an encoder, or goes on where an interrupted call stopped.

    Args:
        config: the run; `config.workdir` receives config.json, checkpoints, TensorBoard
            events and, at the end, results.json.

    Returns:
        The content of results.json: sizes, costs, loss curves and the held-out loss.

    Raises:
        InputError: records that do not fit, a workdir of another config, no readable checkpoint.
        FloatingPointError: the loss is not finite; the newest checkpoint stays.
    """

    def run(trainer: Trainer) -> dict[str, Any]:
        return trainer.results(trainer.train(trainer.restore()))

    return results_once(config, lambda: Trainer(config), run)


class Trainer:
    """Model, optimizer and compiled steps of one pre-training run.

    Args:
        config: the run.
    """

    def __init__(self, config: PretrainingConfig):
        strategies.make_repeatable(config.seed, config.deterministic)
        self.config = config
        self.tokenizer = records.read_tokenizer(config.records_dir)
        self.encoder_config = config.encoder
        if not config.encoder.vocabulary_hash:  # One that names its vocabulary must fit as it is.
            self.encoder_config = config.encoder.replace(
                vocab_size=self.tokenizer.vocab_size,
                vocabulary_hash=self.tokenizer.vocabulary_hash,
                do_lower_case=self.tokenizer.do_lower_case,
            )
        self.metadata = records.check_records(config.records_dir, self.encoder_config)
        self.length = self.metadata["max_seq_length"]
        self.masking = {
            "masked_lm_prob": config.masked_lm_prob,
            "max_predictions": config.max_predictions_per_seq,
            "masking_unit": config.masking_unit,
        }
        self.strategy = strategies.get(config.strategy)
        with self.strategy.scope():
            self.model = Pretrainer(Encoder(self.encoder_config, seed=config.seed))
            self.optimizer = optimizers.OPTIMIZERS[config.optimizer](
                self.model.trainable_variables,
                learning_rate=config.learning_rate,
                num_warmup_steps=config.num_warmup_steps,
                num_train_steps=config.num_train_steps,
                schedule=config.learning_rate_schedule,
                weight_decay_rate=config.weight_decay_rate,
                beta_1=config.adam_beta_1,
                beta_2=config.adam_beta_2,
                epsilon=config.adam_epsilon,
                ema_momentum=config.ema_momentum,
            )
        weights = {id(weight) for weight in self.model.weights}
        dropout_states = [v for v in self.model.variables if id(v) not in weights]
        self.training_variables = [*self.optimizer.variables, *dropout_states]
        self.workdir = pathlib.Path(config.workdir)
        self._train_step = self._compile_train_step()
        self._eval_step = tf.function(self._eval_replica, jit_compile=config.jit_compile)

    # === Steps ===

    def _compile_train_step(self):
        """One optimizer step on a distributed batch; returns the sums over all replicas."""
        replicas = self.strategy.num_replicas_in_sync
        # XLA cannot hold the exchange between replicas; then only the gradients are compiled.
        whole_step = self.config.jit_compile and replicas == 1
        gradients = tf.function(
            self._gradients, jit_compile=self.config.jit_compile and not whole_step
        )

        def global_sum(values):
            if replicas == 1:
                return values
            return tf.distribute.get_replica_context().all_reduce("sum", values)

        def replica_step(batch):
            sums, grads = gradients(batch, global_sum(tf.reduce_sum(batch["masked_weights"])))
            # The norm is that of the global gradient, so the sum comes before clipping; each
            # replica then hands its share to the optimizer, which adds the shares up again.
            grads, norm = tf.clip_by_global_norm(global_sum(grads), self.config.max_gradient_norm)
            shares = [grad / replicas for grad in grads]
            self.optimizer.apply(shares, self.model.trainable_variables)
            return {**sums, "gradient_norm": norm / replicas}

        replica_step = tf.function(replica_step, jit_compile=whole_step)

        @tf.function
        def train_step(batch):
            per_replica = self.strategy.run(replica_step, args=(batch,))
            return {
                name: self.strategy.reduce("sum", value, axis=None)
                for name, value in per_replica.items()
            }

        return train_step

    def _gradients(self, batch, global_weight):
        """Sums of the replica and the gradients of its part of the global mean loss."""
        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            logits = self.model(batch, training=True)["masked_lm_logits"]
            sums = masked_lm_sums(logits, batch["masked_ids"], batch["masked_weights"])
            loss = sums["loss"] / global_weight
        # The pooler takes no part in masked-language-model training: its gradient is zero.
        zero = tf.UnconnectedGradients.ZERO
        grads = tape.gradient(loss, variables, unconnected_gradients=zero)
        return sums, [tf.convert_to_tensor(grad) for grad in grads]

    def _eval_replica(self, batch):
        logits = self.model(batch, training=False)["masked_lm_logits"]
        return masked_lm_sums(logits, batch["masked_ids"], batch["masked_weights"])

    # === The run ===

    def restore(self) -> dict[str, Any]:
        """State of the newest checkpoint, or that of a fresh run."""
        state = checkpoints.restore_latest(self.workdir, self.model, self.training_variables)
        if state:
            logging.info("resuming %s at step %d", self.workdir, state["step"])
        return state or {
            "step": 0,
            "training_seconds": 0.0,
            "training_history": [],
            "validation_history": [],
            "interval": {"loss": 0.0, "weight": 0.0},
        }

    def train(self, state: dict[str, Any]) -> dict[str, Any]:
        """Runs the remaining steps; returns the state after the last."""
        config = self.config
        last = config.num_train_steps
        self.summaries = tf.summary.create_file_writer(str(self.workdir / "tensorboard"))
        log_every = max(1, last // _LOG_POINTS)
        batches = iter(self._batches(state["step"]))
        self.step_seconds: list[float] = []
        description = f"pre-training {self.encoder_config.block_pattern}"
        with (
            streams.reading_errors(config.records_dir),
            bar(last, description, "steps", initial=state["step"]) as progress,
        ):
            for step in range(state["step"] + 1, last + 1):
                start = time.perf_counter()
                sums = {k: float(v) for k, v in self._train_step(next(batches)).items()}
                seconds = time.perf_counter() - start
                self.step_seconds.append(seconds)
                state["training_seconds"] += seconds
                self._check_finite(step, sums)
                state["step"] = step
                self._record(state, sums, close=step % log_every == 0 or step == last)
                if step % config.eval_every_steps == 0 or step == last:
                    state["validation_history"].append({"step": step, **self.evaluate()})
                    self._summarize("validation", state["validation_history"][-1], step)
                if step % config.save_checkpoints_steps == 0 or step == last:
                    self._save(state)
                progress.set_postfix_str(f"loss {sums['loss'] / sums['weight']:.3f}", refresh=False)
                progress.update()
        return state

    def _batches(self, start_step: int):
        """Endless global batches, from the one that step `start_step` + 1 sees."""
        dataset = masking.pretraining_batches(
            self.config.records_dir,
            self.tokenizer,
            batch_size=self.config.train_batch_size,
            seed=self.config.seed,
            start_step=start_step,
            initial_masked_lm_prob=self.config.initial_masked_lm_prob,
            num_train_steps=self.config.num_train_steps,
            intermediate_blocks=self.encoder_config.pattern.num_intermediate,
            intermediate_drop_rate=self.config.intermediate_drop_rate,
            **self.masking,
        )
        if self.strategy.num_replicas_in_sync == 1:
            return dataset  # Distributing forgets the static shapes, and the step gets slower.
        return self.strategy.experimental_distribute_dataset(dataset)

    def evaluate(self) -> dict[str, float]:
        """Loss (nats) and accuracy over the masked tokens of the held-out records."""
        totals = {"loss": 0.0, "correct": 0.0, "weight": 0.0}
        for batch in masking.validation_batches(
            self.config.records_dir,
            self.tokenizer,
            batch_size=self.config.train_batch_size,
            max_rows=self.config.max_eval_rows,
            **self.masking,
        ):
            for name, value in self._eval_step(batch).items():
                totals[name] += float(value)
        return {
            "loss": totals["loss"] / totals["weight"],
            "accuracy": totals["correct"] / totals["weight"],
            "masked_tokens": int(totals["weight"]),
        }

    def _record(self, state: dict[str, Any], sums: dict[str, float], close: bool) -> None:
        """Adds a step to the training curve's open interval; `close` makes a point of it."""
        interval = state["interval"]
        interval["loss"] += sums["loss"]
        interval["weight"] += sums["weight"]
        if close:
            point = {"step": state["step"], "loss": interval["loss"] / interval["weight"]}
            state["training_history"].append(point)
            state["interval"] = {"loss": 0.0, "weight": 0.0}
            learning_rate = float(self.optimizer.learning_rate)
            self._summarize(
                "training",
                {**point, "gradient_norm": sums["gradient_norm"], "learning_rate": learning_rate},
                state["step"],
            )

    def _summarize(self, prefix: str, values: dict[str, float], step: int) -> None:
        with self.summaries.as_default(step):
            for name, value in values.items():
                if name not in ("step", "masked_tokens"):
                    tf.summary.scalar(f"{prefix}/{name}", value)

    def _check_finite(self, step: int, sums: dict[str, float]) -> None:
        if not np.isfinite(sums["loss"]) or not np.isfinite(sums["gradient_norm"]):
            raise FloatingPointError(
                f"step {step}: loss sum {sums['loss']}, gradient norm {sums['gradient_norm']}; "
                f"the checkpoints in {self.workdir} are from before. Lower --learning_rate, "
                "raise --num_warmup_steps, or set --norm_first"
            )

    def _save(self, state: dict[str, Any]) -> None:
        self.summaries.flush()
        checkpoints.save(
            self.workdir,
            state,
            self.model,
            self.training_variables,
            self.tokenizer,
            self.config.keep_checkpoints,
        )

    def results(self, state: dict[str, Any]) -> dict[str, Any]:
        """What results.json holds."""
        config, encoder = self.config, self.encoder_config
        sequences = state["step"] * config.train_batch_size
        predictions = masking.prediction_slots(
            self.length, config.masked_lm_prob, config.max_predictions_per_seq
        )
        # The first step compiles. A run that had nothing left to do has no step to time.
        timed = self.step_seconds[1:] or self.step_seconds
        seconds = statistics.median(timed) if timed else None
        *_, validation = state["validation_history"]
        return {
            "kind": "pretraining",
            "pattern": encoder.block_pattern,
            "seed": config.seed,
            "parameters": accounting.count_parameters(encoder),
            "forward_flops": accounting.forward_flops(encoder, self.length),
            "training_flops": accounting.training_flops(
                encoder, self.length, predictions, sequences
            ),
            "steps": state["step"],
            "tokens": sequences * self.length,
            "step_milliseconds": seconds and 1000 * seconds,
            "tokens_per_second": seconds and config.train_batch_size * self.length / seconds,
            "training_seconds": state["training_seconds"],
            "peak_memory_bytes": _peak_memory_bytes(),
            "training_history": state["training_history"],
            "validation_history": state["validation_history"],
            "validation": {k: v for k, v in validation.items() if k != "step"},
            "unigram_entropy": self.metadata["unigram_entropy"],
            "validation_unigram_cross_entropy": self.metadata["validation_unigram_cross_entropy"],
        }


def _peak_memory_bytes() -> int:
    """Largest resident memory of this process, or of its GPU when it has one."""
    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
