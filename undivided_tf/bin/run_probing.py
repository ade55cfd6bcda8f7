"""Linear probes on every tap of an encoder, with what their scores must be read against.

    python -m undivided_tf.bin.run_probing --init_checkpoint=runs/full \
        --task=ud:pos:UD_English-EWT --workdir=runs/full_pos_probes

A finished work directory is only shown again.
"""

from undivided_tf.analysis.config import ProbingConfig
from undivided_tf.bin import config_flags
from undivided_tf.study.pairs import encoder_name

config_flags.define(ProbingConfig())


def parse() -> ProbingConfig:
    """Flags -> config."""
    return config_flags.parse(ProbingConfig())


def main() -> None:
    """Flags -> config -> probes, their table and their figure."""
    config = parse()
    from undivided_tf.analysis.probing import run_probing
    from undivided_tf.study import pages
    from undivided_tf.study.probing_figures import probe_figure

    result = run_probing(config)
    drawn = {"probes": probe_figure}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), _table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def _table(result) -> str:
    """What was measured at each tap, as text."""
    columns = {"accuracy": result["accuracy"]}
    if result["low"][0] is not None:
        columns |= {"low": result["low"], "high": result["high"]}
    columns["untrained"] = result["untrained_accuracy"]
    for name, key in (
        ("control", "control_accuracy"),
        ("select.", "selectivity"),
        ("new types", "new_type_accuracy"),
        ("compr.", "compression"),
        ("untr. c.", "untrained_compression"),
    ):
        if result[key] and any(value is not None for value in result[key]):
            columns[name] = result[key]
    encoder = {"pattern": result["pattern"], "seed": result["pretraining_seed"], "trained": True}
    lines = [
        f"{encoder_name(encoder)}, {result['task']}: "
        f"{result['rows']['train']} training {result['unit']}, {result['rows']['test']} of "
        f"{result['split']}, {len(result['seeds'])} seed(s)",
        f"{'tap':<24}" + "".join(f"{name:>10}" for name in columns),
    ]
    for i, tap in enumerate(result["taps"]):
        values = ("-" if of[i] is None else f"{of[i]:.3f}" for of in columns.values())
        lines.append(f"{tap:<24}" + "".join(f"{value:>10}" for value in values))
    lines.append(f"{'majority class':<24}{result['majority_accuracy']:>10.3f}")
    lines.append(f"{'majority of word type':<24}{result['type_majority_accuracy']:>10.3f}")
    if result["scalar_mix"]:
        mix = result["scalar_mix"]
        lines.append(
            f"{'scalar mix':<24}{mix['accuracy']:>10.3f}  centre of gravity "
            f"{mix['centre_of_gravity']:.2f} of {len(result['taps']) - 1}"
        )
    lines.append(
        f"word types of {result['split']} that are in training: {result['seen_type_share']:.1%}; "
        f"rows left out as in training: {result['duplicates_dropped']}, as cut off: "
        f"{result['unseen_words']}"
    )
    if result["unconverged"]:
        lines.append(f"{result['unconverged']} probes stopped before they converged")
    return "\n".join(lines)


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
