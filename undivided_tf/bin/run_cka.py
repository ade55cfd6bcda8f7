"""CKA of every tap of one encoder against every tap of another, on the same tokens.

    python -m undivided_tf.bin.run_cka --first_checkpoint=runs/full \
        --second_checkpoint=runs/undivided --workdir=runs/full_undivided_cka

Without --second_checkpoint the other is the untrained twin of the first. A finished work
directory is only shown again.
"""

import pathlib

from undivided_tf.bin import config_flags
from undivided_tf.recipes import CkaConfig

config_flags.define(CkaConfig())


def main() -> None:
    """Flags -> config -> CKA, its table and its figure."""
    config = config_flags.parse(CkaConfig())
    from undivided_tf.analysis.similarity import run_cka
    from undivided_tf.study import figures

    result = run_cka(config)
    figure = pathlib.Path(config.workdir) / "cka.png"
    figures.cka_heat_map(result, figure)
    print(_table(result, figures.short_name))
    print(f"results: {config.workdir}/results.json, {figure}")


def _table(result, short_name) -> str:
    """The matrix as text: rows are taps of the first encoder, columns those of the second."""
    names = [short_name(tap) for tap in result["second_taps"]]
    lines = [
        "rows: {pattern}, seed {seed}, trained: {trained}".format(**result["first"]),
        "columns: {pattern}, seed {seed}, trained: {trained}".format(**result["second"]),
        f"{result['estimator']}; {result['tokens']} tokens of {result['examples']} examples",
        " ".join(["     ", *(f"{name:>5}" for name in names)]),
    ]
    for tap, row in zip(result["first_taps"], result["matrix"], strict=True):
        values = ("  nan" if value is None else f"{value:5.2f}" for value in row)
        lines.append(" ".join([f"{short_name(tap):<5}", *values]))
    return "\n".join([*lines, *sorted(set(result["reasons"].values()))])


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
