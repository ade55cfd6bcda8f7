"""Linear probes on every tap of an encoder, beside its untrained twin and the majority class.

Writes results.json and probes.png into the work directory and prints the accuracies; a
finished work directory is only printed again.
"""

from undivided_tf import files
from undivided_tf.bin import config_flags
from undivided_tf.config import claim_workdir
from undivided_tf.recipes import ProbingConfig

config_flags.define(ProbingConfig())


def main() -> None:
    """Probes the checkpoint that the flags name."""
    config = config_flags.parse(ProbingConfig())
    workdir = claim_workdir(config.workdir, config)
    path = workdir / "results.json"
    if not path.exists():
        from undivided_tf.analysis import probing

        files.write_json(path, probing.run_probing(config))
    from undivided_tf.study import figures

    result = files.read_json(path)
    figures.probe_curves([result], workdir / "probes.png")
    print(_table(result))
    print(f"{path}\n{workdir / 'probes.png'}")


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
