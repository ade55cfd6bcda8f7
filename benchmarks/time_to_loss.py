"""Wall time and word pieces until a held-out loss: ours, `transformers` and KerasHub.

    python benchmarks/time_to_loss.py --torch_python=compare/bin/python

All train an encoder of the pattern (AI)*6, hidden size 128, on the same rows of the embedded
sample, with 16 rows of 64 word pieces per step and 30 % masked, one after another, each on one
core. The time includes compilation, but not the evaluation of the held-out rows, whose masks are
the same for all. Ours uses the recipe of flags/pretraining/small.flags. The others use `Trainer`
and `fit` with their default settings, and again with a higher learning rate. Writes
results/benchmarks/time_to_loss.json; see benchmarks/README.md.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import common
import numpy as np
from absl import app, flags

from undivided_tf.support import files

FLAGS = flags.FLAGS
flags.DEFINE_string("torch_python", "", "Interpreter with torch and transformers; empty: none.")
flags.DEFINE_float("budget_seconds", 900, "Seconds of training for each peer.")
flags.DEFINE_integer("steps", 3000, "Optimizer steps of the schedules.")
flags.DEFINE_integer("eval_every_steps", 25, "Steps between evaluations.")
flags.DEFINE_float("tuned_rate", 1e-3, "Tuned learning rate of the others.")
flags.DEFINE_integer("core", 0, "Core on which all peers run.")
flags.DEFINE_string("records_dir", "", "Records of the sample; empty: made first.")

PEERS = pathlib.Path(__file__).parent / "peers"
RECIPE = common.ROOT / "flags" / "pretraining" / "small.flags"
LOSSES = (5.5, 5.0, 4.5)  # Nats; the neighbour model's is added.


def make_inputs(folder: pathlib.Path) -> pathlib.Path:
    """Writes training rows, held-out batch and vocabulary; returns the folder of the records."""
    from undivided_tf.data import masking, streams
    from undivided_tf.data.corpus import records
    from undivided_tf.data.corpus.config import RecordsConfig

    records_dir = pathlib.Path(FLAGS.records_dir or folder / "records")
    records.create_records(
        RecordsConfig(output_dir=str(records_dir), vocab_size=4000, max_seq_length=64)
    )
    tokenizer = records.read_tokenizer(records_dir)
    metadata = records.read_metadata(records_dir)
    rows = streams.training_rows(records_dir, seed=0).take(metadata["train"]["rows"])
    np.save(folder / "rows.npy", np.stack([row["token_ids"] for row in rows.as_numpy_iterator()]))
    (batch,) = masking.validation_batches(
        records_dir, tokenizer, batch_size=1024, max_rows=1024, masked_lm_prob=0.3
    ).as_numpy_iterator()
    np.savez(folder / "held_out.npz", **batch)
    vocabulary = {"vocab_size": tokenizer.vocab_size, "mask_id": tokenizer.mask_id}
    files.write_json(folder / "vocabulary.json", vocabulary)
    (folder / "vocab.txt").write_bytes((records_dir / "vocab.txt").read_bytes())
    return records_dir


def learn(script: str, folder: pathlib.Path, job: dict[str, Any], python: str):
    """Runs a peer to its end and returns the points of its curve."""
    job = {
        "budget_seconds": FLAGS.budget_seconds,
        "steps": FLAGS.steps,
        "eval_every_steps": FLAGS.eval_every_steps,
        **job,
    }
    command = [python, str(PEERS / script), str(folder), json.dumps(job)]
    done = subprocess.run(
        ["taskset", "-c", str(FLAGS.core), *command],
        capture_output=True,
        text=True,
        check=False,
        env=common.environment(),
    )
    if done.returncode:
        raise RuntimeError(f"{script} ended:\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"step"')]


def reached(curve: list[dict[str, float]], loss: float) -> dict[str, float] | None:
    """The first point at or below a loss; None if there is none."""
    return next((point for point in curve if point["loss"] <= loss), None)


def main(_):
    """Trains one after another; writes after each, so that a later failure loses no results."""
    output = common.results_path("time_to_loss")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        records_dir = make_inputs(folder)
        jobs = {
            "ours": ("learn_ours.py", {"records_dir": str(records_dir), "recipe": str(RECIPE)}),
            "KerasHub": ("learn_keras_hub.py", {}),
            "KerasHub, tuned rate": ("learn_keras_hub.py", {"learning_rate": FLAGS.tuned_rate}),
        }
        if FLAGS.torch_python:
            jobs |= {
                "transformers": ("learn_torch.py", {}),
                "transformers, tuned rate": ("learn_torch.py", {"learning_rate": FLAGS.tuned_rate}),
            }
        result: dict[str, Any] = {
            **common.header("seconds and word pieces until a held-out loss, one core each in turn"),
            "budget_seconds": FLAGS.budget_seconds,
            "curves": {},
        }
        for name, (script, job) in jobs.items():
            python = FLAGS.torch_python if script == "learn_torch.py" else sys.executable
            curve = learn(script, folder, job, python)
            if name == "ours":
                result["neighbour_model_loss"] = curve[0]["neighbour_model_loss"]
            result["curves"][name] = curve
            files.write_json(output, result)
            lines = [*LOSSES, result["neighbour_model_loss"]]
            print(f"{name:<26}", *(_cell(reached(curve, loss), loss) for loss in lines))
        other_seconds = [
            point["seconds"]
            for name, curve in result["curves"].items()
            if name != "ours" and (point := reached(curve, 5.0))
        ]
        ours = reached(result["curves"]["ours"], 5.0)
        if ours:
            best_other = min(other_seconds, default=FLAGS.budget_seconds)
            result["over_best_other_to_5"] = best_other / ours["seconds"]
            result["others_reached_5"] = bool(other_seconds)
        result["load_after"] = os.getloadavg()
        files.write_json(output, result)
    print(output)


def _cell(point: dict[str, float] | None, loss: float) -> str:
    if point is None:
        return f"{loss:.2f}: never"
    return f"{loss:.2f}: {point['seconds']:.0f} s, {point['pieces'] / 1e6:.2f} M pieces"


if __name__ == "__main__":
    app.run(main)
