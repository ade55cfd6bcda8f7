"""All tasks of GLUE: seeds, settings, the table and the submission archive.

WORKDIR/TASK/ is a fine-tuning run; with several settings each has a directory, such as
WORKDIR/TASK/lr2e-05_epochs3/.
"""

import json
import pathlib
import statistics
from typing import Any

from absl import logging

from undivided_tf.data.tasks import glue as data
from undivided_tf.data.tasks import submission
from undivided_tf.errors import InputError
from undivided_tf.metrics import glue as metrics
from undivided_tf.metrics.inference import summarize
from undivided_tf.support import files
from undivided_tf.training import learning
from undivided_tf.training.config import FinetuningConfig, GlueConfig
from undivided_tf.training.finetuning import VALIDATION, finetune
from undivided_tf.workdir import RESULTS, forget_input, open_workdir

MISMATCHED = "validation_mismatched"
_STATISTICS = {"mean": statistics.fmean, "median": statistics.median, "maximum": max}


def run_glue(config: GlueConfig, command: str = "") -> dict[str, Any]:
    """Fine-tunes and scores on tasks of GLUE; a failed task does not stop the others.

    Results of finished tasks are reused; failed tasks run again.

    Args:
        config: the tasks; `config.workdir` receives results.json and results.md after every
            task and, with `write_predictions`, submission.zip.
        command: the command line, for the results.

    Returns:
        `tasks` (by name: `status`, and `error` or `score`, `summary`, `chosen`, `selection`, `runs`
        ...), `average` (None unless all nine tasks are finished), `command`, `config`, `warnings`
        (if the encoder has not learnt in pre-training).

    Raises:
        InputError: the workdir holds another config.
    """
    _forget_data_of_failed_tasks(pathlib.Path(config.workdir))
    workdir = open_workdir(config.workdir, config)
    results: dict[str, Any] = {
        "kind": "glue",
        "command": command,
        "config": config.to_dict(),
        "tasks": {},
        "warnings": learning.warnings([config.finetuning.init_checkpoint]),
    }
    for task in config.tasks:
        try:
            results["tasks"][task] = _task_results(config, task, workdir)
        except Exception as error:  # The other tasks still run.
            logging.exception("%s failed", task)
            results["tasks"][task] = {
                "status": "failed",
                "error": f"{type(error).__name__}: {error}",
            }
        done = {k: v for k, v in results["tasks"].items() if v["status"] == "finished"}
        results["average"] = metrics.average({name: r["score"] for name, r in done.items()})
        files.write_json(workdir / RESULTS, results)
        files.write_text(workdir / "results.md", table(results))
    if config.finetuning.write_predictions:
        contents: dict[str, str] = {}
        for task, result in results["tasks"].items():
            if result["status"] == "finished":
                contents.update(_submission_files(task, workdir, result))
        submission.write_submission(workdir / "submission.zip", contents)
    return results


def _forget_data_of_failed_tasks(workdir: pathlib.Path) -> None:
    """Forgets the hashes of `data` if a task failed, so that the user can correct its files.

    The directories of finished tasks keep the hashes of their files and refuse other files.
    """
    path = workdir / RESULTS
    tasks = files.read_json(path)["tasks"] if path.exists() else {}
    if any(result["status"] == "failed" for result in tasks.values()):
        forget_input(workdir, "data")


def source(config: GlueConfig, task: str) -> str:
    """The name of a task for `load_task`."""
    return (
        f"tfds:glue/{task}" if config.data == "tfds" else f"{config.data}/{data.TASKS[task].folder}"
    )


def _candidates(config: GlueConfig, task: str, workdir: pathlib.Path) -> list[FinetuningConfig]:
    """The configs to choose from for a task, each with its own directory."""
    base = config.of_task(task)
    settings = [
        base.replace(learning_rate=rate, num_train_epochs=epochs)
        for rate in config.learning_rates or (base.learning_rate,)
        for epochs in config.epochs or (base.num_train_epochs,)
    ]
    candidates = []
    for setting in settings:
        directory = workdir / task
        if len(settings) > 1:
            directory /= f"lr{setting.learning_rate:g}_epochs{setting.num_train_epochs}"
        candidates.append(setting.replace(workdir=str(directory), task=source(config, task)))
    return candidates


