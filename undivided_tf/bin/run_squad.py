"""Fine-tunes a pre-trained encoder on SQuAD 1.1 or 2.0, predicts and scores.

    python -m undivided_tf.bin.run_squad --init_checkpoint=runs/full --train_files=train-v1.1.json \
        --predict_file=dev-v1.1.json --workdir=runs/full_squad

Add --version_2_with_negative for SQuAD 2.0. The same command resumes an interrupted run.
"""

from undivided_tf.bin import config_flags
from undivided_tf.training.config import SquadConfig


def main(config: SquadConfig) -> None:
    """Fine-tunes, predicts and prints the scores."""
    from undivided_tf.reporting import pages, squad
    from undivided_tf.training.span_finetuning import finetune_spans

    results = finetune_spans(config)
    table = squad.table(results, config.version_2_with_negative)
    encoders = (config.init_checkpoint,)
    print(pages.present(results, config.workdir, config_flags.command(), table, None, encoders))
    for run in results["runs"]:
        print(f"predictions: {config.workdir}/run_{run['seed']}/predictions.json, nbest.json")


parse, run = config_flags.program(SquadConfig(), main)


if __name__ == "__main__":
    run()
