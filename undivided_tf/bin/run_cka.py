"""CKA of every tap of one encoder against every tap of another.

Writes results.json and cka.png into the work directory and prints the matrix; a finished
work directory is only printed again.
"""

from undivided_tf import files
from undivided_tf.bin import config_flags
from undivided_tf.config import claim_workdir
from undivided_tf.recipes import CkaConfig

config_flags.define(CkaConfig())


def main() -> None:
    """Compares the checkpoints that the flags name."""
    config = config_flags.parse(CkaConfig())
    workdir = claim_workdir(config.workdir, config)
    path = workdir / "results.json"
    if not path.exists():
        from undivided_tf.analysis import similarity

        files.write_json(path, similarity.run_cka(config))
    from undivided_tf.study import figures

    result = files.read_json(path)
    figures.cka_heat_map(result, workdir / "cka.png")
    print(_table(result, figures.short_name))
    print(f"{path}\n{workdir / 'cka.png'}")


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
