"""The best peak learning rate of each block pattern, found on pilot seeds.

Patterns whose best rates differ can only be compared fairly at their own: one rate for all of
them favours those that it happens to suit. A pattern's partners of equal parameters have their
own rates too, and the best of them is its best shape.
"""

import functools
import math
import pathlib
import re
from typing import Any

from absl import logging

from undivided_tf.config import EncoderConfig, differences
from undivided_tf.errors import InputError
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Figure, Section, Table, Value, code, number
from undivided_tf.study import budgets
from undivided_tf.study.config import PARTNERS, StudyConfig, SweepConfig
from undivided_tf.study.results import StudyResults
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
        The content of sweep.json: the `config`, `pilot_seeds`, and of each of `patterns` its best
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
    """The losses in a sweep.json of the same recipe.

    Its records may have had another place. sweep.json does not hold their hash, so the caller
    must know that they are the same.
    """
    found = _read(path)
    there = SweepConfig.from_dict(found["config"])
    if not _is_part(there.replace(records_dir=config.records_dir), config):
        changed = differences(
            there.pretraining.to_dict(), config.pretraining.to_dict(), "pretraining."
        )
        raise InputError(f"{path} is of another sweep:\n  " + "\n  ".join(changed))
    known = {}
    for arm, swept in arms(found).items():
        # Only partners have an encoder of their own in the file.
        own = swept.get("encoder")
        encoder = EncoderConfig.from_dict(own) if own else there.encoder(arm)
        for point in swept["curve"]:
            for seed, loss in zip(found["pilot_seeds"], point["losses"], strict=True):
                known[encoder, point["learning_rate"], seed] = math.inf if loss is None else loss
    return known


def _partners(
    config: SweepConfig, workdir: pathlib.Path, known: Known
) -> dict[str, dict[str, Any]]:
    """The partners of each core pattern but the first, and of those that need none."""
    from undivided_tf.data.corpus import records  # Late: brings TensorFlow.

    vocabulary = records.read_tokenizer(config.records_dir).vocab_size
    full, *others = map(config.encoder, config.core)
    found: dict[str, dict[str, Any]] = {}
    for own in others:
        if budgets.is_as_large(own, full, vocabulary):
            continue
        shapes = found[own.block_pattern] = {}
        for shape in dict.fromkeys(config.partners):
            try:
                encoder = budgets.matched(own, full, shape, vocabulary)
            except InputError as error:
                shapes[shape] = {"reason": str(error)}
            else:
                swept = _sweep(config, encoder, workdir, known)
                shapes[shape] = {**swept, "encoder": encoder.to_dict()}
    return found


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
        f"{pattern}, {shape}": found
        for pattern, shapes in results.get("partners", {}).items()  # Older sweeps had none.
        for shape, found in shapes.items()
        if "curve" in found
    }
    return {**results["patterns"], **partners}


