"""A trained encoder, smaller: blocks are cut within a budget, the rest healed, checked, exported.

WORKDIR/order.json      in which order blocks are cut, and what it was measured by
WORKDIR/costs.json      parameters, FLOPs and latency of each number of cut blocks
WORKDIR/cut             the encoder within the budget
WORKDIR/healed          its healing, where records are given
WORKDIR/quality.json    what the encoders are worth, whole, cut and healed
WORKDIR/export/FORMAT   the result, with its card
"""

import pathlib
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from undivided_tf import accounting
from undivided_tf.analysis.latency import forward_milliseconds
from undivided_tf.convert import converter
from undivided_tf.convert.checkpoint import Checkpoint
from undivided_tf.data.tasks.rows import Rows
from undivided_tf.errors import InputError
from undivided_tf.export import export
from undivided_tf.export.saved_model import VERSION
from undivided_tf.models.encoder import Encoder
from undivided_tf.reporting import model_card
from undivided_tf.study.config import CompressConfig
from undivided_tf.study.study import hardware
from undivided_tf.support import files
from undivided_tf.surgery import cut, healing, run
from undivided_tf.workdir import once, open_workdir

WHOLE, CUT, HEALED = "whole", "cut", "healed"
TOLERANCE = 1e-3  # Between a measure in Keras and through an export.


def run_compress(config: CompressConfig, command: str = "") -> dict[str, Any]:
    """Cuts, heals, measures and exports; the same call goes on where it stopped.

    As many blocks are cut as the budget takes, in the order that does least damage.

    Args:
        config: the compression; `config.workdir` receives all that the module names, and
            results.json.
        command: what was called, for the results.

    Returns:
        The content of results.json: `order` and `damage` (see `surgery.run`), `costs` (of 0, 1, 2
        ... cut blocks the `pattern`, `parameters`, `flops` and `latency` in milliseconds), `chosen`
        (the number of blocks that are cut), `quality` (of each measure what it is in `words`, and
        its damage `whole`, `cut` and, if it was healed, `healed`), and `exports`, by format the
        largest `difference` of a measure to that in Keras. Without `exports`, the result does more
        damage than `config.max_damage`.

    Raises:
        InputError: a checkpoint or a task that cannot be used, a budget that no number of cut
            blocks meets, records of another vocabulary, a workdir of another config, or an export
            that differs from Keras by more than `TOLERANCE`.
    """
    source = converter.open_checkpoint(converter.locate(config.input))
    encoder = converter.build_encoder(source)
    workdir = open_workdir(config.workdir, config)
    found = once(workdir / "order.json", lambda: _order(config, source, encoder))
    blocks = found["order"]["blocks"]
    costs = once(workdir / "costs.json", lambda: _costs(config, encoder, blocks))
    chosen = choose(costs["cuts"], config)
    gone = blocks[:chosen]
    place = workdir / CUT
    if not place.exists():
        result, report = cut(encoder, gone, fold_layer_norms=config.order.fold_layer_norms)
        run.write(place, source, result, {"kind": "surgery", **vars(report)})
    if config.healing.records_dir:
        healing.heal(
            config.healing.replace(
                workdir=str(workdir / HEALED),
                init_checkpoint=str(place),
                teacher_checkpoint=config.input,
            )
        )
        place = workdir / HEALED / "model"
    quality = once(
        workdir / "quality.json",
        lambda: {"measures": _quality(config, {WHOLE: (source, encoder)}, workdir, place)},
    )
    results = {
        "kind": "compress",
        "command": command,
        "created": time.strftime("%Y-%m-%d"),
        "hardware": costs["hardware"],
        "config": config.to_dict(),
        "from": source.config.block_pattern,
        **found,
        "costs": costs["cuts"],
        "chosen": chosen,
        "quality": quality["measures"],
    }
    if not excess(results):
        last = HEALED if config.healing.records_dir else CUT
        results["exports"] = {
            form: _export(config, form, place, workdir, results, last) for form in config.formats
        }
    files.write_json(workdir / "results.json", results)
    return results


def choose(costs: list[dict[str, Any]], config: CompressConfig) -> int:
    """The smallest number of cut blocks that is within the budget.

    Args:
        costs: of 0, 1, 2 ... cut blocks, as in `run_compress`.
        config: its `budget`.

    Raises:
        InputError: no number is; says what the last one reaches.
    """
    what, share = config.cost, config.share
    shares = [cost[what] / costs[0][what] for cost in costs]
    for number, reached in enumerate(shares):
        if reached <= share:
            return number
    raise InputError(
        f"budget {config.budget}: all {len(costs) - 1} intermediate blocks cut leave "
        f"{min(shares):.2f} of the {what}: give a share of at least that"
    )


def excess(results: dict[str, Any]) -> str:
    """Says by how much the result does more damage than it may; empty where it does not."""
    bound = results["config"]["max_damage"]
    first = results["quality"][0]
    rise = first.get(HEALED, first[CUT]) - first[WHOLE]
    if not bound or rise <= bound:
        return ""
    return (
        f"{first['words']}: damage rises by {rise:.4f}, above max_damage {bound:g}, so nothing is "
        "exported: heal longer (--healing.train_pieces), or give a larger budget"
    )


