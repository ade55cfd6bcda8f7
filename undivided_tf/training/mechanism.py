"""What blocks are good for: small encoders learn to store facts and to copy from the context.

The corpora are those of `synthetic_corpora`. The encoders are trained by the steps of pre-training,
with Muon. One compiled step serves all runs of a pattern on a corpus: each run first sets weights,
optimizer and learning rate.
"""

import math
import pathlib
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
from undivided_tf.training.config import MechanismConfig
from undivided_tf.training.schedules import WarmupDecay
from undivided_tf.training.steps import Steps
from undivided_tf.training.synthetic_corpora import Batch, facts, sequences
from undivided_tf.workdir import once, results_directory, results_once

FACTS, COPYING = "facts", "copying"
BITS, MEAN_ACCURACY = "bits", "mean_accuracy"  # The scores that decide the learning rates.
WARMUP_SHARE = 0.1
EVALUATED_SEQUENCES = 512


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
        Facts: `loss` (nats per fact after training), `accuracy`, and `bits` (see `bits_stored`),
        which decide the rate. Copying, on new sequences: `loss` and `accuracy` after training;
        `mean_accuracy` over the evaluations, which tells how early and how well the encoder copies
        and decides the rate; and `curve`, a list of `step`, `loss` and `accuracy`, means over the
        seeds.

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
                _results_of_pattern(config, pattern, folder, bar)
                for pattern in config.canonical_patterns
            ]
        bits = math.log2(config.num_values)
        return {"kind": "mechanism", "bits_per_fact": bits, "encoders": encoders}

    return results_once(config, lambda: None, run)


