"""Our pre-training step, built as `run_pretraining` builds it by default."""

# ruff: noqa: E402
from undivided_tf.support import process

process.set_up()  # As the binaries, before TensorFlow.

import keras
import protocol
import tensorflow as tf

from undivided_tf.config import EncoderConfig
from undivided_tf.data import masking
from undivided_tf.data.corpus import records
from undivided_tf.layers import attention_block, embeddings, intermediate_block
from undivided_tf.layers.positions import at_positions
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.weights import load_weights
from undivided_tf.training import optimizers, precision, schedules, strategies
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.training.steps import POLICIES, Steps


def disable(levers: list[str]) -> None:
    """Replaces what makes the step faster by what was there before."""
    if "hashed_dropout" in levers:
        for module in (attention_block, embeddings, intermediate_block):
            module.Dropout = keras.layers.Dropout
    if "masked_positions_only" in levers:
        call = Encoder.call

        def call_at_all(self, inputs, training=None, return_taps=False, positions=None):
            outputs = call(self, inputs, training=training)
            return {
                **outputs,
                "sequence_output": at_positions(outputs["sequence_output"], positions),
            }

        Encoder.call = call_at_all
    if "recomputed_activation" in levers:
        intermediate_block.recomputed = lambda part, dropouts, *inputs: part(*inputs)
    if "update_without_xla" in levers:
        Steps._update = tf.function(Steps._update, autograph=False, jit_compile=True)


def main() -> None:
    """Builds the model, then serves."""
    job, batch, folder = protocol.read_job()
    disable(job.get("without", []))
    config = EncoderConfig.from_json(folder / "ours" / "encoder.json")
    config = config.replace(**job.get("encoder", {}))
    run, _ = precision.resolve(PretrainingConfig(encoder=config, **job.get("run", {})))
    strategies.make_repeatable(run.seed, run.deterministic)
    strategy = strategies.get(run.strategy)
    with strategy.scope():
        model = Pretrainer(Encoder(config, seed=0, dtype=POLICIES[run.dtype]))
        if "block_pattern" not in job.get("encoder", {}):
            load_weights(model.trainable_variables, folder / "ours")
        beta_1, beta_2 = protocol.BETAS
        optimizer = optimizers.OPTIMIZERS[run.optimizer](
            model.trainable_variables,
            learning_rate=schedules.WarmupDecay(protocol.LEARNING_RATE, 0, 10**6),
            weight_decay_rate=protocol.WEIGHT_DECAY,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=protocol.EPSILON,
        )
    steps = Steps(
        strategy, model, optimizer, jit_compile=run.jit_compile, max_gradient_norm=protocol.CLIP
    )
    constant = {name: tf.constant(value) for name, value in batch.items()}
    go_on, stream = tf.constant(0.0), None

    def train(given=constant):
        sums = steps.train(given, go_on)
        return float(sums["loss"]) / float(sums["weight"])

    def loss():
        sums, _ = steps.evaluate(constant)
        return {"loss": float(sums["loss"]) / float(sums["weight"])}

    def real_input(steps, records_dir):
        """Times steps on batches of the input pipeline, the waiting for them included."""
        nonlocal stream
        if stream is None:
            rows, predictions = batch["masked_positions"].shape
            batches = masking.pretraining_batches(
                records_dir,
                records.read_tokenizer(records_dir),
                batch_size=rows,
                seed=0,
                max_predictions=predictions,
            )
            stream = iter(batches)
        return {"milliseconds": protocol.milliseconds(steps, lambda: train(next(stream)))}

    def products(dtype, jit_compile):
        def make(m, k, n):
            left, right = (tf.cast(tf.random.normal(s), dtype) for s in ((m, k), (k, n)))
            multiply = tf.function(tf.matmul, jit_compile=jit_compile)
            return lambda: multiply(left, right)

        return {"gigaflops": protocol.gigaflops(make)}

    protocol.serve(
        {
            "about": lambda: {
                "tensorflow": tf.__version__,
                "dtype": run.dtype,
                "jit_compile": run.jit_compile,
                "deterministic": run.deterministic,
            },
            "loss": loss,
            "train": lambda steps: {"milliseconds": protocol.milliseconds(steps, train)},
            "real_input": real_input,
            "products": products,
        }
    )


if __name__ == "__main__":
    main()
