"""Linear probes on every tap of an encoder, with baselines and controls.

References:
    Alain, Bengio 2017, arXiv 1610.01644 (linear classifier probes).
    Hewitt, Liang 2019, arXiv 1909.03368 (a score needs baselines).
"""

import collections
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.analysis import linear_probes, probe_rows, subjects
from undivided_tf.analysis.config import ProbingConfig
from undivided_tf.analysis.probe_rows import Split
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks.probing_tasks import load_probing_task
from undivided_tf.data.tasks.tasks import Task
from undivided_tf.data.tasks.treebank_tasks import WordTask
from undivided_tf.metrics import classification
from undivided_tf.metrics.inference import summarize
from undivided_tf.support import progress, threads
from undivided_tf.workdir import results_once

MIX_ROWS = 5000  # Training rows of the scalar mix, which has all taps in memory.


def run_probing(config: ProbingConfig) -> dict[str, Any]:
    """Probes a checkpoint and its untrained twin on a task.

    Args:
        config: names the checkpoint, the task and the sample; `config.workdir` receives config.json
            and results.json. Existing results are read instead.

    Returns:
        As `probe`.

    Raises:
        InputError: no checkpoint or task, no labelled rows to score, or a workdir of another
            config.
    """

    def inputs() -> tuple[Subject, Task | WordTask]:
        return subjects.load(config.init_checkpoint), load_probing_task(config.task)

    return results_once(config, inputs, lambda loaded: probe(*loaded, config))


def probe(subject: Subject, task: Task | WordTask, config: ProbingConfig) -> dict[str, Any]:
    """Accuracy of a linear probe on every tap, with the untrained twin and other baselines.

    A probe is a multinomial logistic regression, standardised with mean and deviation of the
    training rows, on the pooled tap of a sentence, on the mean of a word's pieces, or on the
    concatenation of two words. It is scored on the test split, or on the validation split if the
    test split is absent or unlabelled.

    Args:
        subject: the encoder.
        task: gives the rows; the classes of a regression are the rounded scores.
        config: sample sizes, pooling, penalties, further measurements, and seeds.

    Returns:
        `kind`, `pattern`, `pretraining_seed`, `task`, `taps`, `rows` (`train`, `test`), `split`
        (the one scored on), `pooling`, `unit` (`sentences` or `words`), `seeds`, `unconverged`
        (probes whose solver stopped early), `majority_accuracy`, `type_majority_accuracy` (each
        word type has its most frequent label), `seen_type_share` (share of the scored rows whose
        word type is in training), `duplicates_dropped` (test rows whose text, or for words whose
        sentence, is also in training), and `unseen_words` (cut off by `max_seq_length`).

        For each tap, as means over the seeds: `accuracy`, `low` and `high` (95 % interval over the
        seeds, None for one seed), `untrained_accuracy`, `new_type_accuracy` (on word types that are
        not in training), `ambiguous_type_accuracy` and `untrained_ambiguous_type_accuracy` (on word
        types with several labels in training); the last three are None where there are no such
        words. Depending on the config also `control_accuracy`, `selectivity`, `compression` and
        `untrained_compression`. `accuracy_runs` and the chosen `inverse_l2` have one list per seed.
        `scalar_mix` is that of the first seed (see `linear_probes.scalar_mix`), or None.

    Raises:
        InputError: a split has no rows or no labels, or an activation is not finite.
    """
    if isinstance(task, Task):
        task = task.graded()
    names = list(subject.encoder.config.pattern.tap_names)
    seeds = list(range(config.seed, config.seed + config.num_seeds))
    total = 2 * len(names) * len(seeds)
    with progress.bar(total, f"probing {subject.pattern}", "probes") as bar:
        runs = [_run(subject, task, config, seed, bar) for seed in seeds]
    unconverged = sum(run["unconverged"] for run in runs)
    if unconverged:
        logging.warning(
            "%d of %d probes did not converge in %d iterations; their last weights are scored",
            unconverged,
            total,
            linear_probes.MAX_ITERATIONS,
        )
    first = runs[0]
    accuracies = np.array([run["accuracy"] for run in runs])
    summaries = [summarize(values) for values in accuracies.T]
    per_tap = {
        key: None if first[key] is None else _means([run[key] for run in runs])
        for key in (
            "untrained_accuracy",
            "new_type_accuracy",
            "ambiguous_type_accuracy",
            "untrained_ambiguous_type_accuracy",
            "control_accuracy",
            "selectivity",
            "compression",
            "untrained_compression",
        )
    }
    return {
        "kind": "probing",
        "pattern": subject.pattern,
        "pretraining_seed": subject.seed,
        "task": task.name,
        "taps": names,
        "accuracy": [summary["mean"] for summary in summaries],
        "low": [summary["low"] for summary in summaries],
        "high": [summary["high"] for summary in summaries],
        **per_tap,
        "accuracy_runs": accuracies.tolist(),
        "inverse_l2": [run["inverse_l2"] for run in runs],
        **{
            key: float(np.mean([run[key] for run in runs]))
            for key in ("majority_accuracy", "type_majority_accuracy", "seen_type_share")
        },
        "scalar_mix": first["scalar_mix"],
        "rows": first["rows"],
        "split": first["split"],
        "unit": "words" if isinstance(task, WordTask) else "sentences",
        "pooling": config.pooling,
        "seeds": seeds,
        "duplicates_dropped": first["duplicates_dropped"],
        "unseen_words": first["unseen_words"],
        "unconverged": unconverged,
    }


