"""Masked-language-model pre-training: a loop around `strategy.run`.

The loop is our own, because Keras `fit` neither restores the data position of an interrupted epoch
nor runs under every strategy. The same call resumes: weights, optimizer, step, dropout states and
data position are restored from the newest checkpoint, and masks are a function of seed and step.

A run with `cooldown_steps` has branches. At the start of a branch the run is saved. The branch
trains the model through its cooldown in its own directory. Then the run is restored and continues.
"""

import contextlib
import copy
import pathlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from undivided_tf import accounting
from undivided_tf.data.corpus import records
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.weights import dropout_states
from undivided_tf.support import files
from undivided_tf.support.progress import bar, compiling
from undivided_tf.training import (
    context_use,
    device_memory,
    evaluation,
    faults,
    optimizers,
    precision,
    schedules,
    strategies,
)
from undivided_tf.training.collapse_watch import CollapseWatch
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.training.curriculum import Curriculum
from undivided_tf.training.curves import TrainingCurves
from undivided_tf.training.distillation import Distillation
from undivided_tf.training.initial_values import set_initial_values
from undivided_tf.training.steps import POLICIES, Steps
from undivided_tf.workdir import RESULTS, once, open_workdir, results_once

_STOPPED = 128 + 15  # Exit status of a process that SIGTERM ended, as shells report it.
_BRANCH_FIELDS = ("steps", "tokens", "training_flops", "training_seconds", "validation")


def pretrain(config: PretrainingConfig) -> dict[str, Any]:
    """Trains an encoder, or resumes an interrupted call.

    Args:
        config: the run; `config.workdir` receives config.json, checkpoints, TensorBoard events and,
            at the end, results.json. With several workers the first one writes, and all must see
            the directory. Each branch has the same files in `workdir/branches/step_NNNNNNNN`.

    Returns:
        The content of results.json: sizes, costs, loss curves and the held-out loss. `branches` has
        `steps`, `tokens`, `training_flops`, `training_seconds` and `validation` of each branch; the
        last entry is the run itself.

    Raises:
        InputError: records that do not fit, a workdir of another config, no readable checkpoint,
            too little memory, or a missing device.
        FloatingPointError: more than `max_skipped_steps` steps were not finite; names the first
            such tap. The newest checkpoint stays.
        SystemExit: SIGTERM arrived; the step was finished and saved.
    """

    def run(trainer: Trainer) -> dict[str, Any]:
        if trainer.precision:
            logging.info(precision.describe(trainer.precision))
            once(pathlib.Path(config.workdir) / precision.FILE, lambda: trainer.precision)
        return trainer.results(trainer.train(trainer.restore()))

    if config.strategy == "multi_worker":
        # Every worker must set up collectives before anything else.
        trainer = Trainer(config)
        if not trainer.is_chief:
            return run(trainer)
        return results_once(config, lambda: trainer, run)
    return results_once(config, lambda: Trainer(config), run)


class Course:
    """Steps up to a budget with their own directory: a run or one of its branches.

    Args:
        config: of the run, or of the run that the branch equals.
        curriculum: its batches.
    """

    def __init__(self, config: PretrainingConfig, curriculum: Curriculum):
        self.config, self.curriculum = config, curriculum
        self.workdir = pathlib.Path(config.workdir)
        self.results_path = self.workdir / RESULTS
        self.curves: TrainingCurves | None = None


