"""Keeps what a run of run_squad measured: results.json, config.json and a table.

python results/keep_squad.py RUN_DIRECTORY results/NAME
"""

import pathlib
import shutil
import sys

from undivided_tf import files

COUNTS = ("questions", "windows", "answers", "misaligned", "unreachable", "inexact")


def table(results: dict, config: dict, command: str) -> str:
    """The scores and the counts of the data, as Markdown."""
    lines = [
        f"Pattern {results['pattern']}; {config['num_train_epochs']} epochs, batch "
        f"{config['train_batch_size']}, learning rate {config['learning_rate']}, windows of "
        f"{config['max_seq_length']} every {config['doc_stride']} word pieces.",
        "",
        "| seed | scored on | exact | F1 | questions | HasAns F1 | NoAns F1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in results["runs"]:
        for name in ("validation", "predict"):
            if name in run:
                scores, source = run[name], pathlib.Path(results["sources"][name]).name
                subsets = (scores.get(f"{prefix}_f1") for prefix in ("HasAns", "NoAns"))
                shown = ("-" if value is None else f"{value:.2f}" for value in subsets)
                lines.append(
                    f"| {run['seed']} | {source} | {scores['exact']:.2f} | {scores['f1']:.2f} | "
                    f"{scores['total']} | {' | '.join(shown)} |"
                )
    lines += ["", f"| data | {' | '.join(COUNTS)} |", "|---" * (len(COUNTS) + 1) + "|"]
    for name, counts in results["counts"].items():
        lines.append(f"| {name} | {' | '.join(str(counts[key]) for key in COUNTS)} |")
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def main(run: str, kept: str) -> None:
    """See the module's docstring."""
    source = pathlib.Path(run)
    with files.atomic_path(kept) as partial:
        partial.mkdir(parents=True)
        for name in ("results.json", "config.json"):
            shutil.copy(source / name, partial / name)
        results, config = (files.read_json(partial / n) for n in ("results.json", "config.json"))
        command = f"python results/keep_squad.py {run} {kept}"
        files.write_text(partial / "table.md", table(results, config, command))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
