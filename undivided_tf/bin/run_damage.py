"""What cutting 0, 1, 2 ... intermediate blocks costs, without training and after fine-tuning.

    python -m undivided_tf.bin.run_damage --flagfile=flags/damage_minilm.flags

Blocks go in the order that does least damage. Measures without training (--zero_shot) come first;
with --nofinetune there are no others. The same command resumes an interrupted run.
"""

from undivided_tf.bin import config_flags
from undivided_tf.surgery.config import DamageConfig


def main(config: DamageConfig) -> None:
    """Measures the damage of cuts; prints its tables."""
    from undivided_tf.reporting.damage import damage_table, zero_shot_table
    from undivided_tf.study import damage

    results = damage.run_damage(config, config_flags.command())
    if results["zero_shot"]:
        print(zero_shot_table(results) + "\n")
    print(damage_table(results))
    print(f"results: {config.workdir}/results.json, results.md, damage (.png, .svg)")
    damage.failures(results)


parse, run = config_flags.program(DamageConfig(), main)


if __name__ == "__main__":
    run()
