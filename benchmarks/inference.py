"""Sentences per second of our SavedModel and of its peers, in alternation on the same machine.

    python benchmarks/inference.py --torch_python=compare/bin/python

The task is from raw strings to one vector per text (the mean of the last tap), tokenizer included,
with the same weights. The interpreter needs torch, transformers, onnx and onnxruntime. Writes
results/benchmarks/inference.json; see benchmarks/README.md.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import common
import pretraining
from absl import app, flags

from undivided_tf.models import presets
from undivided_tf.support import files

FLAGS = flags.FLAGS
flags.DEFINE_string("size", "mini", "mini, small or base; tiny is for trying this script.")
flags.DEFINE_list("lengths", ["32", "128", "512"], "Word pieces per text.")
flags.DEFINE_list("batches", ["1", "32"], "Texts per call.")
flags.DEFINE_list(
    "exports",
    ["ours", "one thread", "XLA", "ONNX"],
    "Which of our exports: ours (SavedModel), one thread (ours on one), XLA, bfloat16, ONNX.",
)

VOCABULARY = 30522
_EXPORTS = {  # By name: changes of ExportConfig, and the environment of the server.
    "ours": ({}, {}),
    "one thread": ({}, {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}),
    "XLA": ({"jit_compile": True}, {}),
    "bfloat16": ({"dtype": "bfloat16"}, {}),
    "ONNX": ({"output_format": "onnx"}, {}),
}
_TOKENS_PER_ROUND, _MAX_CALLS = 8192, 40


def patterns(layers: int) -> dict[str, str]:
    """All, every second, and no intermediate block."""
    return {"full": f"(AI)*{layers}", "half": f"(AAI)*{layers // 2}", "none": f"A*{layers}"}


def peers_of(folder: pathlib.Path) -> dict[str, pretraining.Peer]:
    """All available peers, by name."""
    job = {"vocab_size": VOCABULARY}
    peers = {}
    for name in FLAGS.exports:
        changes, environment = _EXPORTS[name]
        script, python = "serve_ours.py", sys.executable
        if "output_format" in changes:
            # Without --torch_python our own interpreter has onnxruntime, which the export needs.
            script, python = "serve_our_onnx.py", FLAGS.torch_python or sys.executable
        peers[name if name == "ours" else f"ours, {name}"] = pretraining.Peer(
            script, folder, {**job, "export": name}, python, environment
        )
    if FLAGS.torch_python:
        for name in ("transformers", "onnxruntime"):
            peers[name] = pretraining.Peer(
                "serve_torch.py", folder, {**job, "engine": name}, FLAGS.torch_python
            )
    return peers


def take_turns(peers: dict[str, pretraining.Peer], length: int, batch: int) -> dict[str, Any]:
    """Times all peers in rounds after two warm-up calls; returns times and rates by name."""
    calls = min(max(_TOKENS_PER_ROUND // (length * batch), 1), _MAX_CALLS)
    shape = {"length": length, "batch": batch}
    timings = {name: {"milliseconds": []} for name in peers}
    for name, peer in peers.items():
        peer.ask("times", **shape, calls=2)
        timings[name]["first_values"] = peer.ask("first", **shape)["values"]
    for _ in range(FLAGS.rounds):
        for name, peer in peers.items():
            times = peer.ask("times", **shape, calls=calls)["milliseconds"]
            timings[name]["milliseconds"].append([round(t, 3) for t in times])
    for values in timings.values():
        rounds = [statistics.median(times) for times in values["milliseconds"]]
        values["median_milliseconds"] = statistics.median(rounds)
        values["sentences_per_second"] = 1000 * batch / values["median_milliseconds"]
    other_peers = [name for name in timings if not name.startswith("ours")]
    result = {**shape, "calls_a_round": calls, "peers": timings}
    if other_peers:
        best = min(other_peers, key=lambda name: timings[name]["median_milliseconds"])
        result["best_other"] = best
        result["over_best_other"] = {
            name: pretraining.ratio(timings[best], values)
            for name, values in timings.items()
            if name.startswith("ours")
        }
    return result


def write_models(folder: pathlib.Path, pattern: str, exports: list[str]) -> None:
    """Writes the weights of one pattern for all peers, and our exports, in another process."""
    job = {
        "preset": f"bert_{FLAGS.size}",
        "pattern": pattern,
        "vocab_size": VOCABULARY,
        "exports": {name: _EXPORTS[name][0] for name in exports},
    }
    done = subprocess.run(
        [sys.executable, str(pretraining.PEERS / "start_serving.py"), str(folder), json.dumps(job)],
        check=False,
        capture_output=True,
        text=True,
        env=common.environment(),
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])


def compare(folder: pathlib.Path, pattern: str) -> dict[str, Any]:
    """Results for all lengths and batch sizes of one pattern."""
    write_models(folder, pattern, FLAGS.exports)
    with pretraining.running(peers_of(folder)) as peers:
        about = {name: peer.ask("about") for name, peer in peers.items()}
        shapes = []
        for length in map(int, FLAGS.lengths):
            for batch in map(int, FLAGS.batches):
                shapes.append(take_turns(peers, length, batch))
                report(pattern, shapes[-1])
    return {"pattern": pattern, "about": about, "shapes": shapes}


def report(pattern: str, result: dict[str, Any]) -> None:
    """Prints the result of one shape as a line of text."""
    rates = "  ".join(
        f"{name} {values['sentences_per_second']:.1f}" for name, values in result["peers"].items()
    )
    ratios = ", ".join(f"{ratio:.2f}" for ratio in result.get("over_best_other", {}).values())
    print(
        f"{pattern:<9}length {result['length']:>3}, batch {result['batch']:>2}: {rates}"
        f" sentences/s; {ratios} times the best other",
        flush=True,
    )


def main(_):
    """Times everything; writes after each pattern, so that a later failure loses no results."""
    output = common.results_path("inference")
    layers = presets.preset(f"bert_{FLAGS.size}").pattern.num_attention
    result = {
        **common.header("sentences per second from raw strings to vectors, peers in turns"),
        "size": FLAGS.size,
        "patterns": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        for name, pattern in patterns(layers).items():
            result["patterns"][name] = compare(pathlib.Path(temporary) / name, pattern)
            result["load_after"] = os.getloadavg()
            files.write_json(output, result)
    print(output)


if __name__ == "__main__":
    app.run(main)
