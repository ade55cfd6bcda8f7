"""CKA of every tap of one encoder against every tap of another, on the same tokens.

    python -m undivided_tf.bin.run_cka --first_checkpoint=runs/full \
        --second_checkpoint=runs/undivided --workdir=runs/full_undivided_cka

Without --second_checkpoint the other is the untrained twin of the first. --measure takes SVCCA,
PWCCA, Procrustes and RSA too. A finished work directory is only shown again.
"""

from undivided_tf.analysis.config import CkaConfig
from undivided_tf.bin import config_flags
from undivided_tf.study.pairs import encoder_name

config_flags.define(CkaConfig())


def parse() -> CkaConfig:
    """Flags -> config."""
    return config_flags.parse(CkaConfig())


def main() -> None:
    """Flags -> config -> CKA, its table and its figures."""
    config = parse()
    from undivided_tf.analysis.similarity import run_cka
    from undivided_tf.study import axes, figures, pages, similarity_figures

    result = run_cka(config)
    table = f"{_table(result, axes.short_name)}\n{_references(result, similarity_figures.matched)}"
    drawn = {
        "cka": figures.cka_heat_map,
        "cka_by_depth": similarity_figures.depth_lines,
        "cka_difference": similarity_figures.difference_map,
    }
    encoders = (config.first_checkpoint, config.second_checkpoint)
    command = config_flags.command()
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def _table(result, short_name) -> str:
    """The matrix as text: rows are taps of the first encoder, columns those of the second."""
    names = [short_name(tap) for tap in result["second_taps"]]
    lines = [
        f"rows: {encoder_name(result['first'])}",
        f"columns: {encoder_name(result['second'])}",
        f"{result['estimator']}; {result['tokens']} tokens of {result['examples']} examples",
        " ".join(["     ", *(f"{name:>5}" for name in names)]),
    ]
    for tap, row in zip(result["first_taps"], result["matrix"], strict=True):
        values = ("  nan" if value is None else f"{value:5.2f}" for value in row)
        lines.append(" ".join([f"{short_name(tap):<5}", *values]))
    if result["negative"]:
        lines.append(f"{result['negative']} estimates are negative, and stand as they are")
    return "\n".join([*lines, *sorted(set(result["reasons"].values()))])


def _references(result, matched) -> str:
    """The mean over matched taps, beside the same of every reference line."""

    def mean(shown, key="matrix") -> str:
        places = matched(result["first_taps"], shown.get("second_taps", result["second_taps"]))
        values = [shown[key][i][j] for i, j in places]
        known = [value for value in values if value is not None]
        return f"{sum(known) / len(known):6.3f}" if known else "   nan"

    lines = [f"mean over matched taps {mean(result)}"]
    lines += [f"  {name:<20} {mean(shown)}" for name, shown in result["references"].items()]
    if result["without_high_norm"]:
        lines.append(f"  {'without_high_norm':<20} {mean(result['without_high_norm'])}")
    lines += [f"  {name}: {why}" for name, why in result["absent_references"].items()]
    return "\n".join(lines)


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
