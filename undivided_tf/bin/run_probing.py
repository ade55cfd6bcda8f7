"""Linear probes on every tap of an encoder, beside its untrained twin and the majority class.

    python -m undivided_tf.bin.run_probing --init_checkpoint=runs/full --task=wiki_topic \
        --workdir=runs/full_wiki_topic_probes

A finished work directory is only shown again.
"""

import pathlib

from undivided_tf.bin import config_flags
from undivided_tf.recipes import ProbingConfig

config_flags.define(ProbingConfig())


def main() -> None:
    """Flags -> config -> probes, their table and their figure."""
    config = config_flags.parse(ProbingConfig())
    from undivided_tf.analysis.probing import run_probing
    from undivided_tf.study import figures

    result = run_probing(config)
    figure = pathlib.Path(config.workdir) / "probes.png"
    figures.probe_curves([result], figure)
    print(_table(result))
    print(f"results: {config.workdir}/results.json, {figure}")


def _table(result) -> str:
    """Accuracy a tap, as text."""
    lines = [
        f"{result['pattern']}, pre-training seed {result['pretraining_seed']}, {result['task']}: "
        f"{result['rows']['train']} training rows, {result['rows']['test']} of {result['split']}",
        f"{'tap':<24}{'accuracy':>10}{'untrained':>11}",
    ]
    rows = zip(result["taps"], result["accuracy"], result["untrained_accuracy"], strict=True)
    lines += [f"{tap:<24}{own:>10.3f}{untrained:>11.3f}" for tap, own, untrained in rows]
    lines.append(f"{'majority class':<24}{result['majority_accuracy']:>10.3f}")
    if result["unconverged"]:
        lines.append(f"{result['unconverged']} probes stopped before they converged")
    return "\n".join(lines)


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
