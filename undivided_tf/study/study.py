"""A whole study: run the cells, gather results.json, write the report."""

import importlib.metadata
import os
import pathlib
import platform
import time
from collections.abc import Sequence
from typing import Any

import psutil

from undivided_tf.data import sample
from undivided_tf.data.tasks import tasks
from undivided_tf.errors import InputError
from undivided_tf.study import grid, kept, outcomes, report, running
from undivided_tf.study.cells import FINISHED, NOT_RUN
from undivided_tf.study.config import StudyConfig
from undivided_tf.support import files, progress
from undivided_tf.workdir import date, open_workdir

_VERSIONED = (
    "undivided_tf",
    "tensorflow",
    "keras",
    "tensorflow-text",
    "tokenizers",
    "numpy",
    "scikit-learn",
)


def run_study(
    config: StudyConfig,
    command: str,
    scheduler: str = "",
    report_only: bool = False,
    kept_results: str = "",
    sweeps: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Runs a study, or resumes an interrupted one, and reports.

    Args:
        config: the study; `config.workdir` receives config.json, the cells, results.json,
            report.html, report.md and figures.
        command: the command line, for the report.
        scheduler: address of a standing Dask scheduler; empty: this machine. See `running.run`.
        report_only: run nothing, and report what is finished.
        kept_results: a results.json of this study whose finished cells are not run again where
            nothing but their results is needed; see `kept.take_up`.
        sweeps: the sweeps that found its learning rates, for the report.

    Returns:
        The content of results.json.

    Raises:
        InputError: the workdir holds another study, see `open_study`, or nothing yet to report;
            `kept_results` is of another study.
    """
    cells = grid.expand(config)
    kept_outcomes = kept.read(kept_results, cells) if kept_results else {}
    workdir = open_study(config)  # Not before a mistyped path would have been refused.
    in_turn = kept.take_up(cells, workdir, kept_outcomes)
    before = outcomes.listed(cells, workdir)
    if all(outcome["status"] == FINISHED for outcome in before):
        last = max(path.stat().st_mtime for path in (workdir / "cells").glob("*/finished.json"))
        progress.note(
            f"{workdir}: all {len(cells)} cells finished by {date(last)}; results read from there"
        )
    if not report_only:
        running.run(in_turn, workdir, config.num_workers, scheduler)
    cell_outcomes = kept.filled(cells, outcomes.listed(cells, workdir), kept_outcomes)
    if all(outcome["status"] == NOT_RUN for outcome in cell_outcomes):
        raise InputError(f"{workdir}: no cell is finished yet; run it without report_only")
    records = next(outcome for outcome in cell_outcomes if outcome["kind"] == "records")
    inputs = [item for cell in cells for items in cell.recipe.inputs().values() for item in items]
    named = {item.value for item in inputs}
    results = {
        "command": command,
        "created": time.strftime("%Y-%m-%d"),
        "seconds": sum(outcome["seconds"] or 0 for outcome in cell_outcomes),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        "hardware": hardware(),
        "config": config.to_dict(),
        "corpus": records["result"],
        "sweeps": list(sweeps),
        "sources": list(sample.SOURCES) if named & {"sample", *tasks.SAMPLE_TASKS} else [],
        "cells": cell_outcomes,
    }
    files.write_json(workdir / "results.json", results)
    report.write_report(results, workdir)
    return results


def open_study(config: StudyConfig) -> pathlib.Path:
    """Makes the workdir of a study, or opens that of the same study or of a smaller one.

    More seeds, patterns, tasks, budgets or sizes leave every cell as it is. The margins, and with
    `until_decided` the most seeds, stay as they were named before the study ran.

    Raises:
        InputError: the directory holds a study with other cells, or another margin; shows the
            difference.
    """

    def may_grow(old: StudyConfig) -> bool:
        before, now = (
            (study.accuracy_margin, study.loss_margin, study.worth_margins)
            for study in (old, config)
        )
        if old.until_decided and config.until_decided and old.max_seeds != config.max_seeds:
            return False
        # A study until decided finds again how many seeds each arm needs.
        grown = config.replace(arm_seeds=old.arm_seeds) if config.until_decided else config
        return before == now and _names(old) <= _names(grown)

    return open_workdir(config.workdir, config, may_grow)


def _names(config: StudyConfig) -> set[str]:
    return {cell.name for cell in grid.expand(config)}


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerator of this machine."""
    import tensorflow as tf  # Late: everything else here answers without it.

    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "device": ", ".join(gpus) or "CPU",
    }


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
