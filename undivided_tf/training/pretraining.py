"""Masked-language-model pre-training: one loop around `strategy.run`.

Keras `fit` neither restores the data position of an interrupted epoch nor runs under every
strategy, so the loop is ours. The same call resumes: weights, optimizer, step, dropout states
and data position come from the newest checkpoint, and masks are a function of seed and step.
"""

import pathlib
import re
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from undivided_tf import accounting
from undivided_tf.config import results_once
from undivided_tf.data import records
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.pretraining_recipes import PretrainingConfig
from undivided_tf.progress import bar
from undivided_tf.training import (
    checkpoints,
    context_use,
    evaluation,
    faults,
    optimizers,
    strategies,
)
from undivided_tf.training.collapse_watch import CollapseWatch
from undivided_tf.training.curriculum import Curriculum
from undivided_tf.training.curves import Curves
from undivided_tf.training.distillation import Distillation, load_start
from undivided_tf.training.steps import POLICIES, Steps
from undivided_tf.training.weights import dropout_states

_STOPPED = 128 + 15  # What a shell reports of a process that SIGTERM ended.


def pretrain(config: PretrainingConfig) -> dict[str, Any]:
    """Trains an encoder, or goes on where an interrupted call stopped.

    Args:
        config: the run; `config.workdir` receives config.json, checkpoints, TensorBoard
            events and, at the end, results.json. Of several workers the first one writes, and
            all must see the directory.

    Returns:
        The content of results.json: sizes, costs, loss curves and the held-out loss.

    Raises:
        InputError: records that do not fit, a workdir of another config, no readable checkpoint,
            no memory left, a device that is not there.
        FloatingPointError: more than `max_skipped_steps` steps were not finite; says where it
            began. The newest checkpoint stays.
        SystemExit: SIGTERM came; the step was ended and saved.
    """

    def run(trainer: Trainer) -> dict[str, Any]:
        return trainer.results(trainer.train(trainer.restore()))

    if config.strategy == "multi_worker":
        # Collectives must be set up before anything else, and by every worker.
        trainer = Trainer(config)
        if not trainer.is_chief:
            return run(trainer)
        return results_once(config, lambda: trainer, run)
    return results_once(config, lambda: Trainer(config), run)


