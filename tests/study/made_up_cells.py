"""Work that stands for that of real cells: their processes import it, and no TensorFlow.

A cell does what its task says: `fail` or `nap` (sleep), until a file `mended` lies in the study,
`die`, `sleep`, `wait` (a moment); anything else succeeds. Each call adds a line to the study's
`journal`, and one to its `events` when it begins and when it succeeds.
"""

import copy
import dataclasses
import os
import pathlib
import time

from undivided_tf.analysis.config import ProbingConfig
from undivided_tf.errors import InputError
from undivided_tf.study.cells import Cell, Kind
from undivided_tf.training.config import PretrainingConfig, TimingConfig


class MadeUp(Kind):
    name = "probing"
    call = "made_up_cells:call"


class MadeUpPretraining(MadeUp):
    name = "pretraining"


def cell(name, does="succeed", needs=None, kind=MadeUp, **options):
    """A cell of this name."""
    places = {"init_checkpoint": needs} if needs else {}
    return Cell(kind(), {"name": name}, ProbingConfig(task=does), places, **options)


def journal(study):
    """Names of the cells that ran, in order."""
    path = study / "journal"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def call(config):
    """Stands for the library call of a cell."""
    home = pathlib.Path(config.workdir)
    study = home.parents[1]
    line = f"{home.name.split('_')[1]} {os.getpid()}\n"
    for name in ("journal", "events"):
        with open(study / name, "a") as lines:
            lines.write(line)
    if config.task == "fail" and not (study / "mended").exists():
        raise InputError("no luck")
    if config.task == "die":
        os._exit(9)
    if config.task == "sleep" or (config.task == "nap" and not (study / "mended").exists()):
        time.sleep(600)
    if config.task == "wait":
        time.sleep(0.3)
    with open(study / "events", "a") as events:
        events.write(line)
    need = pathlib.Path(config.init_checkpoint).name.split("_")[1:2]
    return {"kind": "probing", "did": config.task, "need": need}


def invented(config):
    """Stands for all library calls: intermediate blocks cost time, whatever their number."""
    home = pathlib.Path(getattr(config, "output_dir", "") or config.workdir)
    home.mkdir(parents=True, exist_ok=True)
    (home / "weights").touch()
    if isinstance(config, TimingConfig):
        return {"milliseconds": [20.0] * 3, "reference_milliseconds": [30.0] * 3}
    if not isinstance(config, PretrainingConfig):
        return {}
    slow = config.encoder.pattern.num_intermediate
    return {"steps": config.num_train_steps, "step_milliseconds": 30.0 if slow else 20.0}


def with_invented_results(cells):
    """Real cells and places, of which only what they compute is made up."""

    def changed(cell):
        kind = copy.copy(cell.kind)
        kind.call = "made_up_cells:invented"
        return dataclasses.replace(cell, kind=kind)

    return [changed(cell) for cell in cells]
