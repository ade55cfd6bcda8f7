"""Recipes of small encoders: does a recipe leave the plateau, and at which loss does it end?

    python benchmarks/recipes.py --workdir=runs/recipes

Runs `run_pretraining` once for each recipe, pattern and seed, one after another, and prints the
held-out losses as a table. Writes results/benchmarks/recipes.json with the command and the losses
of every run. Runs in that file are kept and not repeated, so the same command resumes, on another
machine too.
"""

import pathlib
import re
import shlex
import statistics
import subprocess
import sys
from typing import Any

import common
from absl import app, flags

from undivided_tf.support import files

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/recipes", "Directory of the records and runs.")
flags.DEFINE_multi_string("recipes", [], "Names of recipes to run; may be repeated; none: all.")
flags.DEFINE_integer("num_train_steps", 1000, "Steps of a run; a tenth of them is warm-up.")
flags.DEFINE_list("seeds", ["12345"], "Seeds; the table shows the mean, and the range of several.")

_RECORDS = "--input_files=sample --vocab_size=4000 --max_seq_length=64"
_SHARED = (
    "--hidden_size=128 --num_attention_heads=2 --intermediate_size=512 --norm_first "
    "--max_position_embeddings=64 "
    "--hidden_dropout_prob=0 --attention_probs_dropout_prob=0 --masked_lm_prob=0.3 "
    "--train_batch_size=16 --adam_beta_2=0.98 --max_eval_rows=1024 --keep_checkpoints=1"
)
_ROTARY = "--position_type=rotary --rotary_base=100 --query_key_norm"
_UNIGRAM = "--output_bias_initializer=unigram"
_MUON = f"{_ROTARY} {_UNIGRAM} --optimizer=muon"
_BOTH = {"(AI)*6": "5e-3", "A*6": "7e-3"}
_RECIPES = {  # By name: flags in addition to the shared ones, and the peak rate by pattern.
    "neighbours, AdamW": (
        f"--position_initializer=neighbours {_UNIGRAM}",
        {"(AI)*6": "2e-3"},
    ),
    "neighbours with four heads, AdamW": (
        f"--position_initializer=neighbours {_UNIGRAM} --num_attention_heads=4",
        {"(AI)*6": "3e-3"},
    ),
    "rotary, Muon, trapezoid": (
        f"{_MUON} --learning_rate_schedule=trapezoid",
        {"(AI)*6": "4e-3"},
    ),
    # One change each.
    "rotary, Muon": (_MUON, _BOTH),
    "AdamW": (f"{_ROTARY} {_UNIGRAM}", {"(AI)*6": "2e-3", "A*6": "3e-3"}),
    "no unigram bias": (f"{_ROTARY} --optimizer=muon", _BOTH),
    "no query-key norm": (
        f"--position_type=rotary --rotary_base=100 {_UNIGRAM} --optimizer=muon",
        _BOTH,
    ),
    **{
        change: (f"{_MUON} {change}", _BOTH)
        for change in (
            "--rotary_base=10000",
            "--rotary_base=30",
            "--num_attention_heads=1",
            "--num_attention_heads=4",
            "--adam_beta_2=0.95",
            "--adam_beta_2=0.999",
            "--weight_decay_rate=0",
            "--weight_decay_rate=0.1",
            "--muon_momentum=0.9",
            "--adam_learning_rate_ratio=0.4",
            "--ema_momentum=0.98",
            "--zero_residual_outputs",
            "--initializer_range=0.05",
            "--initial_masked_lm_prob=0.15",
            "--initial_masked_lm_prob=0.5",
            "--learning_rate_schedule=cosine",
        )
    },
}
# The same word pieces in other numbers of steps: the factor of the steps, and the rates.
_BATCHES = {
    "--train_batch_size=8": (2, {"(AI)*6": "3.5e-3", "A*6": "5e-3"}),
    "--train_batch_size=32": (0.5, {"(AI)*6": "7e-3", "A*6": "1e-2"}),
}
_RECIPES |= {change: (f"{_MUON} {change}", rates) for change, (_, rates) in _BATCHES.items()}


def pretrain(name: str, pattern: str, seed: str, kept: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Runs or resumes one pre-training; returns its command and losses, or those of `kept`."""
    recipe_flags, rates = _RECIPES[name]
    steps = round(FLAGS.num_train_steps * _BATCHES.get(name, (1, None))[0])
    folder = re.sub("[^A-Za-z0-9]+", "_", f"{name} {pattern} {steps} {seed}")
    workdir = pathlib.Path(FLAGS.workdir) / folder
    command = [
        sys.executable,
        "-m",
        "undivided_tf.bin.run_pretraining",
        f"--workdir={workdir}",
        f"--records_dir={_records_dir()}",
        f"--block_pattern={pattern}",
        *shlex.split(_SHARED),
        *shlex.split(recipe_flags),
        f"--learning_rate={rates[pattern]}",
        f"--seed={seed}",
        f"--num_train_steps={steps}",
        f"--num_warmup_steps={steps // 10}",
        f"--eval_every_steps={steps}",
        f"--save_checkpoints_steps={steps}",
    ]
    shown = shlex.join(["python", *command[1:]])
    if shown in kept:
        return kept[shown]
    if not (workdir / "results.json").exists():
        subprocess.run(command, check=True)
    results = files.read_json(workdir / "results.json")
    return {
        "recipe": name,
        "pattern": pattern,
        "seed": int(seed),
        "command": shown,
        "validation": results["validation"],
        "validation_history": results["validation_history"],
    }


def _records_dir() -> pathlib.Path:
    return pathlib.Path(FLAGS.workdir) / "records"


def _table_row(runs: list[dict[str, Any]]) -> str:
    """A row of the table, from the runs of one recipe and pattern that differ in their seed."""
    losses = [run["validation"]["loss"] for run in runs]
    spread = f" ({min(losses):.3f} to {max(losses):.3f})" if len(losses) > 1 else ""
    recipe, pattern = runs[0]["recipe"], runs[0]["pattern"]
    rate = _RECIPES[recipe][1][pattern]
    return f"| {recipe} | `{pattern}` | {rate} | {statistics.mean(losses):.3f}{spread} |"


def main(_):
    """Makes the records, runs missing recipes, writes after each, and prints the table."""
    common.create_records(_records_dir(), *shlex.split(_RECORDS))
    result = common.header("held-out loss of small encoders by recipe, in nats a masked word piece")
    lines = []
    output = common.results_path("recipes")
    runs = files.read_json(output)["runs"] if output.exists() else []
    kept = {run["command"]: run for run in runs}
    for name in FLAGS.recipes or _RECIPES:
        for pattern in _RECIPES[name][1]:
            runs = [pretrain(name, pattern, seed, kept) for seed in FLAGS.seeds]
            kept |= {run["command"]: run for run in runs}
            result["runs"] = list(kept.values())
            lines.append(_table_row(runs))
            files.write_json(output, result)
    print(
        "\n".join(("| recipe | pattern | peak rate | held-out loss |", "|---|---|---|---|", *lines))
    )


if __name__ == "__main__":
    app.run(main)