def _task_results(config: GlueConfig, task: str, workdir: pathlib.Path) -> dict[str, Any]:
    primary = metrics.PRIMARY[task]
    statistic = _STATISTICS[config.selection]
    tried = []
    for candidate in _candidates(config, task, workdir):
        result = finetune(candidate)
        values = [run[VALIDATION][primary] for run in result["runs"]]
        tried.append((statistic(values), candidate, result))
    best, chosen, result = max(tried, key=lambda item: item[0])
    runs = result["runs"]
    scored = [split for split in result["majority"] if split in runs[0]]
    by_run = [metrics.task_score(task, run[VALIDATION], run.get(MISMATCHED)) for run in runs]
    return {
        "status": "finished",
        "primary": primary,
        "score": statistics.fmean(by_run),
        "summary": {
            split: {name: summarize([run[split][name] for run in runs]) for name in runs[0][split]}
            for split in scored
        },
        "constant_answer": result["majority"],
        "rows": result["rows"],
        "truncated": result["truncated"],
        "seconds": sum(run["seconds"] for run in runs),
        "runs": runs,
        "chosen": _setting(chosen),
        "selection": {
            "rule": f"highest {config.selection} of {primary} on {VALIDATION} over the seeds",
            "tried": [{**_setting(c), config.selection: value} for value, c, _ in tried],
            # A setting chosen on the rows of the report has an optimistic score.
            "optimistic": len(tried) > 1,
        },
        "directory": str(pathlib.Path(chosen.workdir).relative_to(workdir)),
    }


def _setting(config: FinetuningConfig) -> dict[str, Any]:
    """The fields of a config that results.json reports."""
    return {
        name: getattr(config, name)
        for name in (
            "learning_rate",
            "num_train_epochs",
            "train_batch_size",
            "max_seq_length",
            "max_train_rows",
            "pooling",
        )
    }


def _submission_files(task: str, workdir: pathlib.Path, result: dict[str, Any]) -> dict[str, str]:
    """Submission files of the run with the best validation score."""
    best = max(result["runs"], key=lambda run: run[VALIDATION][result["primary"]])
    folder = workdir / result["directory"] / f"predictions_{best['seed']}"
    contents = {}
    for split, name in data.TASKS[task].submission_files.items():
        path = folder / f"{split}.jsonl"
        if path.exists():
            rows = [
                json.loads(line) for line in files.read_text(path).removesuffix("\n").split("\n")
            ]
            contents[name] = submission.submission_text(task, [row["prediction"] for row in rows])
        else:
            logging.warning("%s: no rows of %s, so no %s in the archive", task, split, name)
    return contents


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table, one row per task and scored split."""
    lines = [
        "| task | split | metric | mean | 95 % interval | deviation | median | n | constant | "
        "train rows | learning rate | epochs |",
        "| --- | --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for task, result in results["tasks"].items():
        folder = data.TASKS[task].folder
        if result["status"] != "finished":
            lines.append(f"| {folder} | failed: {' '.join(result['error'].split())} |" + " |" * 10)
            continue
        for split, by_metric in result["summary"].items():
            for metric in metrics.METRICS[task]:
                score = by_metric[metric]
                low, high = score["low"], score["high"]
                interval = "" if low is None else f"{low:.4f} to {high:.4f}"
                deviation = "" if score["deviation"] is None else f"{score['deviation']:.4f}"
                is_primary = metric == result["primary"]
                constant = f"{result['constant_answer'][split]:.4f}" if is_primary else ""
                lines.append(
                    f"| {folder} | {split} | {metric} | {score['mean']:.4f} | {interval} | "
                    f"{deviation} | {score['median']:.4f} | {score['n']} | {constant} | "
                    f"{result['rows']['train']} | {result['chosen']['learning_rate']:g} | "
                    f"{result['chosen']['num_train_epochs']} |"
                )
    average = results["average"]
    lines.append("")
    lines += results["warnings"]
    lines.append(
        "GLUE average: " + ("needs all nine tasks" if average is None else f"{average:.2f}")
    )
    return "\n".join(lines) + "\n"


def failures(results: dict[str, Any]) -> None:
    """Raises InputError if a task failed."""
    failed = {t: r["error"] for t, r in results["tasks"].items() if r["status"] == "failed"}
    if failed:
        listed = "\n  ".join(f"{task}: {error}" for task, error in failed.items())
        raise InputError(
            f"{len(failed)} of {len(results['tasks'])} tasks failed; the same command tries them "
            f"again\n  {listed}"
        )
