"""Held-out loss after the same short pre-training in float32, bfloat16 and float16.

    python benchmarks/precision.py --flagfile=flags/study_quick.flags --patterns='(AI)*3'

The recipe is that of the study of the given flags, with its first pattern. `--steps` is short, but
long enough to leave the plateau on which a model knows only the frequencies of word pieces: on it
all precisions agree, even if one is computed wrongly. XLA on a CPU computes half precision in
float32 and omits most of the rounding, so the step also runs without XLA. Interrupted runs resume.
Writes results/benchmarks/precision.json.
"""

import itertools
import pathlib

import common
from absl import flags

from undivided_tf.bin import config_flags, run_study

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 500, "Optimizer steps of each run.")
flags.DEFINE_string("runs_dir", "runs/precision", "Directory for the records and the runs.")


def main():
    """Trains once in each precision and writes the held-out losses."""
    from undivided_tf.data.corpus import records
    from undivided_tf.support import files
    from undivided_tf.training.config import DTYPES
    from undivided_tf.training.pretraining import pretrain

    study, runs = run_study.parse(), pathlib.Path(FLAGS.runs_dir)
    records.create_records(study.records.replace(output_dir=str(runs / "records")))
    recipe = study.pretraining.replace(
        encoder=study.encoder(study.patterns[0]),
        records_dir=str(runs / "records"),
        num_train_steps=FLAGS.steps,
        num_warmup_steps=FLAGS.steps // 10,
        eval_every_steps=FLAGS.steps,
        save_checkpoints_steps=FLAGS.steps,
    )
    scores = {}
    for jit_compile, dtype in itertools.product((False, True), DTYPES):
        name = f"{dtype} {'XLA' if jit_compile else 'graph'}"
        workdir = runs / name.replace(" ", "_")
        results = pretrain(
            recipe.replace(dtype=dtype, jit_compile=jit_compile, workdir=str(workdir))
        )
        scores[name] = {**results["validation"], "skipped_steps": results["skipped_steps"]}
        reference = scores[name.replace(dtype, "float32")]["loss"]
        scores[name]["loss_over_float32"] = scores[name]["loss"] / reference
    path = common.results_path("precision")
    result = {
        **common.header("held-out loss after the same pre-training in three precisions"),
        "pattern": recipe.encoder.block_pattern,
        "steps": FLAGS.steps,
        "unigram_cross_entropy": results["validation_unigram_cross_entropy"],
        "precisions": scores,
        "config": recipe.replace(records_dir="", workdir="").to_dict(),
    }
    files.write_json(path, result)
    print(f"unigram cross-entropy: {result['unigram_cross_entropy']:.3f} nats")
    for name, values in scores.items():
        print(
            f"{name:<15}{values['loss']:8.4f} nats held out, {values['loss_over_float32']:.4f} of "
            "float32"
        )
    print(path)


if __name__ == "__main__":
    config_flags.run(main)
