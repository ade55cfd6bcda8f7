"""Fine-tunes on the tasks of GLUE and scores them as the official scorer does.

    python -m undivided_tf.bin.run_glue --init_checkpoint=runs/full --data=glue_data \
        --workdir=runs/full_glue --num_runs=5

The same command resumes an interrupted run and retries failed tasks.
"""

from undivided_tf.bin import config_flags
from undivided_tf.training.config import GlueConfig


def main(config: GlueConfig) -> None:
    """Fine-tunes on all tasks and prints the scores; fails if a task failed."""
    from undivided_tf.training import glue

    results = glue.run_glue(config, config_flags.command())
    print(glue.table(results), end="")
    print(f"results: {config.workdir}/results.json, {config.workdir}/results.md")
    if config.finetuning.write_predictions:
        print(f"submission: {config.workdir}/submission.zip")
    glue.failures(results)


parse, run = config_flags.program(GlueConfig(), main)


if __name__ == "__main__":
    run()
