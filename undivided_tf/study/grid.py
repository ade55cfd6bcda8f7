"""The cells of a study: what there is to run, in which order, and running what is missing.

A cell is a directory `WORKDIR/cells/KIND_NAME_HASH` with `results.json` once it is finished.
The hash covers its whole recipe and the hashes of the cells that it builds upon, so that a
cell is found again by the same command and never mistaken for another.
"""

import concurrent.futures
import concurrent.futures.process
import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

from absl import logging

from undivided_tf import files, progress
from undivided_tf.config import Config
from undivided_tf.recipes import StudyConfig
from undivided_tf.study.workers import Workers


@dataclasses.dataclass(frozen=True)
class Cell:
    """One piece of work.

    Attributes:
        kind: `records`, `pretraining`, `finetuning`, `cka` or `probing`.
        label: what a reader wants to know of it, such as pattern, seed and task; goes into
            its result.
        recipe: its config; fields that hold places are empty.
        places: fields of the recipe that take the directory of another cell.
        isolated: run it in a process of its own, so that its peak memory is its own.
    """

    kind: str
    label: dict[str, Any]
    recipe: Config
    places: dict[str, "Cell"] = dataclasses.field(default_factory=dict)
    isolated: bool = False

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits of recipe and needs."""
        needs = [f"{field}={cell.hash}" for field, cell in sorted(self.places.items())]
        return files.sha256(self.kind, self.recipe.fingerprint(), *needs)[:8]

    @property
    def name(self) -> str:
        """The directory: readable, and unique by its hash."""
        words = [str(v) for v in self.label.values() if isinstance(v, str | int)]
        words += [
            f"{v['pattern']}-{v['seed'] if v['trained'] else 'untrained'}"
            for v in self.label.values()
            if isinstance(v, dict)
        ]
        readable = re.sub(r"[^A-Za-z0-9_-]+", "", "_".join(words).replace("*", "x"))
        return "_".join(filter(None, [self.kind, readable, self.hash]))

    @property
    def order(self) -> int:
        """Place in the grid: by stage, then by seed, so that an interrupted study is balanced."""
        return STAGES.index(self.kind)


STAGES = ("records", "pretraining", "finetuning", "cka", "probing")


def expand(config: StudyConfig) -> list[Cell]:
    """All cells of a study, in the order in which they run."""
    seeds = range(config.seed, config.seed + config.num_pretraining_seeds)
    records = Cell("records", {}, config.records)
    trained = {
        (pattern, seed): Cell(
            "pretraining",
            {"pattern": pattern, "seed": seed},
            config.pretraining.replace(encoder=config.encoder(pattern), seed=seed),
            {"records_dir": records},
            isolated=True,
        )
        for seed in seeds
        for pattern in config.canonical_patterns
    }
    cells = [records, *trained.values()]
    for (pattern, seed), encoder in trained.items():
        for task in config.tasks:
            label = {"pattern": pattern, "pretraining_seed": seed, "task": task}
            places = {"init_checkpoint": encoder}
            for start in ("pretrained", "scratch"):
                if start == "scratch" and seed != config.seed:
                    continue  # Random weights know nothing of pre-training: once is enough.
                recipe = config.finetuning.replace(
                    task=task, seed=config.seed, from_scratch=start == "scratch"
                )
                cells.append(Cell("finetuning", {**label, "start": start}, recipe, places))
            recipe = config.probing.replace(task=task, seed=config.seed)
            cells.append(Cell("probing", label, recipe, places))
    cells += _comparisons(config, trained)
    return sorted(cells, key=lambda cell: cell.order)


def _comparisons(config: StudyConfig, trained: dict[tuple[str, int], Cell]) -> list[Cell]:
    """CKA of the reference with itself, the other patterns and its other seeds; and of every
    encoder with its untrained twin.
    """
    recipe = config.cka.replace(seed=config.seed)
    reference = (config.canonical_patterns[0], config.seed)
    cells = []
    for first, second in [
        *((reference, other) for other in trained),
        *((encoder, None) for encoder in trained),
    ]:
        label = {"first": {"pattern": first[0], "seed": first[1], "trained": True}}
        places = {"first_checkpoint": trained[first]}
        if second:
            places["second_checkpoint"] = trained[second]
        pattern, seed = second or (first[0], config.seed)
        label["second"] = {"pattern": pattern, "seed": seed, "trained": second is not None}
        cells.append(Cell("cka", label, recipe, places))
    return cells


# === Running ===


def _function(kind: str) -> Callable[[Any], dict[str, Any]]:
    """The library call of a kind; imported late, since each of them brings TensorFlow."""
    if kind == "records":
        from undivided_tf.data.records import create_records as call
    elif kind == "pretraining":
        from undivided_tf.training.pretraining import pretrain as call
    elif kind == "finetuning":
        from undivided_tf.training.finetuning import finetune as call
    elif kind == "cka":
        from undivided_tf.analysis.similarity import run_cka as call
    else:
        from undivided_tf.analysis.probing import run_probing as call
    return call


def run(
    cells: list[Cell], workdir: str | os.PathLike, num_workers: int = 1
) -> list[dict[str, Any]]:
    """Runs the cells that are not finished; one that fails does not stop the others.

    Args:
        cells: as `expand` gives, needs before those that need them.
        workdir: the study's directory.
        num_workers: cells that run at the same time, each on its share of the cores. Isolated
            cells run one by one on all cores, since they are timed.

    Returns:
        One dict a cell: `name`, `kind`, `label`, `status` (`finished` or `failed`), `error`,
        `seconds` and `result`.
    """
    root = pathlib.Path(workdir) / "cells"
    outcomes: dict[str, dict[str, Any]] = {}
    workers = Workers(num_workers)
    with progress.bar(len(cells), "study", "cells") as done, workers:
        running: dict[concurrent.futures.Future, Cell] = {}

        def collect(wait_for: list[Cell], most: int) -> None:
            """Waits until the outcomes of some cells are there, and at most so many run."""
            while len(running) > most or any(cell.name not in outcomes for cell in wait_for):
                completed, _ = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
                for future in completed:
                    cell = running.pop(future)
                    outcomes[cell.name] = _outcome_of(cell, future, root)
                    done.update()

        for cell in cells:
            finished = _finished(cell, root)
            if not finished.exists():
                collect(list(cell.places.values()), most=num_workers - 1)
            failed = [
                need.name
                for need in cell.places.values()
                if need.name in outcomes and outcomes[need.name]["status"] == "failed"
            ]
            if finished.exists():
                outcomes[cell.name] = files.read_json(finished)
                done.update()
            elif failed:
                outcomes[cell.name] = _outcome(cell, error=f"needs {', '.join(failed)}")
                done.update()
            elif cell.isolated:
                collect([], most=0)
                with workers.alone() as pool:
                    future = pool.submit(_timed_call, cell.kind, _placed(cell, root))
                    outcomes[cell.name] = _outcome_of(cell, future, root)
                done.update()
            else:
                running[workers.submit(_timed_call, cell.kind, _placed(cell, root))] = cell
        collect([], most=0)
    return [outcomes[cell.name] for cell in cells]


def _finished(cell: Cell, root: pathlib.Path) -> pathlib.Path:
    return root / cell.name / "finished.json"


def _placed(cell: Cell, root: pathlib.Path) -> Config:
    """The recipe with its own directory and those of the cells that it needs."""
    home = "output_dir" if cell.kind == "records" else "workdir"
    places = {field: str(root / need.name) for field, need in cell.places.items()}
    return cell.recipe.replace(**{home: str(root / cell.name)}, **places)


def _outcome(cell: Cell, result=None, seconds=None, error=None) -> dict[str, Any]:
    return {
        "name": cell.name,
        "kind": cell.kind,
        "label": cell.label,
        "status": "failed" if error else "finished",
        "error": error,
        "seconds": seconds,
        "result": result,
    }


def _outcome_of(
    cell: Cell, future: concurrent.futures.Future, root: pathlib.Path
) -> dict[str, Any]:
    """Waits for a cell and writes its outcome down."""
    try:
        result, seconds = future.result()
    except concurrent.futures.process.BrokenProcessPool:
        logging.error("cell %s failed: its process died", cell.name)
        return _outcome(cell, error="its process died: killed, perhaps for want of memory")
    except Exception as error:  # Whatever it is, the other cells still run; it is reported.
        logging.error("cell %s failed", cell.name, exc_info=error)
        return _outcome(cell, error=f"{type(error).__name__}: {error}")
    outcome = _outcome(cell, {**result, **cell.label}, seconds)
    files.write_json(_finished(cell, root), outcome)
    return outcome


def _timed_call(kind: str, config: Config) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    result = _function(kind)(config)
    return result, time.perf_counter() - started
