"""What blocks are good for, on two synthetic corpora: facts to store, and values to copy.

- **Facts.** A fact is a random key of three symbols and a random value: `[CLS] k k k [MASK] [SEP]`.
  Training shows each one `exposures` times. What an encoder then knows of all facts is stored in
  its parameters, since nothing else tells a value from its key.
- **Copying.** `[CLS] a b c ... [SEP] [MASK] [MASK] [MASK] ... [SEP]`: random values, then all of
  them once more, masked. Each sequence is new, so nothing can be stored; the values must be copied
  from their places in the context.

The encoders are trained by the steps of pre-training, with Muon. One compiled step serves all runs
of a pattern on a corpus: weights, optimizer and rate are set to those of the next run.

References:
    Allen-Zhu and Li 2024, arXiv 2404.05405 (bits of knowledge per parameter, by exposures).
    Olsson et al. 2022, arXiv 2209.11895 (copying in context).
"""

import math
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.layers.initializers import derive_seed
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.support import progress
from undivided_tf.training import optimizers, strategies
from undivided_tf.training.config import LENGTH_OF_FACT, SPECIAL_IDS, MechanismConfig
from undivided_tf.training.schedules import WarmupDecay
from undivided_tf.training.steps import Steps
from undivided_tf.workdir import once, results_directory, results_once

FACTS, COPYING = "facts", "copying"
BITS, MEAN_ACCURACY = "bits", "mean_accuracy"  # By which the rates are chosen.
CLS, SEP, MASK = 2, 3, 4
WARMUP_SHARE = 0.1
EVALUATED_SEQUENCES = 512
Batch = dict[str, np.ndarray]


def run_mechanism(config: MechanismConfig) -> dict[str, Any]:
    """Trains the encoders of all patterns on both corpora.

    Args:
        config: the grid; `config.workdir` receives config.json, runs/ and results.json. Finished
            runs are read instead.

    Returns:
        `kind`; `bits_per_fact`; and `encoders`, a list with `pattern`, `parameters` (all, with the
        masked-language-model head), `block_parameters`, `facts` (a list with `num_facts`),
        `copying`, and all `runs`. Facts and copying have the results of the best `learning_rate` by
        mean over the seeds, whether it is the lowest or highest (`at_edge`), and lists by `seeds`.
        Facts: `loss` (nats per fact after training), `accuracy`, `bits` (stored, see
        `bits_stored`; decides the rate). Copying, on new sequences: `loss` and `accuracy` after
        training, `mean_accuracy` (over the evaluations: how early and how well it copies; decides
        the rate), and `curve`, a list of `step`, `loss` and `accuracy`, means over the seeds.

    Raises:
        InputError: a workdir of another config.
        FloatingPointError: a loss after training is not finite.
    """

    def run(_: None) -> dict[str, Any]:
        folder = results_directory(config.workdir) / "runs"
        folder.mkdir(exist_ok=True)
        kinds = len(config.canonical_patterns) * (len(config.num_facts) + 1)
        total = kinds * len(config.learning_rates) * config.num_seeds
        with progress.bar(total, "synthetic corpora", "runs") as bar:
            encoders = [
                _encoder(config, pattern, folder, bar) for pattern in config.canonical_patterns
            ]
        bits = math.log2(config.num_values)
        return {"kind": "mechanism", "bits_per_fact": bits, "encoders": encoders}

    return results_once(config, lambda: None, run)


def bits_stored(num_facts: int, num_values: int, loss: float) -> float:
    """Bits of the facts that a loss stands for: `N (log2 V - loss / log 2)`, 0 at least.

    Args:
        num_facts: number of facts, N.
        num_values: number of values, V, equally likely.
        loss: mean cross-entropy of the value of a fact, nats.

    Examples:
        >>> bits_stored(100, 256, 0.0), bits_stored(100, 256, 6.0)
        (800.0, 0.0)
    """
    return num_facts * max(0.0, math.log2(num_values) - loss / math.log(2))


