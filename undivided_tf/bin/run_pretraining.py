"""Pre-trains an encoder of any block pattern on prepared records.

    python -m undivided_tf.bin.run_pretraining --records_dir=records --workdir=runs/full \
        --preset=bert_tiny --block_pattern='(AI)*2' --num_train_steps=1000 --num_warmup_steps=100

The same command resumes an interrupted run. Flags of sizes override --preset. --init_checkpoint
starts from an encoder, for example after surgery, and --teacher_checkpoint distils another into it.
"""

from absl import flags

from undivided_tf.bin import config_flags
from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.models import presets
from undivided_tf.training.config import PretrainingConfig

config_flags.define(PretrainingConfig())
flags.DEFINE_boolean("dry_run", False, "Show size, memory, speed and end of the run, and leave.")
flags.DEFINE_enum("preset", "bert_base", presets.NAMES, "Sizes of the encoder.")
flags.DEFINE_boolean(
    "do_whole_word_mask", False, "google-research/bert's name for --masking_unit=whole_word."
)


def parse() -> PretrainingConfig:
    """The config of the flags; flags of sizes override the preset.

    The sizes of `init_checkpoint` replace those of the preset.
    """
    encoder = presets.preset(flags.FLAGS.preset)
    if flags.FLAGS.init_checkpoint:
        from undivided_tf.models import checkpoints

        path = checkpoints.resolve(flags.FLAGS.init_checkpoint)
        encoder = EncoderConfig.from_json(path / checkpoints.ENCODER)
    unit = flags.FLAGS["masking_unit"]
    if flags.FLAGS.do_whole_word_mask and unit.present and unit.value != "whole_word":
        raise InputError(
            f"--do_whole_word_mask and --masking_unit={unit.value} contradict each other: leave "
            "one out"
        )
    base = PretrainingConfig(
        encoder=encoder,
        masking_unit="whole_word" if flags.FLAGS.do_whole_word_mask else "token",
    )
    return config_flags.parse(base)


def main() -> None:
    """Pre-trains, prints a summary and draws figures; or estimates the cost of the run."""
    config = parse()
    if flags.FLAGS.dry_run:
        from undivided_tf.training import dry_run

        print(dry_run.describe(dry_run.dry_run(config)))
        return
    from undivided_tf.reporting import pages, pretraining
    from undivided_tf.training.pretraining import pretrain

    results = pretrain(config)
    command, table = config_flags.command(), pretraining.table(results)
    print(pages.present(results, config.workdir, command, table, pretraining.figures(results)))


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
