"""Which tasks gain from pre-training: an encoder against its untrained twin, seed by seed.

    python benchmarks/responses.py --init_checkpoint=runs/small --tasks=trec:qc.zip,wiki_pair

Fine-tunes both on few training rows, where pre-training helps most, and prints the gain of the
primary metric with its 95 % interval over the seeds (paired t). The same command resumes. Writes
results/benchmarks/responses.json, which keeps the results of other tasks with their commands; see
benchmarks/README.md.
"""

import pathlib
import re
from typing import Any

import common
import numpy as np
from absl import app, flags

from undivided_tf.metrics import inference
from undivided_tf.support import files, process

FLAGS = flags.FLAGS
flags.DEFINE_string("init_checkpoint", "", "Pre-training workdir of the encoder.")
flags.DEFINE_list(
    "tasks",
    ["wiki_topic", "wiki_pair"],
    "Tasks, as run_finetuning takes them; TASK@POOLING for another pooling than mean.",
)
flags.DEFINE_string("workdir", "runs/responses", "Directory of the runs.")
flags.DEFINE_float("learning_rate", 1e-3, "Peak learning rate of both starts.")
flags.DEFINE_integer("max_train_rows", 1000, "Training rows.")
flags.DEFINE_integer("num_train_epochs", 4, "Epochs.")
flags.DEFINE_integer("num_runs", 5, "Seeds, at least two.", lower_bound=2)
flags.DEFINE_integer("seed", 12345, "First seed.")


def scores(task: str, from_scratch: bool) -> dict[str, Any]:
    """Name of the task, its metric, and the score of each seed."""
    from undivided_tf.training import finetuning
    from undivided_tf.training.config import FinetuningConfig

    task, _, pooling = task.partition("@")
    pooling = pooling or "mean"
    start = "scratch" if from_scratch else "pretrained"
    folder = re.sub("[^A-Za-z0-9]+", "_", pathlib.Path(task).name)
    results = finetuning.finetune(
        FinetuningConfig(
            workdir=str(pathlib.Path(FLAGS.workdir) / f"{folder}_{pooling}_{start}"),
            init_checkpoint=FLAGS.init_checkpoint,
            from_scratch=from_scratch,
            task=task,
            max_seq_length=64,
            train_batch_size=16,
            learning_rate=FLAGS.learning_rate,
            num_train_epochs=FLAGS.num_train_epochs,
            pooling=pooling,
            classifier_dropout=0.0,
            max_train_rows=FLAGS.max_train_rows,
            num_runs=FLAGS.num_runs,
            seed=FLAGS.seed,
            save_models=False,
        )
    )
    split, metric = results["split"], results["primary"]
    return {
        "task": results["task"],
        "pooling": pooling,
        "split": split,
        "metric": metric,
        "scores": [run[split][metric] for run in results["runs"]],
    }


def compare(task: str) -> dict[str, Any]:
    """Scores of both starts, and the mean gain with its 95 % interval."""
    trained, untrained = scores(task, from_scratch=False), scores(task, from_scratch=True)
    gains = np.subtract(trained["scores"], untrained["scores"])
    summary = inference.summarize(gains)
    return {
        **trained,
        "untrained_scores": untrained["scores"],
        "gain": summary["mean"],
        "low": summary["low"],
        "high": summary["high"],
    }


def table_row(result: dict[str, Any]) -> str:
    """A row of the table, in points."""
    trained, untrained = np.mean(result["scores"]), np.mean(result["untrained_scores"])
    gain, low, high = (100 * result[name] for name in ("gain", "low", "high"))
    return (
        f"| {result['task']} ({result['metric']}) | {100 * trained:.1f} | {100 * untrained:.1f} "
        f"| {gain:+.1f} ({low:+.1f} to {high:+.1f}) |"
    )


def main(_):
    """Compares task by task; writes after each, so that a later failure loses no results."""
    process.set_up()
    output = common.results_path("responses")
    header = common.header("gain of pre-training by task, after fine-tuning on few rows")
    kept = files.read_json(output)["tasks"] if output.exists() else []
    results = {(result["task"], result["pooling"]): result for result in kept}
    print("| task | pre-trained | random weights | gain |\n|---|---|---|---|")
    for task in FLAGS.tasks:
        result = {**compare(task), "command": header["command"]}
        results[result["task"], result["pooling"]] = result
        files.write_json(output, {**header, "tasks": list(results.values())})
        print(table_row(result), flush=True)


if __name__ == "__main__":
    app.run(main)