class Trainer:
    """Model, optimizer and compiled steps of one pre-training run.

    Args:
        config: the run.
    """

    def __init__(self, config: PretrainingConfig):
        strategies.make_repeatable(config.seed, config.deterministic)
        config, self.precision = precision.resolve(config)
        self.strategy = strategies.get(config.strategy, config.tpu_name)
        self.is_chief = strategies.is_chief(self.strategy)
        self.config = config
        self.tokenizer = records.read_tokenizer(config.records_dir)
        self.encoder_config = config.encoder
        if not config.encoder.vocabulary_hash:  # A named vocabulary must fit unchanged.
            self.encoder_config = config.encoder.replace(
                vocab_size=self.tokenizer.vocab_size,
                vocabulary_hash=self.tokenizer.vocabulary_hash,
                do_lower_case=self.tokenizer.do_lower_case,
            )
        self.curriculum = Curriculum(config, self.encoder_config, self.tokenizer)
        self.metadata = self.curriculum.metadata
        pairs_weight = self.curriculum.next_sentence_weight
        self.replicas = self.strategy.num_replicas_in_sync
        parts = self.replicas * config.gradient_accumulation_steps
        for size in (stage.batch_size for stage in config.stages if stage.batch_size % parts):
            raise InputError(
                f"train_batch_size or curriculum: a batch of {size} does not split evenly over "
                f"{self.replicas} device(s) x {config.gradient_accumulation_steps} "
                f"gradient_accumulation_steps: use a multiple of {parts}"
            )
        with self.strategy.scope():
            policy = POLICIES[config.dtype]
            self.model = Pretrainer(
                Encoder(self.encoder_config, config.seed, config.recompute, dtype=policy),
                next_sentence=pairs_weight > 0,
            )
            teacher = Distillation(config, self.encoder_config) if config.distils else None
            # Without a loss the weights of the head would only decay.
            has_loss = config.masked_lm_weight or (teacher and teacher.logits_weight)
            self.model.masked_lm_head.trainable = bool(has_loss)
            self.schedule = schedules.of_run(config)
            self.optimizer = optimizers.of_run(
                config, self.model.trainable_variables, self.schedule
            )
        self.steps = Steps(
            self.strategy,
            self.model,
            self.optimizer,
            # On a TPU XLA compiles everything, and an inner compilation is an error.
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
        self.trunk = Course(config, self.curriculum)
        self.step_seconds: list[tuple[int, float]] = []  # (number of the step, its seconds).
        self.compiled: set[tuple[int, str]] = set()  # (batch size, records).
        if not checkpoints.newest(config.workdir):
            set_initial_values(self.model, config)

    def restore(self) -> dict[str, Any]:
        """State of the newest checkpoint, or of a fresh run."""
        fresh = {
            "step": 0,
            "training_seconds": 0.0,
            "training_history": [],
            "validation_history": [],
            "interval": {"loss": 0.0, "weight": 0.0},
            "best": None,
            "skipped_steps": [],
        }
        return fresh | (self._restored(self.trunk) or {})  # Older states lack some counts.

    def _restored(self, course: Course) -> dict[str, Any] | None:
        """State of the newest checkpoint of a course; None if it has none."""
        state = checkpoints.restore_latest(course.workdir, self.model, self.training_variables)
        if state:
            logging.info("resuming %s at step %d", course.workdir, state["step"])
        return state

    def train(self, state: dict[str, Any]) -> dict[str, Any]:
        """Runs the remaining steps and branches; returns the state after the last step."""
        config, trunk = self.config, self.trunk
        if self.is_chief:
            self.watch = CollapseWatch(self.model.encoder, config.records_dir, self.tokenizer)
        with self.memory_advice(), faults.stop_on_sigterm() as self.stop_request:
            for branch_config in config.branches:
                curriculum = Curriculum(branch_config, self.encoder_config, self.tokenizer)
                branch = Course(branch_config, curriculum)
                if branch.results_path.exists():
                    continue
                self._require_start(branch, state)
                state = self._advance(trunk, state, until=branch_config.cooldown_start)
                self._run_branch(branch, copy.deepcopy(state))
                state = self._restored(trunk)
            return self._advance(trunk, state, until=config.num_train_steps)

    def _require_start(self, branch: Course, state: dict[str, Any]) -> None:
        """Raises InputError if the run has passed the start of a branch without results."""
        start = branch.config.cooldown_start
        if state["step"] > start:
            raise InputError(
                f"{branch.results_path} does not exist, but {self.trunk.workdir} is at step "
                f"{state['step']} and has passed step {start}, where this branch starts: restore "
                "the file, or remove the checkpoints to start again"
            )

    def _run_branch(self, branch: Course, state: dict[str, Any]) -> None:
        """Trains the model from the start of a branch, or from its checkpoint, to its end."""
        if self.is_chief:
            open_workdir(branch.workdir, branch.config)
        state = self._restored(branch) or state
        state = self._advance(branch, state, until=branch.config.num_train_steps)
        results = self.results(state, branch)  # By all workers, since they evaluate together.
        if self.is_chief:
            files.write_json(branch.results_path, results)

    def _advance(self, course: Course, state: dict[str, Any], until: int) -> dict[str, Any]:
        """Runs the remaining steps of a course up to a step, and saves there."""
        if state["step"] >= until:
            return state
        last = course.config.num_train_steps
        if isinstance(self.schedule, schedules.Trapezoid):
            self.schedule.cool_down(course.config.cooldown_start, last)
        if self.is_chief and course.curves is None:
            course.curves = TrainingCurves(
                course.workdir / "tensorboard", self.config.num_train_steps, state["step"]
            )
        batches = iter(self.batches(state["step"], course))
        neighbours = self.curriculum.held_out.neighbour_model_loss
        description = f"pre-training {self.encoder_config.block_pattern}"
        if course is not self.trunk:
            description += f", branch of {last} steps"
        stages = course.config.stages
        with bar(last, description, "steps", initial=state["step"]) as progress:
            for step in range(state["step"] + 1, until + 1):
                start = time.perf_counter()
                batch = next(batches)
                stage = next(stage for stage in stages if step <= stage.last_step)
                form = stage.batch_size, stage.records_dir  # These decide the shapes of a batch.
                is_compiled = form in self.compiled
                with contextlib.nullcontext() if is_compiled else compiling(progress):
                    sums = self.step(batch, self.stop_request.received)
                self.compiled.add(form)
                seconds = time.perf_counter() - start
                self.step_seconds.append((step, seconds))
                state["training_seconds"] += seconds
                state["step"] = step
                if np.isfinite(sums["loss"]) and np.isfinite(sums["gradient_norm"]):
                    progress.set_postfix_str(
                        evaluation.loss_text(self.steps, sums, neighbours), refresh=False
                    )
                else:
                    self._skip(course, state, batch, sums)
                    sums = {**sums, "loss": 0.0, "weight": 0.0}
                if self.is_chief:
                    rate = float(self.optimizer.learning_rate)
                    course.curves.add(state, sums, rate, last=step == last)
                stopping = sums["stop"] > 0
                self._evaluate_and_save(course, state, save=stopping or step == until)
                progress.update()
                if stopping and step < last:
                    logging.warning(
                        "SIGTERM: %s is saved at step %d; the same command resumes",
                        course.workdir,
                        step,
                    )
                    raise SystemExit(_STOPPED)
        return state

    def memory_advice(self):
        """Turns lack of memory into an InputError with advice."""
        needs = self.curriculum.needs(self.replicas)
        return device_memory.out_of_memory_advice(self.config, self.encoder_config, needs)

    def step(self, batch: Any, stop: bool = False) -> dict[str, float]:
        """One optimizer step; returns the result of `Steps.train` as numbers."""
        sums = self.steps.train(batch, tf.constant(float(stop)))
        return {name: float(value) for name, value in sums.items()}

    def _evaluate_and_save(self, course: Course, state: dict[str, Any], save: bool) -> None:
        """Evaluates and saves if it is due, or if `save`; also saves after the best evaluation."""
        config, step = course.config, state["step"]
        best = False
        if step % config.eval_every_steps == 0 or step == config.num_train_steps:
            scores = {"step": step, **self.evaluate()}
            state["validation_history"].append(scores)
            loss = scores["loss" if config.masked_lm_weight else "distillation_loss"]
            best = state["best"] is None or loss < state["best"]["loss"]
            if best:
                state["best"] = {"step": step, "loss": loss}
            if self.is_chief:
                course.curves.write("validation", scores, step)
                course.curves.write("token_residual", self.watch.residuals(step), step)
        save = save or best or step % config.save_checkpoints_steps == 0
        if save and self.is_chief:
            course.curves.flush()
            checkpoints.save(
                course.workdir,
                state,
                self.model,
                self.training_variables,
                self.tokenizer,
                config.keep_checkpoints,
                optimizers.averages(self.optimizer),
            )

    def batches(self, start_step: int, course: Course | None = None) -> Iterator[Any]:
        """Endless global batches of a course, starting with that of step `start_step` + 1."""
        return (course or self.trunk).curriculum.batches(self.strategy, start_step)

    def evaluate(self) -> dict[str, float]:
        """Scores of the held-out records; see `evaluation.scores`.

        If the run keeps a moving average of the weights, its scores have the prefix `ema_`.
        """
        held_out, batches = self.curriculum.held_out, self.curriculum.validation_batches
        scores = evaluation.scores(self.steps, held_out, batches(self.strategy))
        if self.config.ema_momentum:
            with evaluation.averaged_weights(self.model, self.optimizer):
                averaged = evaluation.scores(self.steps, held_out, batches(self.strategy))
            equal = {"masked_tokens", "neighbour_model_loss", "neighbour_model_loss_at_mask"}
            averaged = {name: value for name, value in averaged.items() if name not in equal}
            scores |= {f"ema_{name}": value for name, value in averaged.items()}
        return scores

    def _skip(
        self, course: Course, state: dict[str, Any], batch: Any, sums: dict[str, float]
    ) -> None:
        """Skips a step that is not finite, or ends the run with a report."""
        step = state["step"]
        if self.config.dtype == "float16" and float(self.steps.loss_scale) > 1:
            # The search for the loss scale needs overflows; the step has halved the scale.
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
            good = checkpoints.newest(course.workdir) or checkpoints.newest(self.trunk.workdir)
            raise FloatingPointError(
                f"{report}\nlast good checkpoint: {good or 'none yet'}\n"
                f"{skipped} step(s) were not finite, max_skipped_steps is {allowed}. Lower "
                "--learning_rate, raise --num_warmup_steps, set --norm_first, or allow more"
            )
        logging.warning("%s\nskipped: %d of at most %d", report, skipped, allowed)

    def results(self, state: dict[str, Any], course: Course | None = None) -> dict[str, Any]:
        """The content of results.json, of the run or a branch."""
        course = course or self.trunk
        config, encoder = course.config, self.encoder_config
        last = config.stages[-1]
        # Steps of the last stage, except the first, which compiles. There is none if the run had no
        # steps left.
        timed = [
            seconds
            for step, seconds in self.step_seconds
            if last.first_step < step <= last.last_step
        ]
        timed = timed[1:] or timed
        seconds = statistics.median(timed) if timed else None
        *_, validation = state["validation_history"]
        results = {
            "kind": "pretraining",
            "pattern": encoder.block_pattern,
            "seed": config.seed,
            "parameters": accounting.count_parameters(encoder),
            "forward_flops": accounting.forward_flops(encoder, course.curriculum.length),
            "training_flops": course.curriculum.training_flops,
            "steps": state["step"],
            "tokens": course.curriculum.tokens,
            "step_milliseconds": seconds and 1000 * seconds,
            "tokens_per_second": seconds and last.batch_size * course.curriculum.length / seconds,
            "training_seconds": state["training_seconds"],
            "peak_memory_bytes": device_memory.peak_bytes(),
            **({"precision": self.precision} if self.precision else {}),
            "training_history": state["training_history"],
            "validation_history": state["validation_history"],
            "validation": {k: v for k, v in validation.items() if k != "step"},
            "learnt": validation.get("learnt"),  # Older releases have no verdict.
            "context_use": context_use.measure(self.steps, self.curriculum),
            "best": state["best"],
            "skipped_steps": state["skipped_steps"],
            "unigram_entropy": self.metadata["unigram_entropy"],
            "validation_unigram_cross_entropy": self.metadata["validation_unigram_cross_entropy"],
        }
        runs = [files.read_json(pathlib.Path(b.workdir) / RESULTS) for b in config.branches]
        branches = [{name: run[name] for name in _BRANCH_FIELDS} for run in (*runs, results)]
        return {**results, "branches": branches}
