"""Our pre-training, by the flags of a recipe."""

import sys

import learning

from undivided_tf.support import process


def main() -> None:
    """Trains until the budget is spent."""
    process.set_up()
    job, folder = learning.read_job()
    from absl import flags

    from undivided_tf.bin import run_pretraining

    flags.FLAGS(
        [
            sys.argv[0],
            f"--flagfile={job['recipe']}",
            f"--records_dir={job['records_dir']}",
            f"--workdir={folder / 'ours'}",
            f"--num_train_steps={job['steps']}",
            f"--num_warmup_steps={job['steps'] // 10}",
            "--max_eval_rows=1024",
        ]
    )
    config = run_pretraining.parse()
    from undivided_tf.data.corpus import records
    from undivided_tf.training.pretraining import Trainer

    trainer = Trainer(config)
    # Compiled before the clock runs, since the scoring of the others is not timed either.
    first = trainer.evaluate()
    pieces = config.train_batch_size * records.read_metadata(job["records_dir"])["max_seq_length"]
    watch = learning.Watch(
        job,
        lambda: trainer.evaluate()["loss"],
        pieces,
        neighbour_model_loss=first["neighbour_model_loss"],
    )
    for step, batch in enumerate(trainer.batches(0), start=1):
        trainer.step(batch)
        if not watch.step_done(step) or step == job["steps"]:
            break


if __name__ == "__main__":
    main()
