"""Fine-tunes a pre-trained encoder on a labelled task, with several seeds.

    python -m undivided_tf.bin.run_finetuning --init_checkpoint=runs/full --task=wiki_topic \
        --workdir=runs/full_wiki_topic --num_runs=3

Add --from_scratch for the baseline: the same encoder with random weights.
"""

from undivided_tf.bin import config_flags
from undivided_tf.training.config import FinetuningConfig


def main(config: FinetuningConfig) -> None:
    """Fine-tunes and prints the scores."""
    from undivided_tf.reporting.finetuning import table
    from undivided_tf.training import learning
    from undivided_tf.training.finetuning import finetune

    print(table(finetune(config)))
    for warning in learning.warnings(() if config.from_scratch else (config.init_checkpoint,)):
        print(warning)
    print(f"results: {config.workdir}/results.json")


parse, run = config_flags.program(FinetuningConfig(), main)


if __name__ == "__main__":
    run()
