"""Fine-tunes a pre-trained encoder on a labelled task, with several seeds.

    python -m undivided_tf.bin.run_finetuning --init_checkpoint=runs/full --task=wiki_topic \
        --workdir=runs/full_wiki_topic --num_runs=3

Add --from_scratch for the baseline: the same encoder with random weights.
"""

from undivided_tf.bin import config_flags
from undivided_tf.training.config import FinetuningConfig

config_flags.define(FinetuningConfig())


def main() -> None:
    """Flags -> config -> finetune."""
    config = config_flags.parse(FinetuningConfig())
    from undivided_tf.metrics.inference import summarize
    from undivided_tf.training import learning
    from undivided_tf.training.finetuning import finetune

    results = finetune(config)
    print(f"{results['task']}, {results['pattern']}, {results['start']}")
    for split, majority in results["majority"].items():
        for metric in results["runs"][0][split]:
            values = [run[split][metric] for run in results["runs"]]
            summary = summarize(values)
            interval = (
                ""
                if summary["low"] is None
                else f", 95 % interval {summary['low']:.4f} to {summary['high']:.4f}"
            )
            print(f"  {split} {metric}: mean {summary['mean']:.4f}, n {summary['n']}{interval}")
        print(f"  {split} {results['primary']} of a constant answer: {majority:.4f}")
    for warning in learning.warnings(() if config.from_scratch else (config.init_checkpoint,)):
        print(warning)
    print(f"results: {config.workdir}/results.json")


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
