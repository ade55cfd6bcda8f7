"""Time of a fine-tuning epoch with and without length bucketing, on real rows.

    python benchmarks/bucketing.py --task=glue_data/SST-2 --init_checkpoint=runs/minilm

Both variants are compiled first and then timed in alternation. Writes
results/benchmarks/bucketing.json.
"""

import itertools
import statistics
import time

import common
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("task", "wiki_topic", "Task, as run_finetuning takes it.")
flags.DEFINE_string("init_checkpoint", None, "Encoder to train.", required=True)
flags.DEFINE_integer("rows", 512, "Training rows.")
flags.DEFINE_integer("max_seq_length", 128, "Word pieces per example.")
flags.DEFINE_integer("pad_to_multiple_of", 32, "Multiple with bucketing.")
flags.DEFINE_integer("train_batch_size", 32, "Rows per batch.")
flags.DEFINE_integer("repeats", 3, "Timed epochs of each variant.")


def main(_):
    """Times epochs and writes the results."""
    import keras
    import numpy as np

    from undivided_tf.data import batches
    from undivided_tf.data.tasks.tasks import load_task
    from undivided_tf.models import checkpoints
    from undivided_tf.models.classifier import Classifier
    from undivided_tf.support import files
    from undivided_tf.training import optimizers, schedules

    task = load_task(FLAGS.task)
    encoder, tokenizer = checkpoints.load_encoder(FLAGS.init_checkpoint)
    classifier = Classifier(encoder, task.labels, "mean", seed=0)
    optimizer = optimizers.adamw(
        classifier.trainable_variables,
        learning_rate=schedules.WarmupDecay(2e-5, 0, 10_000),
        weight_decay_rate=0.01,
        max_gradient_norm=1.0,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(optimizer, loss)
    rows = task.read("train").take(FLAGS.rows, 0)
    encoded = batches.encode(rows, tokenizer, FLAGS.max_seq_length)

    def epoch(multiple):
        """Seconds and positions (padding included) of an epoch; always the same batches."""
        dataset = batches.training_batches(
            encoded,
            batch_size=FLAGS.train_batch_size,
            epochs=1,
            seed=0,
            pad_to_multiple_of=multiple,
        ).cache()
        positions = sum(int(np.prod(inputs["token_ids"].shape)) for inputs, _ in dataset)
        started = time.perf_counter()
        classifier.fit(dataset, shuffle=False, verbose=0)
        return time.perf_counter() - started, positions

    multiples = {"max_seq_length": 0, "bucketing": FLAGS.pad_to_multiple_of}
    for multiple in multiples.values():
        epoch(multiple)
    seconds, positions = {name: [] for name in multiples}, {}
    for _, name in itertools.product(range(FLAGS.repeats), multiples):
        taken, positions[name] = epoch(multiples[name])
        seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        **common.header("seconds of a fine-tuning epoch, padded to max_seq_length or bucketed"),
        "flags": common.flag_values(),
        "task": task.name,
        "rows": len(rows),
        "tokens": int(encoded.lengths.sum()),
        "positions": positions,
        "seconds": seconds,
        "speedup_of_medians": medians["max_seq_length"] / medians["bucketing"],
    }
    path = common.results_path("bucketing")
    files.write_json(path, result)
    for name in multiples:
        share = result["tokens"] / positions[name]
        print(
            f"{name:<16}{medians[name]:8.2f} s per epoch, {share:.0%} of the positions are tokens"
        )
    print(f"bucketing is {result['speedup_of_medians']:.2f} times as fast; {path}")


if __name__ == "__main__":
    app.run(main)