def table(results: dict[str, Any]) -> str:
    """The lines that `run_sweep` prints: a row a rate, a column an encoder, the best marked."""
    swept = arms(results)
    losses = {
        arm: {point["learning_rate"]: point["loss"] for point in found["curve"]}
        for arm, found in swept.items()
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
    for arm, found in swept.items():
        if found["learning_rate"] is None:
            lines.append(f"{arm}: every run diverged; give lower --learning_rates")
        elif not found["interior"]:
            lines.append(
                f"{arm}: the best rate {found['learning_rate']:g} is at the edge of those "
                "measured, so a better one may lie beyond; raise --max_extensions"
            )
    for pattern, shapes in results.get("partners", {}).items():
        for shape, found in shapes.items():
            if "reason" in found:
                lines.append(f"{pattern}, {shape}: no such partner, since {found['reason']}")
    return "\n".join(lines)


def section(study: StudyResults, chapter: str) -> Section:
    """The curves of the sweeps that a study took its rates from, as its results.json has them."""
    from undivided_tf.reporting import worth as drawn  # Late: brings matplotlib.

    sweeps = {_size(found): found for found in study.raw["sweeps"]}
    rows, curves = [], {}
    for size, found in sweeps.items():
        steps = found["config"]["pretraining"]["num_train_steps"]
        for arm, swept in arms(found).items():
            if arm.partition(",")[0] not in study.config.canonical_patterns:
                continue
            known = [p for p in swept["curve"] if p["loss"] is not None]
            points = [(point["learning_rate"], point["loss"]) for point in known]
            curves.setdefault(f"size {size}" if len(sweeps) > 1 else "", {})[arm] = points
            rows.append(
                (
                    Value(size),
                    code(arm),
                    number(swept["learning_rate"], "{:g}".format),
                    number(swept["loss"], formatting.loss),
                    Value("; ".join(f"{rate:g}: {loss:.3f}" for rate, loss in points)),
                    number(len(swept["curve"]) - len(known), formatting.count),
                    number(steps, formatting.count),
                    Value(", ".join(map(str, found["pilot_seeds"]))),
                )
            )
    columns = (
        "size",
        "pattern",
        "best peak rate",
        "held-out loss there, nats",
        "rate: loss",
        "diverged",
        "steps",
        "pilot seeds",
    )
    table = Table("Sweeps of the learning rate", columns, tuple(rows))
    figure = Figure(
        "learning_rates",
        "Held-out loss over the peak learning rate, on pilot seeds",
        f"Curves of held-out MLM loss over the peak learning rate for {_listed(curves)}. The "
        "values stand in the table of sweeps.",
        functools.partial(drawn.learning_rates, study.config.canonical_patterns, curves),
    )
    return Section(chapter, "Learning rates", (figure, table))


def _listed(curves: dict[str, dict[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(arm for found in curves.values() for arm in found))


def with_rates(config: StudyConfig, *paths: str | pathlib.Path) -> StudyConfig:
    """A study with the rates and the shapes that sweeps found for its patterns and partners.

    A partner that was not swept trains at the rate of its pattern.

    Args:
        config: the study.
        paths: sweep.json of each size of the study.

    Raises:
        InputError: no sweep there, one of another optimizer or with a best rate at its edge; no
            sweep of a size, or two; no rate of a pattern; partners of another reference; or seeds
            of the study are pilot seeds.
    """
    sweeps: dict[str, Any] = {}
    for path in paths:
        found = _read(path)
        _require_optimizer(config, found, path)
        if (size := _size(found)) in sweeps:
            raise InputError(f"{path} and another sweep are both of size {size}")
        sweeps[size] = found, path
    rates, shapes, pilots = [], [], {}
    for size in ("", *config.sizes):
        name = config.size_name(size)
        if name not in sweeps:
            hidden, _, heads = name.partition("x")
            raise InputError(
                f"the sweeps are of size {', '.join(sweeps)}, none is of {name}: run run_sweep "
                f"with --pretraining.hidden_size={hidden} --pretraining.num_attention_heads={heads}"
            )
        found, path = sweeps[name]
        pilots |= dict.fromkeys(found["pilot_seeds"])
        at = f"@{size}" if size else ""
        for pattern in config.canonical_patterns:
            rates.append(f"{pattern}{at}={_rate(found['patterns'], pattern, path)!r}")
        for pattern in budgets.compared(config):
            swept = _swept_partners(config, found, pattern, path)
            for budget in budgets.others(config):
                shape = budget
                if budget == budgets.PARAMETERS and swept:
                    for one in swept:
                        _rate(swept, one, path)  # A better rate beyond an edge may change it.
                    shape = min(swept, key=lambda one: swept[one]["loss"] or math.inf)
                    shapes.append(f"{pattern}{at}={shape}")
                if budget in PARTNERS and shape in swept:
                    rates.append(f"{pattern}:{budget}{at}={_rate(swept, shape, path)!r}")
    return config.replace(
        pattern_learning_rates=tuple(rates),
        partner_shapes=tuple(shapes),
        pilot_seeds=tuple(pilots),
    )


def _swept_partners(
    config: StudyConfig, found: dict[str, Any], pattern: str, path: str | pathlib.Path
) -> dict[str, Any]:
    """What a sweep found of the partners of a pattern, by shape."""
    swept = found.get("partners", {}).get(pattern, {})
    swept = {shape: one for shape, one in swept.items() if "curve" in one}
    reference, full = next(iter(found["patterns"])), config.canonical_patterns[0]
    if swept and reference != full:
        raise InputError(
            f"{path} has partners with the parameters of {reference}, but the reference of the "
            f"study is {full}: run run_sweep with {full} as the first of --patterns"
        )
    return swept


def _size(found: dict[str, Any]) -> str:
    encoder = found["config"]["pretraining"]["encoder"]
    return f"{encoder['hidden_size']}x{encoder['num_attention_heads']}"


def _rate(swept: dict[str, Any], pattern: str, path: str | pathlib.Path) -> float:
    """The best rate of a pattern, or of the shape of a partner."""
    found = swept.get(pattern, {})
    if found.get("learning_rate") is None:
        raise InputError(
            f"{path} has no learning rate for {pattern}; it has some for "
            f"{', '.join(p for p in swept if swept[p]['learning_rate'])}: run run_sweep with "
            f"--patterns that name {pattern}"
        )
    if not found["interior"]:
        raise InputError(
            f"{path}: the best rate of {pattern}, {found['learning_rate']:g}, is at the edge of "
            "those measured, so a better one may lie beyond: run run_sweep with a higher "
            "--max_extensions"
        )
    return found["learning_rate"]


def _read(path: str | pathlib.Path) -> dict[str, Any]:
    """The content of a sweep.json."""
    try:
        found = files.read_json(path)
        _, _, _ = found["patterns"], found["pilot_seeds"], _size(found)
        _ = found["config"]["pretraining"]["optimizer"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no {SWEEP} of run_sweep: {error!r}") from error
    return found


def _require_optimizer(
    config: StudyConfig, found: dict[str, Any], path: str | pathlib.Path
) -> None:
    optimizer = found["config"]["pretraining"]["optimizer"]
    if optimizer != config.pretraining.optimizer:
        raise InputError(
            f"{path} has learning rates for {optimizer}, but the study trains with "
            f"{config.pretraining.optimizer}: give --pretraining.optimizer={optimizer} or run "
            "another sweep"
        )
