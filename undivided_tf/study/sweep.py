"""The best peak learning rate of each block pattern, found on pilot seeds.

Patterns whose best rates differ can only be compared fairly at their own: one rate for all of
them favours those that it happens to suit. A pattern's partners of equal parameters have their
own rates too, and the best of them is its best shape.
"""

import math
import pathlib
import re
from typing import Any

from absl import logging

from undivided_tf.config import EncoderConfig, differences
from undivided_tf.errors import InputError
from undivided_tf.inputs import Input
from undivided_tf.study import budgets
from undivided_tf.study.config import SweepConfig
from undivided_tf.support import files
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.workdir import open_workdir

SWEEP = "sweep.json"
_DIVERGED = "diverged.json"


# Fields that may change from one call to the next; all others make another sweep.
_FREE = (
    *("workdir", "patterns", "partners", "core_patterns"),
    *("learning_rates", "pilot_seeds", "max_extensions"),
)
# Held-out losses that need no run, by encoder, rate and seed; infinite where a run diverged.
Known = dict[tuple[EncoderConfig, float, int], float]


def run_sweep(config: SweepConfig, kept_results: str = "") -> dict[str, Any]:
    """Pre-trains every encoder at every rate, and at more until the best lies between two others.

    A rate is as good as the mean held-out loss over the pilot seeds; a run that diverges counts
    as infinitely bad. While the best rate of an encoder is its lowest or highest, another one is
    added beyond it, by the ratio of the two outermost. The same call goes on where an interrupted
    one stopped; the weights of finished runs are removed.

    Args:
        config: the sweep; `config.workdir` receives config.json, a directory of each run in
            `runs` and, at the end, sweep.json.
        kept_results: a sweep.json of this sweep, kept without its runs: their losses are taken from
            there. Empty: only runs in the work directory count.

    Returns:
        The content of sweep.json: the `config`, `pilot_seeds`, `records_sha256` (of the file that
        identifies the records; None where there is none), and of each of `patterns` its best
        `learning_rate` (None where all runs diverged), the `loss` there in nats, whether it is
        `interior`, and the `curve`, by rising `learning_rate` the mean `loss` and the `losses` of
        the seeds, None where a run diverged. And `partners`, by pattern and shape the same of
        its partners, with the `encoder`, or the `reason` why there is none.

    Raises:
        InputError: the workdir or `kept_results` holds another sweep, or as `pretrain`.
    """
    known = _known(config, kept_results) if kept_results else {}
    workdir = open_workdir(config.workdir, config, lambda there: _is_part(there, config))
    results = {
        "kind": "sweep",
        "config": config.to_dict(),
        "pilot_seeds": list(config.pilot_seeds),
        "records_sha256": _records_hash(config),
        "patterns": {
            pattern: _sweep(config, config.encoder(pattern), workdir, known)
            for pattern in config.canonical_patterns
        },
        "partners": _partners(config, workdir, known) if config.partners else {},
    }
    files.write_json(workdir / SWEEP, results)
    return results


def _is_part(there: SweepConfig, config: SweepConfig) -> bool:
    """Whether a sweep has the recipe of `config`, so that its runs are runs of `config`."""
    return there.replace(**{name: getattr(config, name) for name in _FREE}) == config


def _known(config: SweepConfig, path: str) -> Known:
    """The losses in a sweep.json of the same recipe and records, which may have been elsewhere."""
    sweep = read(path)
    there = SweepConfig.from_dict(sweep["config"])
    if not _is_part(there.replace(records_dir=config.records_dir), config):
        changed = differences(
            there.pretraining.to_dict(), config.pretraining.to_dict(), "pretraining."
        )
        raise InputError(f"{path} is of another sweep:\n  " + "\n  ".join(changed))
    then, now = sweep.get("records_sha256"), _records_hash(config)
    if then and now and then != now:  # Older sweeps have no hash.
        raise InputError(
            f"{path} was measured on other records (sha256 {then[:12]}) than those of "
            f"{config.records_dir} (sha256 {now[:12]}): its losses do not hold for these; "
            "leave --kept_results out, or give the records of that sweep"
        )
    known = {}
    for arm, swept in arms(sweep).items():
        # Only partners have an encoder of their own in the file.
        partner_encoder = swept.get("encoder")
        encoder = (
            EncoderConfig.from_dict(partner_encoder) if partner_encoder else there.encoder(arm)
        )
        for point in swept["curve"]:
            for seed, loss in zip(sweep["pilot_seeds"], point["losses"], strict=True):
                known[encoder, point["learning_rate"], seed] = math.inf if loss is None else loss
    return known


def _records_hash(config: SweepConfig) -> str | None:
    paths = Input("records", config.records_dir).files().values()
    return next((files.sha256_of_file(path) for path in paths if path.is_file()), None)


def _partners(
    config: SweepConfig, workdir: pathlib.Path, known: Known
) -> dict[str, dict[str, Any]]:
    """The partners of each core pattern except the first and those that need none."""
    from undivided_tf.data.corpus import records  # Late: brings TensorFlow.

    vocabulary = records.read_tokenizer(config.records_dir).vocab_size
    reference, *encoders = map(config.encoder, config.core)
    partners: dict[str, dict[str, Any]] = {}
    for plain in encoders:
        if budgets.is_as_large(plain, reference, vocabulary):
            continue
        shapes = partners[plain.block_pattern] = {}
        for shape in dict.fromkeys(config.partners):
            try:
                encoder = budgets.matched(plain, reference, shape, vocabulary)
            except InputError as error:
                shapes[shape] = {"reason": str(error)}
            else:
                swept = _sweep(config, encoder, workdir, known)
                shapes[shape] = {**swept, "encoder": encoder.to_dict()}
    return partners


