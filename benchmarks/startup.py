"""Seconds from a command to the first pre-training step, by part.

    python benchmarks/startup.py

Each measurement has a new process, which imports, builds the model, traces the step, compiles and
runs it. Compiled programs are not kept, or kept in a directory that is empty or filled. Writes
results/benchmarks/startup.json: the medians of --start_rounds.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import common
from absl import app, flags

from undivided_tf.support import files, process

FLAGS = flags.FLAGS
flags.DEFINE_list("block_patterns", ["(AI)*6", "(AI)*12", "A*12"], "Patterns to start.")
flags.DEFINE_list("optimizers", ["adamw", "muon"], "Optimizers.")
flags.DEFINE_list(
    "updates", ["TensorFlow", "XLA"], "Whose kernels update the weights; TensorFlow by default."
)
flags.DEFINE_integer("start_rounds", 3, "Processes of each kind.")

_PARTS = ("imports", "building", "tracing", "compiling and first step", "second step")
# Runs in a process of its own, whose start is its first argument.
_CHILD = """
import json, os, sys, time
times = [float(sys.argv.pop(1))]
from undivided_tf.support import process
process.set_up()
import tensorflow as tf
from undivided_tf.bin import run_pretraining
from undivided_tf.training import pretraining, steps
from absl import flags
if os.environ["UPDATE_BY"] == "XLA":
    compiled = tf.function(steps.Steps._update, autograph=False, jit_compile=True)
    steps.Steps._update = compiled
times.append(time.time())
flags.FLAGS(sys.argv)
trainer = pretraining.Trainer(run_pretraining.parse())
batches = iter(trainer.batches(0))
batch = next(batches)
times.append(time.time())
trainer.steps.train.get_concrete_function(batch, tf.constant(0.0))
times.append(time.time())
trainer.step(batch)
times.append(time.time())
trainer.step(next(batches))
times.append(time.time())
print(json.dumps([after - before for before, after in zip(times, times[1:])]))
"""


def start(records: str, kind: dict[str, str], cache: str = "") -> dict[str, float]:
    """Seconds of each part in a new process."""
    arguments = [
        "--flagfile=flags/pretraining/small.flags",
        f"--records_dir={records}",
        "--workdir=unused",
        f"--block_pattern={kind['pattern']}",
        f"--optimizer={kind['optimizer']}",
    ]
    environment = {**os.environ, process.CACHE: cache, "UPDATE_BY": kind["update"]}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, repr(time.time()), *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=common.ROOT,
        env=environment,
    )
    return dict(zip(_PARTS, json.loads(done.stdout.splitlines()[-1]), strict=True))


def main(_):
    """Times all kinds of start; writes and prints each result at once."""
    output = common.results_path("startup")
    result = {
        **common.header("seconds from a command to the first pre-training step, by part"),
        "cores_used": len(os.sched_getaffinity(0)),
        "starts": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        records = f"{folder}/records"
        common.create_records(records, "--vocab_size=4000", "--max_seq_length=64")
        kinds = itertools.product(FLAGS.block_patterns, FLAGS.optimizers, FLAGS.updates)
        for number, values in enumerate(kinds):
            kind = dict(zip(("pattern", "optimizer", "update"), values, strict=True))
            for caching in ("none", "empty", "filled"):
                cache = f"{folder}/{number}" if caching != "none" else ""
                # A cache is empty once.
                rounds = 1 if caching == "empty" else FLAGS.start_rounds
                starts = [start(records, kind, cache) for _ in range(rounds)]
                seconds = {p: statistics.median(taken[p] for taken in starts) for p in _PARTS}
                total = sum(seconds.values()) - seconds[_PARTS[-1]]
                result["starts"].append(
                    {**kind, "cache": caching, "seconds": seconds, "to_first_step": total}
                )
                files.write_json(output, result)
                parts = ", ".join(f"{part} {seconds[part]:.1f}" for part in _PARTS[:-1])
                name = f"{kind['pattern']:<8} {kind['optimizer']:<6} {kind['update']:<11}"
                print(f"{name} cache {caching:<7} {total:5.1f} s: {parts}", flush=True)


if __name__ == "__main__":
    app.run(main)