def bits_stored(num_facts: int, num_values: int, loss: float) -> float:
    """Bits that an encoder with this loss has stored: `N (log2 V - loss / log 2)`, at least 0.

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


class _VariableRate(keras.optimizers.schedules.LearningRateSchedule):
    """The value of a variable, so that one compiled step serves every schedule."""

    def __init__(self):
        self.rate = tf.Variable(0.0, trainable=False)

    def __call__(self, step):
        return self.rate.value()

    def get_config(self):
        return {}


class Learner:
    """An encoder that each run trains from its own initial values, with one compiled step.

    Args:
        config: the grid.
        encoder: the encoder.
    """

    def __init__(self, config: MechanismConfig, encoder: EncoderConfig):
        self.config, self.encoder = config, encoder
        strategies.make_repeatable(config.seed, deterministic=True)
        strategy = strategies.get("one_device")
        self._initial_weights: dict[int, list[np.ndarray]] = {}
        with strategy.scope():
            self.model = Pretrainer(Encoder(encoder, config.seed))
            self._schedule = _VariableRate()
            self._optimizer = optimizers.muon(
                self.model.trainable_variables,
                learning_rate=self._schedule,
                weight_decay_rate=config.weight_decay_rate,
                beta_2=config.adam_beta_2,
            )
        self._initial_state = [variable.numpy() for variable in self._optimizer.variables]
        self.steps = Steps(
            strategy,
            self.model,
            self._optimizer,
            jit_compile=config.jit_compile,
            max_gradient_norm=1.0,
        )
        self._train_segment = tf.function(self._train_batches, autograph=False)

    def train(
        self, seed: int, peak: float, batches: Iterable[Batch], num_steps: int
    ) -> Iterator[int]:
        """Trains in segments of `eval_every_steps`; yields the number of finished steps after each.

        Args:
            seed: of the initial values.
            peak: learning rate after the warm-up; it then falls linearly to 0.
            batches: batches of one size.
            num_steps: number of steps; the last segment may be shorter.
        """
        if seed not in self._initial_weights:
            initial = Pretrainer(Encoder(self.encoder, derive_seed(seed, "mechanism")))
            self._initial_weights[seed] = [weight.numpy() for weight in initial.weights]
        for variable, value in zip(self.model.weights, self._initial_weights[seed], strict=True):
            variable.assign(value)
        for variable, value in zip(self._optimizer.variables, self._initial_state, strict=True):
            variable.assign(value)
        schedule = WarmupDecay(peak, round(WARMUP_SHARE * num_steps), num_steps)
        rates = np.array(schedule(np.arange(num_steps)))
        batches, length = iter(batches), self.config.eval_every_steps
        for first in range(0, num_steps, length):
            count = min(length, num_steps - first)
            segment = [next(batches) for _ in range(count)]
            segment += segment[-1:] * (length - count)  # Unused: all segments have one shape.
            stacked = {name: np.stack([batch[name] for batch in segment]) for name in segment[0]}
            padded = np.resize(rates[first : first + count], length)
            self._train_segment(_tensors(stacked), tf.constant(padded), tf.constant(count))
            yield first + count

    def _train_batches(
        self, batches: dict[str, tf.Tensor], rates: tf.Tensor, count: tf.Tensor
    ) -> None:
        """Trains on the first `count` of stacked batches without returning to Python."""

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
            # The last batch is padded, since another shape would be compiled again.
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


def learn_facts(learner: Learner, num_facts: int, rate: float, seed: int) -> dict[str, Any]:
    """Trains an encoder to store facts; returns the result of the run, see `run_mechanism`."""
    config = learner.config
    rows = facts(config, num_facts, seed)
    # Each permutation shows each fact once; a batch may continue with the next permutation.
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
    return {
        "corpus": FACTS,
        "seed": seed,
        "learning_rate": rate,
        "steps": num_steps,
        "num_facts": num_facts,
        "loss": loss,
        "accuracy": accuracy,
        "bits": bits_stored(num_facts, config.num_values, loss),
    }


def learn_copying(learner: Learner, rate: float, seed: int) -> dict[str, Any]:
    """Trains an encoder to copy; returns the result of the run, see `run_mechanism`."""
    config = learner.config
    num_steps = config.num_copying_steps
    generator = np.random.default_rng((seed, 0))
    held_out = sequences(config, EVALUATED_SEQUENCES, np.random.default_rng((seed, 0, 1)))
    batches = (sequences(config, config.train_batch_size, generator) for _ in range(num_steps))
    curve = []
    for step in learner.train(seed, rate, batches, num_steps):
        loss, accuracy = learner.evaluate(held_out)
        curve.append({"step": step, "loss": loss, "accuracy": accuracy})
    return {
        "corpus": COPYING,
        "seed": seed,
        "learning_rate": rate,
        "steps": num_steps,
        "loss": curve[-1]["loss"],
        "accuracy": curve[-1]["accuracy"],
        "mean_accuracy": float(np.mean([point["accuracy"] for point in curve])),
        "curve": curve,
    }


def _results_of_pattern(
    config: MechanismConfig, pattern: str, folder: pathlib.Path, bar: Any
) -> dict[str, Any]:
    """Runs a pattern on both corpora; a run whose file exists is read from it."""
    encoder = config.of_pattern(pattern)
    learners: dict[str, Learner] = {}

    def learner(corpus: str) -> Learner:
        if corpus not in learners:  # Late, since all runs may be finished.
            learners[corpus] = Learner(config, encoder)
        return learners[corpus]

    runs: list[dict[str, Any]] = []

    def add(name: str, make: Callable[[], dict[str, Any]]) -> None:
        runs.append(once(folder / f"{encoder.pattern.letters}_{name}.json", make))
        bar.update(1)

    for rate in config.learning_rates:
        for seed in range(config.seed, config.seed + config.num_seeds):
            for number in config.num_facts:
                add(
                    f"{FACTS}_{number}_{rate:g}_{seed}",
                    lambda n=number, r=rate, s=seed: learn_facts(learner(FACTS), n, r, s),
                )
            add(
                f"{COPYING}_{rate:g}_{seed}",
                lambda r=rate, s=seed: learn_copying(learner(COPYING), r, s),
            )
    stored = [
        {"num_facts": number, **_best([r for r in runs if r.get("num_facts") == number], BITS)}
        for number in config.num_facts
    ]
    copied = _best([run for run in runs if run["corpus"] == COPYING], MEAN_ACCURACY)
    return {"pattern": pattern, **sizes(encoder), FACTS: stored, COPYING: copied, "runs": runs}


def _best(runs: list[dict[str, Any]], score: str) -> dict[str, Any]:
    """The runs of the learning rate with the highest mean of a score, as lists by seed."""
    by_rate: dict[float, list[dict[str, Any]]] = {}
    for run in runs:
        by_rate.setdefault(run["learning_rate"], []).append(run)
    best = max(by_rate, key=lambda rate: np.mean([run[score] for run in by_rate[rate]]))
    chosen = sorted(by_rate[best], key=lambda run: run["seed"])
    names = [n for n in ("loss", "accuracy", BITS, MEAN_ACCURACY) if n in chosen[0]]
    result = {
        "learning_rate": best,
        "at_edge": best in (min(by_rate), max(by_rate)),
        "seeds": [run["seed"] for run in chosen],
        **{name: [run[name] for run in chosen] for name in names},
    }
    if "curve" in chosen[0]:
        result["curve"] = [
            {
                "step": points[0]["step"],
                "loss": float(np.mean([point["loss"] for point in points])),
                "accuracy": float(np.mean([point["accuracy"] for point in points])),
            }
            for points in zip(*(run["curve"] for run in chosen), strict=True)
        ]
    return result