def _order(config: CompressConfig, source: Checkpoint, encoder: Encoder) -> dict[str, Any]:
    order, words = run.importance(config.order, source, encoder)
    return {"order": vars(order), "damage": words}


def _costs(config: CompressConfig, encoder: Encoder, blocks: list[str]) -> dict[str, Any]:
    encoders = {0: encoder} | {
        number: cut(encoder, blocks[:number])[0] for number in range(1, len(blocks) + 1)
    }
    times = forward_milliseconds(
        encoders, batch_size=1, length=config.max_seq_length, rounds=config.latency_rounds
    )
    cuts = [
        {
            "pattern": of.config.block_pattern,
            "parameters": accounting.count_parameters(of.config),
            "flops": accounting.forward_flops(of.config, config.max_seq_length),
            "latency": statistics.median(times[number]),
        }
        for number, of in encoders.items()
    ]
    return {"hardware": hardware(), "cuts": cuts}


def _quality(
    config: CompressConfig,
    known: dict[str, tuple[Checkpoint, Encoder]],
    workdir: pathlib.Path,
    place: pathlib.Path,
) -> list[dict[str, Any]]:
    """The damage of each encoder by each measure."""
    places = {CUT: workdir / CUT} | ({HEALED: place} if place != workdir / CUT else {})
    for name, path in places.items():
        source = converter.open_checkpoint(path)
        known = {**known, name: (source, converter.build_encoder(source))}
    found = []
    for measure in config.measures:
        one: dict[str, Any] = {"measure": measure.importance}
        for name, (source, encoder) in known.items():
            measured, one["words"] = run.measure(measure, source, encoder)
            one[name] = measured([])
        found.append(one)
    return found


# === Exports ===


def _export(
    config: CompressConfig,
    form: str,
    place: pathlib.Path,
    workdir: pathlib.Path,
    results: dict[str, Any],
    last: str,
) -> dict[str, Any]:
    """Exports in a format and checks it; returns the size and the largest difference."""
    output = workdir / "export" / form
    settings = config.export.replace(
        input=str(place), output_format=form, max_seq_length=config.max_seq_length
    )
    if output.exists():
        return files.read_json(output / "checked.json")
    with files.atomic_path(output) as partial:
        report = export(partial, settings)
        if "embed" not in report["signatures"]:
            raise InputError("--signatures must have embed, by which the export is checked")
        source = converter.open_checkpoint(place)
        vectors = _READERS[form](partial, source, config.max_seq_length)
        served = {}
        for measure, one in zip(config.measures, results["quality"], strict=True):
            if measure.importance in run.OF_STATES:
                measured, _ = run.measure(measure, source, states=_states(vectors))
                served[one["words"]] = {"served": measured([]), "keras": one[last]}
        difference = max((abs(of["served"] - of["keras"]) for of in served.values()), default=0.0)
        if difference > TOLERANCE:
            raise InputError(
                f"{form}: measures through the export differ from Keras by up to {difference:.4f}, "
                f"above {TOLERANCE:g}: {served}"
            )
        checked = {"measures": served, "difference": difference, "files": report["files"]}
        files.write_json(partial / "checked.json", checked)
        model_card.write(partial, report, results)
    return checked


def _states(vectors: Callable[[list[str]], np.ndarray]) -> Callable[[Rows], Any]:
    """States as `surgery.damage` takes them, of an encoder from which nothing can be cut."""

    def of_rows(rows: Rows) -> Any:
        found = vectors(list(rows.first))
        return lambda gone: found

    return of_rows


def _batches(texts: list[str], size: int = 64) -> Iterable[list[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def _saved_model(
    directory: pathlib.Path, source: Checkpoint, length: int
) -> Callable[[list[str]], np.ndarray]:
    """Mean-pooled last states of raw strings."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  The operations of the tokenizer.

    embed = tf.saved_model.load(str(directory / VERSION)).signatures["embed"]

    def vectors(texts: list[str]) -> np.ndarray:
        return np.concatenate([embed(text=tf.constant(b))["mean"].numpy() for b in _batches(texts)])

    return vectors


def _onnx(
    directory: pathlib.Path, source: Checkpoint, length: int
) -> Callable[[list[str]], np.ndarray]:
    """Likewise, of texts that the tokenizer of the checkpoint reads."""
    import onnxruntime

    session = onnxruntime.InferenceSession(directory / "embed.onnx")

    def vectors(texts: list[str]) -> np.ndarray:
        found = []
        for batch in _batches(texts):
            inputs = source.tokenizer.encode(batch, max_seq_length=length)
            inputs = {name: np.asarray(value, np.int32) for name, value in inputs.items()}
            found.append(session.run(["mean"], inputs)[0])
        return np.concatenate(found)

    return vectors


_READERS = {"saved_model": _saved_model, "onnx": _onnx}
