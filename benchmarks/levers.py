"""Options that make our pre-training step faster or slower, each changed alone.

    python benchmarks/levers.py --size=mini

All variants are timed in alternation. Writes results/benchmarks/levers_SIZE.json: the time of a
step with each option, relative to the default.
"""

import os
import pathlib
import tempfile

import common
import pretraining
from absl import app, flags

from undivided_tf.support import files

FLAGS = flags.FLAGS
flags.DEFINE_string("size", "mini", "mini, small or base; tiny is for trying this script.")
flags.DEFINE_list("levers", [], "Names of the options to time; empty: all.")

_DEFAULT = "default"
_LEVERS = {  # By name: the job of peers/ours.py, and its environment.
    _DEFAULT: ({}, {}),
    "Keras's dropout": ({"without": ["hashed_dropout"]}, {}),
    "all positions in the last blocks": ({"without": ["masked_positions_only"]}, {}),
    "both of these": ({"without": ["hashed_dropout", "masked_positions_only"]}, {}),
    "activations kept for the gradient": ({"without": ["recomputed_activation"]}, {}),
    "update of the weights compiled by XLA": ({"without": ["update_without_xla"]}, {}),
    "Muon": ({"run": {"optimizer": "muon"}}, {}),
    "Muon with its update compiled by XLA": (
        {"run": {"optimizer": "muon"}, "without": ["update_without_xla"]},
        {},
    ),
    "no dropout": (
        {"encoder": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}},
        {},
    ),
    "graph mode": ({"run": {"jit_compile": False}}, {}),
    "graph mode with XLA for what is fusible": (
        {"run": {"jit_compile": False}},
        {
            "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit "
            "--tf_xla_ops_to_cluster=FUSIBLE"
        },
    ),
    "kernels that need not be deterministic": ({"run": {"deterministic": False}}, {}),
    "bfloat16": ({"run": {"dtype": "bfloat16"}}, {}),
    "bfloat16 in graph mode": ({"run": {"dtype": "bfloat16", "jit_compile": False}}, {}),
    "GELU by tanh": ({"encoder": {"hidden_activation": "gelu_tanh"}}, {}),
    "vectors of 512 bits": ({}, {"XLA_FLAGS": "--xla_cpu_prefer_vector_width=512"}),
    "XLA's fast math": ({}, {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}),
    "products by oneDNN in XLA": (
        {},
        {"XLA_FLAGS": "--xla_cpu_use_onednn=true --xla_cpu_experimental_onednn_custom_call=true"},
    ),
    "freed memory given back": ({}, {"GLIBC_TUNABLES": ""}),
}


def main(_):
    """Times a few variants at a time with the default, since each needs its own memory."""
    others = [name for name in FLAGS.levers or _LEVERS if name != _DEFAULT]
    header = common.header("milliseconds of our pre-training step with one thing changed, in turns")
    result = {**header, "levers": {}}
    output = common.results_path(f"levers_{FLAGS.size}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pretraining.start(pathlib.Path(temporary), FLAGS.size)
        for first in range(0, len(others), 4):
            names = [_DEFAULT, *others[first : first + 4]]
            peers = {
                name: pretraining.Peer("ours.py", folder, job, environment=environment)
                for name, (job, environment) in _LEVERS.items()
                if name in names
            }
            with pretraining.running(peers):
                times = pretraining.take_turns(peers, pretraining.SIZES[FLAGS.size]["steps"])
            for name in names[1:]:
                ratio = pretraining.ratio(times[name], times[_DEFAULT])
                result["levers"][name] = {"time_over_default": ratio, **times[name]}
                print(f"{name:<40}takes {ratio:.3f} times the default")
    result["load_after"] = os.getloadavg()
    files.write_json(output, result)


if __name__ == "__main__":
    app.run(main)