def _means(runs: list[list[float | None]]) -> list[float | None]:
    """Mean over the runs for each tap; None if a run has none."""
    return [
        None if None in values else float(np.mean(values)) for values in zip(*runs, strict=True)
    ]


def _run(
    subject: Subject, task: Task | WordTask, config: ProbingConfig, seed: int, bar: Any
) -> dict[str, Any]:
    """All probes of one seed."""
    splits, dropped = probe_rows.read(task, subject, config, seed)
    train, test = splits["train"], splits["test"]
    control = linear_probes.ControlTask.draw(train.types, train.labels, seed)
    labels_of_type: dict[str, set[int]] = collections.defaultdict(set)
    for name, label in zip(train.types, train.labels.tolist(), strict=True):
        labels_of_type[name].add(label)
    new = np.array([name not in labels_of_type for name in test.types])
    ambiguous = np.array([len(labels_of_type.get(name, ())) > 1 for name in test.types])
    groups = {"new_type": new, "ambiguous_type": ambiguous}
    results: dict[str, Any] = {}
    for prefix, encoder in (("", subject), ("untrained_", subject.untrained_twin(seed))):
        x = {
            name: probe_rows.activations(encoder, split, config)
            for name, split in splits.items()
            if name != "validation" or len(config.inverse_l2) > 1
        }

        def of_tap(tap: str, x=x, prefix=prefix) -> dict[str, Any]:
            measured = _probe_tap(
                {name: values[tap] for name, values in x.items()},
                splits,
                control if not prefix else None,
                groups,
                len(task.labels),
                config.replace(seed=seed),
            )
            bar.update()
            return measured

        measured = threads.each(of_tap, list(x["train"]))
        for key in measured[0]:
            results[prefix + key] = [tap[key] for tap in measured]
        if not prefix and config.scalar_mix:
            drawn = np.random.default_rng(seed).permutation(len(train.rows))[:MIX_ROWS]
            penalties = sorted(results["inverse_l2"])
            results["scalar_mix"] = linear_probes.scalar_mix(
                [values[drawn] for values in x["train"].values()],
                train.labels[drawn],
                list(x["test"].values()),
                test.labels,
                num_labels=len(task.labels),
                inverse_l2=penalties[len(penalties) // 2],
            )
    optional = ("control_accuracy", "selectivity", "compression", "untrained_compression")
    return {
        **dict.fromkeys((*optional, "scalar_mix")),
        **results,
        "unconverged": sum(results["unconverged"] + results["untrained_unconverged"]),
        "majority_accuracy": classification.majority_accuracy(train.labels, test.labels),
        "type_majority_accuracy": _type_majority(train, test),
        "seen_type_share": float(1 - new.mean()),
        "rows": {"train": len(train.rows), "test": len(test.rows)},
        "split": test.name,
        "duplicates_dropped": dropped,
        "unseen_words": train.unseen + test.unseen,
    }


def _probe_tap(
    x: dict[str, np.ndarray],
    splits: dict[str, Split],
    control: linear_probes.ControlTask | None,
    groups: dict[str, np.ndarray],
    num_labels: int,
    config: ProbingConfig,
) -> dict[str, Any]:
    """The results of `probe` for one tap and one seed.

    Args:
        x: activations of the tap, by split.
        splits: the examples.
        control: the control task; None to leave it out.
        groups: test rows that are also scored by themselves, bool `(test rows,)` by name.
        num_labels: number of classes.
        config: what to measure; its seed decides the order of labels for the codelength.
    """
    train, test = splits["train"], splits["test"]
    inverse_l2, model, converged = linear_probes.fit_best(
        x["train"],
        train.labels,
        x.get("validation"),
        splits["validation"].labels,
        config.inverse_l2,
    )
    correct = model.predict(x["test"].astype(np.float64)) == test.labels
    measures = {
        "accuracy": float(correct.mean()),
        "inverse_l2": inverse_l2,
        **{
            f"{name}_accuracy": float(correct[rows].mean()) if rows.any() else None
            for name, rows in groups.items()
        },
        "unconverged": int(not converged),
    }
    if control and config.control_task:
        train_labels, _ = control.labels_of(train.types)
        test_labels, places = control.labels_of(test.types)
        measures["control_accuracy"] = measures["selectivity"] = None
        if len(places) and len(np.unique(train_labels)) > 1:
            accuracy, _ = linear_probes.linear_probe(
                x["train"],
                train_labels,
                x["test"][places],
                test_labels,
                num_labels=num_labels,
                inverse_l2=inverse_l2,
            )
            measures["control_accuracy"] = accuracy
            # On the same rows, since rows of new types have no control label.
            measures["selectivity"] = float(correct[places].mean()) - accuracy
    if config.codelength:
        order = np.random.default_rng(config.seed).permutation(len(train.labels))
        measures["compression"] = linear_probes.online_codelength(
            x["train"][order], train.labels[order], num_labels, inverse_l2
        )["compression"]
    return measures


def _type_majority(train: Split, test: Split) -> float:
    """Accuracy of the most frequent label of each word type; for a new type, of all words."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for name, label in zip(train.types, train.labels.tolist(), strict=True):
        counts[name][label] += 1
    overall = collections.Counter(train.labels.tolist()).most_common(1)[0][0]
    answers = [
        counts[name].most_common(1)[0][0] if name in counts else overall for name in test.types
    ]
    return float(np.mean(np.array(answers) == test.labels))
