"""Peak memory of a pre-training step and its estimate; each point runs in its own process.

    python benchmarks/memory.py

A point is the result of `run_pretraining --dry_run` on made-up records: the peak resident memory
minus the memory that the process held before. The constants of the estimate are in
undivided_tf/training/memory.py. `--points` selects points; the others keep their results in
results/benchmarks/memory.json. To see which arrays of a step XLA keeps, run a point with
XLA_FLAGS="--xla_dump_to=DIR --xla_dump_hlo_as_text": the files in DIR named
*part_gradients*buffer-assignment.txt list at their end the arrays that are live at the peak.
"""

import json
import pathlib
import subprocess
import sys

import common
from absl import app, flags

from undivided_tf.models import presets
from undivided_tf.support import files, process
from undivided_tf.tokenization import SPECIAL_TOKENS
from undivided_tf.training.config import PretrainingConfig

# Preset, block pattern, rows per batch, and other flags.
POINTS = {
    "tiny x 8": ("bert_tiny", "(AI)*2", 8, {}),
    "tiny x 64": ("bert_tiny", "(AI)*2", 64, {}),
    "tiny A x 64": ("bert_tiny", "A*2", 64, {}),
    "mini x 32": ("bert_mini", "(AI)*4", 32, {}),
    "mini half x 32": ("bert_mini", "(AAI)*2", 32, {}),
    "mini x 32 in 4 parts": ("bert_mini", "(AI)*4", 32, {"gradient_accumulation_steps": 4}),
    "mini x 32 no jit": ("bert_mini", "(AI)*4", 32, {"jit_compile": False}),
    "mini Muon x 32": ("bert_mini", "(AI)*4", 32, {"optimizer": "muon"}),
    "small x 16": ("bert_small", "(AI)*4", 16, {}),
    "small A x 16": ("bert_small", "A*4", 16, {}),
    "base x 8": ("bert_base", "(AI)*12", 8, {}),
    "base half x 8": ("bert_base", "(AAI)*6", 8, {}),
    "base A x 8": ("bert_base", "A*12", 8, {}),
    "base Muon x 8": ("bert_base", "(AI)*12", 8, {"optimizer": "muon"}),
    "base x 32": ("bert_base", "(AI)*12", 32, {}),
    "base x 32 recompute": ("bert_base", "(AI)*12", 32, {"recompute": True}),
}
LENGTH, VOCABULARY = 128, 30522

FLAGS = flags.FLAGS
flags.DEFINE_list("points", list(POINTS), "Names of the points to measure.")
flags.DEFINE_string(
    "records_dir", "runs/memory_records", "Made-up records, which are made if absent."
)
flags.DEFINE_string(
    "point", "", "Measure this point in this process and print JSON; used by the script itself."
)
flags.DEFINE_integer("timed_steps", 4, "Steps of a point, without the compiling step.")


def write_records(records_dir):
    """Makes records of made-up text with a vocabulary of the usual size in another process."""
    folder = records_dir.with_name(f"{records_dir.name}_text")
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*SPECIAL_TOKENS, *"abcdefghij0123456789"]
    pieces += [f"q{number}" for number in range(VOCABULARY - len(pieces))]
    files.write_text(folder / "vocab.txt", "\n".join(pieces) + "\n")
    paragraph = "a b c d e f g h i j " * 100
    documents = (" ".join(str(number)) + f" {paragraph}" for number in range(100))
    files.write_text(folder / "text.txt", "\n\n".join(documents) + "\n")
    common.create_records(
        records_dir,
        f"--input_files={folder}/text.txt",
        f"--vocab_file={folder}/vocab.txt",
        f"--max_seq_length={LENGTH}",
        "--num_shards=2",
    )


def measure(name):
    """The result of the dry run of a point."""
    from undivided_tf.training import dry_run

    preset, pattern, rows, other_flags = POINTS[name]
    config = PretrainingConfig(
        encoder=presets.preset(preset).replace(block_pattern=pattern),
        records_dir=FLAGS.records_dir,
        train_batch_size=rows,
        **other_flags,
    )
    result = dry_run.dry_run(config, FLAGS.timed_steps)
    (stage,) = result["stages"]
    return {
        "preset": preset,
        "pattern": pattern,
        "rows": rows,
        "flags": other_flags,
        "estimated_bytes": result["estimated_bytes"],
        "measured_bytes": result.get("measured_bytes"),
        "step_milliseconds": stage.get("step_milliseconds"),
    }


def main(_):
    """Measures the points and writes the results."""
    if FLAGS.point:
        process.set_up()  # As in the binaries.
        print(json.dumps(measure(FLAGS.point)))
        return
    if not (pathlib.Path(FLAGS.records_dir) / "metadata.json").exists():
        write_records(pathlib.Path(FLAGS.records_dir))
    output = common.results_path("memory")
    kept = files.read_json(output)["points"] if output.exists() else {}
    for name in (point.replace("+", ",") for point in FLAGS.points):
        command = [
            sys.executable,
            __file__,
            f"--point={name}",
            f"--records_dir={FLAGS.records_dir}",
            f"--timed_steps={FLAGS.timed_steps}",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        point = json.loads(done.stdout.splitlines()[-1])
        kept[name] = point
        if point["measured_bytes"]:
            point["estimated_over_measured"] = point["estimated_bytes"] / point["measured_bytes"]
        result = {
            **common.header("peak memory of pre-training beyond what the process held before"),
            "length": LENGTH,
            "points": {name: kept[name] for name in POINTS if name in kept},
        }
        files.write_json(output, result)
        print(describe(name, point), flush=True)


def describe(name, point):
    """The results as a line of text."""
    gib = {key: (point[f"{key}_bytes"] or 0) / 2**30 for key in ("estimated", "measured")}
    return (
        f"{name:<22}{gib['measured']:7.2f} GiB measured {gib['estimated']:7.2f} estimated, "
        f"{point.get('estimated_over_measured', 0):.2f} of it; {point['step_milliseconds']} ms"
    )


if __name__ == "__main__":
    app.run(main)
