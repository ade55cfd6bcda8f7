"""The best peak learning rate of each block pattern, found on pilot seeds.

Patterns whose best rates differ can only be compared fairly at their own: one rate for all of
them favours those that it happens to suit.
"""

import math
import pathlib
import re
from typing import Any

from absl import logging

from undivided_tf.errors import InputError
from undivided_tf.study.config import StudyConfig, SweepConfig
from undivided_tf.support import files
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.workdir import open_workdir

SWEEP = "sweep.json"
_DIVERGED = "diverged.json"


def run_sweep(config: SweepConfig) -> dict[str, Any]:
    """Pre-trains every pattern at every rate, and at more until the best lies between two others.

    A rate is as good as the mean held-out loss over the pilot seeds; a run that diverges counts
    as infinitely bad. While the best rate of a pattern is its lowest or highest, another one is
    added beyond it, by the ratio of the two outermost. The same call goes on where an interrupted
    one stopped; the weights of finished runs are removed.

    Args:
        config: the sweep; `config.workdir` receives config.json, a directory of each run in
            `runs` and, at the end, sweep.json.

    Returns:
        The content of sweep.json: the `config`, `pilot_seeds`, and of each of `patterns` its best
        `learning_rate` (None where all runs diverged), the `loss` there in nats, whether it is
        `interior`, and the `curve`, by rising `learning_rate` the mean `loss` and the `losses` of
        the seeds, None where a run diverged.

    Raises:
        InputError: the workdir holds another sweep, or as `pretrain`.
    """

    def grown(there: SweepConfig) -> bool:
        free = ("patterns", "learning_rates", "pilot_seeds", "max_extensions")
        return there.replace(**{name: getattr(config, name) for name in free}) == config

    workdir = open_workdir(config.workdir, config, grown)
    results = {
        "kind": "sweep",
        "config": config.to_dict(),
        "pilot_seeds": list(config.pilot_seeds),
        "patterns": {
            pattern: _sweep(config, pattern, workdir) for pattern in config.canonical_patterns
        },
    }
    files.write_json(workdir / SWEEP, results)
    return results


def _sweep(config: SweepConfig, pattern: str, workdir: pathlib.Path) -> dict[str, Any]:
    """Best rate and curve of a pattern."""
    losses = {rate: _losses(config, pattern, rate, workdir) for rate in config.learning_rates}
    for extension in range(config.max_extensions + 1):
        rates = sorted(losses)
        means = [_mean(losses[rate]) for rate in rates]
        place = means.index(min(means))  # The lowest of equal ones: where all diverged, the first.
        interior = 0 < place < len(rates) - 1
        if interior or extension == config.max_extensions:
            break
        added = rates[0] ** 2 / rates[1] if place == 0 else rates[-1] ** 2 / rates[-2]
        added = float(f"{added:.6g}")  # Rounding errors would get into names.
        logging.info("%s: best at %g, the edge; adding %g", pattern, rates[place], added)
        losses[added] = _losses(config, pattern, added, workdir)
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


def _losses(config: SweepConfig, pattern: str, rate: float, workdir: pathlib.Path) -> list[float]:
    """Held-out losses of a pattern at a rate, one a pilot seed; infinite where a run diverged."""
    return [_loss(config.run(pattern, rate, seed), workdir) for seed in config.pilot_seeds]


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


def table(results: dict[str, Any]) -> str:
    """The lines that `run_sweep` prints: a row a rate, a column a pattern, the best marked."""
    patterns = results["patterns"]
    losses = {
        pattern: {point["learning_rate"]: point["loss"] for point in found["curve"]}
        for pattern, found in patterns.items()
    }
    width = max(10, *(len(pattern) + 2 for pattern in patterns))
    lines = ["learning rate" + "".join(pattern.rjust(width) for pattern in patterns)]
    for rate in sorted({rate for curve in losses.values() for rate in curve}):
        cells = []
        for pattern, curve in losses.items():
            text = ""
            if rate in curve:
                text = "diverged" if curve[rate] is None else f"{curve[rate]:.3f}"
            cells.append(text + ("*" if rate == patterns[pattern]["learning_rate"] else " "))
        lines.append(f"{rate:g}".ljust(13) + "".join(cell.rjust(width) for cell in cells))
    seeds = ", ".join(map(str, results["pilot_seeds"]))
    lines.append(
        f"* best mean held-out loss over the pilot seeds {seeds}, which must not be used again in "
        "what the rates are chosen for"
    )
    for pattern, found in patterns.items():
        if found["learning_rate"] is None:
            lines.append(f"{pattern}: every run diverged; give lower --learning_rates")
        elif not found["interior"]:
            lines.append(
                f"{pattern}: the best rate {found['learning_rate']:g} is at the edge of those "
                "measured, so a better one may lie beyond; raise --max_extensions"
            )
    return "\n".join(lines)


def with_rates(config: StudyConfig, *paths: str | pathlib.Path) -> StudyConfig:
    """A study with the learning rates that sweeps found for its patterns.

    Args:
        config: the study.
        paths: sweep.json of each size of the study.

    Raises:
        InputError: no sweep there, one of another optimizer or with a best rate at its edge; no
            sweep of a size, or two; no rate of a pattern; or seeds of the study are pilot seeds.
    """
    sweeps: dict[str, Any] = {}
    for path in paths:
        found = _read(config, path)
        if (size := _size(found)) in sweeps:
            raise InputError(f"{path} and another sweep are both of size {size}")
        sweeps[size] = found, path
    rates, pilots = [], {}
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
        for pattern in config.canonical_patterns:
            rate = _rate(found["patterns"], pattern, path)
            rates.append(f"{pattern}{f'@{size}' if size else ''}={rate!r}")
    return config.replace(pattern_learning_rates=tuple(rates), pilot_seeds=tuple(pilots))


def _size(found: dict[str, Any]) -> str:
    encoder = found["config"]["pretraining"]["encoder"]
    return f"{encoder['hidden_size']}x{encoder['num_attention_heads']}"


def _rate(swept: dict[str, Any], pattern: str, path: str | pathlib.Path) -> float:
    """The best rate of a pattern."""
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


def _read(config: StudyConfig, path: str | pathlib.Path) -> dict[str, Any]:
    """A sweep, checked against the study that takes its rates."""
    try:
        found = files.read_json(path)
        _, _, _ = found["patterns"], found["pilot_seeds"], _size(found)
        optimizer = found["config"]["pretraining"]["optimizer"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no {SWEEP} of run_sweep: {error!r}") from error
    if optimizer != config.pretraining.optimizer:
        raise InputError(
            f"{path} has learning rates for {optimizer}, but the study trains with "
            f"{config.pretraining.optimizer}: give --pretraining.optimizer={optimizer} or run "
            "another sweep"
        )
    return found