def sizes(encoder: EncoderConfig) -> dict[str, int]:
    """`parameters`, with the masked-language-model head, and `block_parameters` of an encoder."""
    parts = accounting.parameter_breakdown(encoder)
    return {
        "parameters": sum(parts.values()) + accounting.masked_lm_head_parameters(encoder),
        "block_parameters": parts["attention"] + parts["intermediate"],
    }


# === Corpora ===


def facts(config: MechanismConfig, num_facts: int, seed: int) -> Batch:
    """Rows of facts with their values masked.

    Args:
        config: number of symbols and values.
        num_facts: number of facts; their keys differ.
        seed: decides keys and values.

    Returns:
        A batch as of `masking.mask_tokens`, `(num_facts, 6)`.
    """
    generator = np.random.default_rng((seed, num_facts))
    base = config.num_symbols
    keys = generator.choice(base**3, num_facts, replace=False)
    values = _first_value(config) + generator.integers(config.num_values, size=num_facts)
    digits = np.stack([keys // base**2, keys // base % base, keys % base], axis=1)
    rows = np.full((num_facts, LENGTH_OF_FACT), SEP, np.int32)
    rows[:, 0], rows[:, 1:4], rows[:, 4] = CLS, SPECIAL_IDS + digits, MASK
    return _batch(rows, np.full((num_facts, 1), 4), values[:, np.newaxis])


def sequences(config: MechanismConfig, count: int, generator: np.random.Generator) -> Batch:
    """New sequences of values that come twice, the second time masked.

    Args:
        config: number of copied and of possible values.
        count: number of sequences.
        generator: decides the values.

    Returns:
        A batch as of `masking.mask_tokens`, `(count, 3 + 2 num_copied)`.
    """
    copied = config.num_copied
    values = _first_value(config) + generator.integers(config.num_values, size=(count, copied))
    rows = np.full((count, 3 + 2 * copied), SEP, np.int32)
    rows[:, 0], rows[:, 1 : 1 + copied] = CLS, values
    masked = np.arange(2 + copied, 2 + 2 * copied)
    rows[:, masked] = MASK
    return _batch(rows, np.tile(masked, (count, 1)), values)


def _first_value(config: MechanismConfig) -> int:
    return SPECIAL_IDS + config.num_symbols


def _batch(rows: np.ndarray, positions: np.ndarray, answers: np.ndarray) -> Batch:
    return {
        "token_ids": rows,
        "segment_ids": np.zeros_like(rows),
        "padding_mask": np.ones_like(rows),
        "masked_positions": positions.astype(np.int32),
        "masked_ids": answers.astype(np.int32),
        "masked_weights": np.ones(answers.shape, np.float32),
    }


# === Training ===


class _GivenRate(keras.optimizers.schedules.LearningRateSchedule):
    """The rate that its variable has, so that one compiled step serves every schedule."""

    def __init__(self):
        self.rate = tf.Variable(0.0, trainable=False)

    def __call__(self, step):
        return self.rate.value()

    def get_config(self):
        return {}


class Learner:
    """An encoder that is trained anew for each run, in one compiled step.

    Args:
        config: the grid.
        encoder: the encoder.
    """

    def __init__(self, config: MechanismConfig, encoder: EncoderConfig):
        self.config, self.encoder = config, encoder
        strategies.make_repeatable(config.seed, deterministic=True)
        strategy = strategies.get("one_device")
        self._starts: dict[int, list[np.ndarray]] = {}
        with strategy.scope():
            self.model = Pretrainer(Encoder(encoder, config.seed))
            self._schedule = _GivenRate()
            self._optimizer = optimizers.muon(
                self.model.trainable_variables,
                learning_rate=self._schedule,
                weight_decay_rate=config.weight_decay_rate,
                beta_2=config.adam_beta_2,
            )
        self._fresh = [variable.numpy() for variable in self._optimizer.variables]
        self.steps = Steps(
            strategy,
            self.model,
            self._optimizer,
            jit_compile=config.jit_compile,
            max_gradient_norm=1.0,
        )
        self._stretch = tf.function(self._many, autograph=False)

    def train(
        self, seed: int, peak: float, batches: Iterable[Batch], num_steps: int
    ) -> Iterator[int]:
        """Trains from the initial values of a seed; yields the steps done after each stretch.

        Args:
            seed: of the initial values.
            peak: learning rate after the warm-up; from there a line leads to 0.
            batches: of one size.
            num_steps: number of steps. A stretch has `eval_every_steps`, the last one the rest.
        """
        if seed not in self._starts:
            start = Pretrainer(Encoder(self.encoder, derive_seed(seed, "mechanism")))
            self._starts[seed] = [weight.numpy() for weight in start.weights]
        for variable, value in zip(self.model.weights, self._starts[seed], strict=True):
            variable.assign(value)
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        schedule = WarmupDecay(peak, round(WARMUP_SHARE * num_steps), num_steps)
        rates = np.array(schedule(np.arange(num_steps)))
        batches, length = iter(batches), self.config.eval_every_steps
        for first in range(0, num_steps, length):
            count = min(length, num_steps - first)
            some = [next(batches) for _ in range(count)]
            some += some[-1:] * (length - count)  # Never reached; one shape is compiled once.
            stacked = {name: np.stack([batch[name] for batch in some]) for name in some[0]}
            padded = np.resize(rates[first : first + count], length)
            self._stretch(_tensors(stacked), tf.constant(padded), tf.constant(count))
            yield first + count

    def _many(self, batches: dict[str, tf.Tensor], rates: tf.Tensor, count: tf.Tensor) -> None:
        """Trains the first `count` of stacked batches, without a way back to Python."""

        def step(index):
            self._schedule.rate.assign(rates[index])
            batch = {name: value[index] for name, value in batches.items()}
            self.steps.train(batch, tf.constant(0.0))
            return index + 1

        tf.while_loop(lambda index: index < count, step, [tf.constant(0)], parallel_iterations=1)

    def evaluate(self, rows: Batch) -> tuple[float, float]:
        """Mean loss (nats) and accuracy at the masked places of rows.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        totals = {"loss": 0.0, "correct": 0.0, "weight": 0.0}
        size = self.config.train_batch_size
        count = len(rows["token_ids"])
        for start in range(0, count, size):
            # The last batch is filled up, since each shape would be compiled.
            chosen = np.arange(start, start + size)
            batch = {name: value[np.minimum(chosen, count - 1)] for name, value in rows.items()}
            batch["masked_weights"] = batch["masked_weights"] * (chosen < count)[:, np.newaxis]
            sums, _ = self.steps.evaluate(_tensors(batch))
            for name in totals:
                totals[name] += float(sums[name])
        loss = totals["loss"] / totals["weight"]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss of {self.encoder.block_pattern} is {loss}: lower the learning_rates"
            )
        return loss, totals["correct"] / totals["weight"]


def _tensors(batch: Batch) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in batch.items()}


def store(learner: Learner, num_facts: int, rate: float, seed: int) -> dict[str, Any]:
    """Trains on facts; see `run_mechanism`."""
    config = learner.config
    rows = facts(config, num_facts, seed)
    # Each pass shows each fact once; the remainder of the last batch begins anew.
    num_steps = -(-num_facts * config.exposures // config.train_batch_size)
    generator = np.random.default_rng((seed, num_facts, 1))

    def batches() -> Iterator[Batch]:
        order = np.empty(0, int)
        for _ in range(num_steps):
            while len(order) < config.train_batch_size:
                order = np.concatenate([order, generator.permutation(num_facts)])
            chosen, order = np.split(order, [config.train_batch_size])
            yield {name: value[chosen] for name, value in rows.items()}

    for _ in learner.train(seed, rate, batches(), num_steps):
        pass
    loss, accuracy = learner.evaluate(rows)
    bits = bits_stored(num_facts, config.num_values, loss)
    found = {"num_facts": num_facts, "loss": loss, "accuracy": accuracy, "bits": bits}
    return {"corpus": FACTS, "seed": seed, "learning_rate": rate, "steps": num_steps, **found}


def copy(learner: Learner, rate: float, seed: int) -> dict[str, Any]:
    """Trains to copy; see `run_mechanism`."""
    config = learner.config
    num_steps = config.num_copying_steps
    generator = np.random.default_rng((seed, 0))
    held_out = sequences(config, EVALUATED_SEQUENCES, np.random.default_rng((seed, 0, 1)))
    batches = (sequences(config, config.train_batch_size, generator) for _ in range(num_steps))
    curve = []
    for step in learner.train(seed, rate, batches, num_steps):
        loss, accuracy = learner.evaluate(held_out)
        curve.append({"step": step, "loss": loss, "accuracy": accuracy})
    found = {
        "loss": curve[-1]["loss"],
        "accuracy": curve[-1]["accuracy"],
        "mean_accuracy": float(np.mean([point["accuracy"] for point in curve])),
        "curve": curve,
    }
    return {"corpus": COPYING, "seed": seed, "learning_rate": rate, "steps": num_steps, **found}


def _encoder(
    config: MechanismConfig, pattern: str, folder: pathlib.Path, bar: Any
) -> dict[str, Any]:
    """The runs of a pattern; each is finished when its file is there."""
    encoder = config.of_pattern(pattern)
    learners: dict[str, Learner] = {}

    def learner(corpus: str) -> Learner:
        if corpus not in learners:  # Made late: all runs may be finished.
            learners[corpus] = Learner(config, encoder)
        return learners[corpus]

    runs: list[dict[str, Any]] = []

    def add(name: str, make: Callable[[], dict[str, Any]]) -> None:
        readable = re.sub(r"[^A-Za-z0-9]+", "", pattern.replace("*", "x"))
        runs.append(once(folder / f"{readable}_{name}.json", make))
        bar.update(1)

    for rate in config.learning_rates:
        for seed in range(config.seed, config.seed + config.num_seeds):
            for number in config.num_facts:
                add(
                    f"{FACTS}_{number}_{rate:g}_{seed}",
                    lambda n=number, r=rate, s=seed: store(learner(FACTS), n, r, s),
                )
            add(
                f"{COPYING}_{rate:g}_{seed}",
                lambda r=rate, s=seed: copy(learner(COPYING), r, s),
            )
    stored = [
        {"num_facts": number, **_best([r for r in runs if r.get("num_facts") == number], BITS)}
        for number in config.num_facts
    ]
    copied = _best([run for run in runs if run["corpus"] == COPYING], MEAN_ACCURACY)
    return {"pattern": pattern, **sizes(encoder), FACTS: stored, COPYING: copied, "runs": runs}


def _best(runs: list[dict[str, Any]], measure: str) -> dict[str, Any]:
    """The runs of the rate with the highest mean of a measure, as lists by seed."""
    by_rate: dict[float, list[dict[str, Any]]] = {}
    for run in runs:
        by_rate.setdefault(run["learning_rate"], []).append(run)
    best = max(by_rate, key=lambda rate: np.mean([run[measure] for run in by_rate[rate]]))
    chosen = sorted(by_rate[best], key=lambda run: run["seed"])
    names = [n for n in ("loss", "accuracy", BITS, MEAN_ACCURACY) if n in chosen[0]]
    found = {
        "learning_rate": best,
        "at_edge": best in (min(by_rate), max(by_rate)),
        "seeds": [run["seed"] for run in chosen],
        **{name: [run[name] for run in chosen] for name in names},
    }
    if "curve" in chosen[0]:
        found["curve"] = [
            {
                "step": points[0]["step"],
                "loss": float(np.mean([point["loss"] for point in points])),
                "accuracy": float(np.mean([point["accuracy"] for point in points])),
            }
            for points in zip(*(run["curve"] for run in chosen), strict=True)
        ]
    return found