class Trainer:
    """Model, optimizer and compiled steps of one pre-training run.

    Args:
        config: the run.
    """

    def __init__(self, config: PretrainingConfig):
        strategies.make_repeatable(config.seed, config.deterministic)
        self.strategy = strategies.get(config.strategy, config.tpu_name)
        self.is_chief = strategies.is_chief(self.strategy)
        self.config = config
        self.tokenizer = records.read_tokenizer(config.records_dir)
        self.encoder_config = config.encoder
        if not config.encoder.vocabulary_hash:  # One that names its vocabulary must fit as it is.
            self.encoder_config = config.encoder.replace(
                vocab_size=self.tokenizer.vocab_size,
                vocabulary_hash=self.tokenizer.vocabulary_hash,
                do_lower_case=self.tokenizer.do_lower_case,
            )
        self.curriculum = Curriculum(config, self.encoder_config, self.tokenizer)
        self.metadata, self.length = self.curriculum.metadata, self.curriculum.length
        pairs_weight = self.curriculum.next_sentence_weight
        self.replicas = self.strategy.num_replicas_in_sync
        parts = self.replicas * config.gradient_accumulation_steps
        for size in (stage.batch_size for stage in config.stages if stage.batch_size % parts):
            raise InputError(
                f"train_batch_size or curriculum: a batch of {size} does not split evenly over "
                f"{self.replicas} device(s) x {config.gradient_accumulation_steps} "
                f"gradient_accumulation_steps: take a multiple of {parts}"
            )
        with self.strategy.scope():
            policy = POLICIES[config.dtype]
            self.model = Pretrainer(
                Encoder(self.encoder_config, config.seed, config.recompute, dtype=policy),
                next_sentence=pairs_weight > 0,
            )
            teacher = Distillation(config, self.encoder_config) if config.distils else None
            # A head that nothing asks for would only decay.
            asked = config.masked_lm_weight or (teacher and teacher.logits_weight)
            self.model.masked_lm_head.trainable = bool(asked)
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
        self.steps = Steps(
            self.strategy,
            self.model,
            self.optimizer,
            # On a TPU all is compiled by XLA, and an inner compilation is an error.
            jit_compile=config.jit_compile and config.strategy != "tpu",
            max_gradient_norm=config.max_gradient_norm,
            accumulation=config.gradient_accumulation_steps,
            scale_loss=config.dtype == "float16",
            next_sentence_weight=pairs_weight,
            masked_lm_weight=config.masked_lm_weight,
            distillation=teacher,
        )
        self.training_variables = [
            *self.optimizer.variables,
            *dropout_states(self.model),
            *self.steps.variables,
        ]
        self.workdir = pathlib.Path(config.workdir)
        if config.init_checkpoint and not checkpoints.newest(self.workdir):
            load_start(self.model, config)

    def restore(self) -> dict[str, Any]:
        """State of the newest checkpoint, or that of a fresh run."""
        state = checkpoints.restore_latest(self.workdir, self.model, self.training_variables)
        if state:
            logging.info("resuming %s at step %d", self.workdir, state["step"])
        fresh = {
            "step": 0,
            "training_seconds": 0.0,
            "training_history": [],
            "validation_history": [],
            "interval": {"loss": 0.0, "weight": 0.0},
            "best": None,
            "skipped_steps": [],
        }
        return fresh | (state or {})  # Older releases counted less.

    def train(self, state: dict[str, Any]) -> dict[str, Any]:
        """Runs the remaining steps; returns the state after the last."""
        config = self.config
        last = config.num_train_steps
        if self.is_chief:
            self.curves = Curves(self.workdir / "tensorboard", last, state["step"])
            self.watch = CollapseWatch(self.model.encoder, config.records_dir, self.tokenizer)
        batches = iter(self.batches(state["step"]))
        self.step_seconds: list[float] = []
        neighbours = self.curriculum.held_out.neighbour_model_loss
        description = f"pre-training {self.encoder_config.block_pattern}"
        with (
            self.memory_advice(),
            faults.stop_on_sigterm() as stop,
            bar(last, description, "steps", initial=state["step"]) as progress,
        ):
            for step in range(state["step"] + 1, last + 1):
                start = time.perf_counter()
                batch = next(batches)
                sums = self.step(batch, stop.came)
                seconds = time.perf_counter() - start
                self.step_seconds.append(seconds)
                state["training_seconds"] += seconds
                state["step"] = step
                if np.isfinite(sums["loss"]) and np.isfinite(sums["gradient_norm"]):
                    progress.set_postfix_str(
                        evaluation.brief(self.steps, sums, neighbours), refresh=False
                    )
                else:
                    self._skip(state, batch, sums)
                    sums = {**sums, "loss": 0.0, "weight": 0.0}
                if self.is_chief:
                    self.curves.add(state, sums, float(self.optimizer.learning_rate))
                self._keep(state, stopping=sums["stop"] > 0)
                progress.update()
                if sums["stop"] > 0 and step < last:
                    logging.warning("SIGTERM: saved at step %d; the same command goes on", step)
                    raise SystemExit(_STOPPED)
        return state

    def memory_advice(self):
        """Inside it, running out of memory ends in an InputError that says what helps."""
        needs = self.curriculum.needs(self.replicas)
        return faults.out_of_memory_advice(self.config, self.encoder_config, needs)

    def step(self, batch: Any, stop: bool = False) -> dict[str, float]:
        """One optimizer step; see `Steps._train`."""
        sums = self.steps.train(batch, tf.constant(float(stop)))
        return {name: float(value) for name, value in sums.items()}

    def _keep(self, state: dict[str, Any], stopping: bool) -> None:
        """Evaluates and saves when it is time; a best evaluation is always saved."""
        config, step = self.config, state["step"]
        last = step == config.num_train_steps
        best = False
        if step % config.eval_every_steps == 0 or last:
            scores = {"step": step, **self.evaluate()}
            state["validation_history"].append(scores)
            loss = scores["loss" if config.masked_lm_weight else "distillation_loss"]
            best = state["best"] is None or loss < state["best"]["loss"]
            if best:
                state["best"] = {"step": step, "loss": loss}
            if self.is_chief:
                self.curves.write("validation", scores, step)
                self.curves.write("token_residual", self.watch.look(step), step)
        save = step % config.save_checkpoints_steps == 0 or last or best or stopping
        if save and self.is_chief:
            self.curves.flush()
            checkpoints.save(
                self.workdir,
                state,
                self.model,
                self.training_variables,
                self.tokenizer,
                config.keep_checkpoints,
                optimizers.averages(self.optimizer),
            )

    def batches(self, start_step: int) -> Iterator[Any]:
        """Endless global batches, from the one that step `start_step` + 1 sees."""
        return self.curriculum.batches(self.strategy, start_step)

    def evaluate(self) -> dict[str, float]:
        """Scores of the held-out records, see `evaluation.scores`.

        With a moving average of the weights all of them once more for it, their names beginning
        with `ema_`.
        """
        held_out, batches = self.curriculum.held_out, self.curriculum.validation_batches
        scores = evaluation.scores(self.steps, held_out, batches(self.strategy))
        if self.config.ema_momentum:
            with evaluation.averaged_weights(self.model, self.optimizer):
                averaged = evaluation.scores(self.steps, held_out, batches(self.strategy))
            same = {"masked_tokens", "neighbour_model_loss", "neighbour_model_loss_at_mask"}
            averaged = {name: value for name, value in averaged.items() if name not in same}
            scores |= {f"ema_{name}": value for name, value in averaged.items()}
        return scores

    def _skip(self, state: dict[str, Any], batch: Any, sums: dict[str, float]) -> None:
        """Leaves a step that is not finite out, or ends the run with a report."""
        step = state["step"]
        if self.config.dtype == "float16" and float(self.steps.loss_scale) > 1:
            # How the loss scale is found; the step has halved it.
            logging.info("step %d: overflow, loss scale %g", step, float(self.steps.loss_scale))
            return
        parts = (
            part
            for rows in self.strategy.experimental_local_results(batch)
            for part in self.steps.parts(rows)
        )
        report = f"step {step}: " + faults.not_finite_report(self.model, parts, sums)
        state["skipped_steps"].append(step)
        skipped, allowed = len(state["skipped_steps"]), self.config.max_skipped_steps
        if skipped > allowed:
            good = checkpoints.newest(self.workdir)
            raise FloatingPointError(
                f"{report}\nlast good checkpoint: {good or 'none yet'}\n"
                f"{skipped} step(s) were not finite, max_skipped_steps is {allowed}. Lower "
                "--learning_rate, raise --num_warmup_steps, set --norm_first, or allow more"
            )
        logging.warning("%s\nleft out: %d of at most %d", report, skipped, allowed)

    def results(self, state: dict[str, Any]) -> dict[str, Any]:
        """What results.json holds."""
        config, encoder = self.config, self.encoder_config
        last = config.stages[-1]
        # The first step compiles. A run that had nothing left to do has no step to time.
        timed = self.step_seconds[-(last.last_step - last.first_step) :]
        timed = timed[1:] or timed
        seconds = statistics.median(timed) if timed else None
        *_, validation = state["validation_history"]
        return {
            "kind": "pretraining",
            "pattern": encoder.block_pattern,
            "seed": config.seed,
            "parameters": accounting.count_parameters(encoder),
            "forward_flops": accounting.forward_flops(encoder, self.length),
            "training_flops": self.curriculum.training_flops,
            "steps": state["step"],
            "tokens": self.curriculum.tokens,
            "step_milliseconds": seconds and 1000 * seconds,
            "tokens_per_second": seconds and last.batch_size * self.length / seconds,
            "training_seconds": state["training_seconds"],
            "peak_memory_bytes": peak_memory_bytes(),
            "training_history": state["training_history"],
            "validation_history": state["validation_history"],
            "validation": {k: v for k, v in validation.items() if k != "step"},
            "learnt": validation.get("learnt"),  # An older release may have evaluated last.
            "context_use": context_use.measure(self.steps, self.curriculum),
            "best": state["best"],
            "skipped_steps": state["skipped_steps"],
            "unigram_entropy": self.metadata["unigram_entropy"],
            "validation_unigram_cross_entropy": self.metadata["validation_unigram_cross_entropy"],
        }


def peak_memory_bytes() -> int:
    """Largest resident memory of this process, or of its GPU when it has one."""
    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # What getrusage tells on Linux is never less than the parent's memory.
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