def _sweep(
    config: SweepConfig, encoder: EncoderConfig, workdir: pathlib.Path, known: Known
) -> dict[str, Any]:
    """Best rate and curve of an encoder."""

    def measured(rate: float) -> list[float]:
        """Held-out losses at a rate, one a pilot seed; infinite where a run diverged."""
        return [
            known[encoder, rate, seed]
            if (encoder, rate, seed) in known
            else _loss(config.run(encoder, rate, seed), workdir)
            for seed in config.pilot_seeds
        ]

    losses = {rate: measured(rate) for rate in config.learning_rates}
    for extension in range(config.max_extensions + 1):
        rates = sorted(losses)
        means = [_mean(losses[rate]) for rate in rates]
        place = means.index(min(means))  # The lowest of equal ones: where all diverged, the first.
        interior = 0 < place < len(rates) - 1
        if interior or extension == config.max_extensions:
            break
        added = rates[0] ** 2 / rates[1] if place == 0 else rates[-1] ** 2 / rates[-2]
        added = float(f"{added:.6g}")  # Rounding errors would get into names.
        name = encoder.block_pattern
        logging.info("%s: best at %g, the edge; adding %g", name, rates[place], added)
        losses[added] = measured(added)
    learnt = math.isfinite(means[place])
    return {
        "learning_rate": rates[place] if learnt else None,
        "loss": _json(means[place]),
        "interior": interior,
        "curve": [
            {
                "learning_rate": rate,
                "loss": _json(mean),
                "losses": [_json(loss) for loss in losses[rate]],
            }
            for rate, mean in zip(rates, means, strict=True)
        ],
    }


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses)


def _json(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _loss(run: PretrainingConfig, workdir: pathlib.Path) -> float:
    from undivided_tf.training.pretraining import pretrain  # Late: brings TensorFlow.

    pattern = re.sub(r"[^A-Z0-9]+", "-", run.encoder.block_pattern).strip("-")
    place = run.replace(records_dir="").fingerprint()  # The records may be moved.
    home = workdir / "runs" / f"{pattern}_{run.learning_rate:g}_seed{run.seed}_{place}"
    diverged = home / _DIVERGED
    if diverged.exists():
        return math.inf
    try:
        loss = pretrain(run.replace(workdir=str(home)))["validation"]["loss"]
    except FloatingPointError as error:
        logging.warning("%s diverged: %s", home.name, error)
        files.write_json(diverged, {"error": str(error)})
        loss = math.inf
    for checkpoints in list(home.rglob("checkpoints")):
        files.remove(checkpoints)
    return loss


def arms(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a sweep found of each encoder, by `PATTERN` or `PATTERN, SHAPE` of a partner."""
    partners = {
        f"{pattern}, {shape}": partner_sweep
        for pattern, shapes in results.get("partners", {}).items()  # Older sweeps had none.
        for shape, partner_sweep in shapes.items()
        if "curve" in partner_sweep
    }
    return {**results["patterns"], **partners}


def table(results: dict[str, Any]) -> str:
    """The lines that `run_sweep` prints: a row a rate, a column an encoder, the best marked."""
    swept = arms(results)
    losses = {
        arm: {point["learning_rate"]: point["loss"] for point in arm_sweep["curve"]}
        for arm, arm_sweep in swept.items()
    }
    width = max(10, *(len(arm) + 2 for arm in swept))
    lines = ["learning rate" + "".join(arm.rjust(width) for arm in swept)]
    for rate in sorted({rate for curve in losses.values() for rate in curve}):
        cells = []
        for arm, curve in losses.items():
            text = ""
            if rate in curve:
                text = "diverged" if curve[rate] is None else f"{curve[rate]:.3f}"
            cells.append(text + ("*" if rate == swept[arm]["learning_rate"] else " "))
        lines.append(f"{rate:g}".ljust(13) + "".join(cell.rjust(width) for cell in cells))
    seeds = ", ".join(map(str, results["pilot_seeds"]))
    lines.append(
        f"* best mean held-out loss over the pilot seeds {seeds}, which must not be used again in "
        "what the rates are chosen for"
    )
    for arm, arm_sweep in swept.items():
        if arm_sweep["learning_rate"] is None:
            lines.append(f"{arm}: every run diverged; give lower --learning_rates")
        elif not arm_sweep["interior"]:
            lines.append(
                f"{arm}: the best rate {arm_sweep['learning_rate']:g} is at the edge of those "
                "measured, so a better one may lie beyond; raise --max_extensions"
            )
    for pattern, shapes in results.get("partners", {}).items():
        for shape, partner_sweep in shapes.items():
            if "reason" in partner_sweep:
                lines.append(
                    f"{pattern}, {shape}: no such partner, since {partner_sweep['reason']}"
                )
    return "\n".join(lines)


def size_of(results: dict[str, Any]) -> str:
    """HIDDENxHEADS of a sweep, as a study names its sizes."""
    encoder = results["config"]["pretraining"]["encoder"]
    return f"{encoder['hidden_size']}x{encoder['num_attention_heads']}"


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """The content of a sweep.json.

    Raises:
        InputError: no sweep there.
    """
    try:
        results = files.read_json(path)
        _, _, _ = results["patterns"], results["pilot_seeds"], size_of(results)
        _ = results["config"]["pretraining"]["optimizer"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no {SWEEP} of run_sweep: {error!r}") from error
    return results
