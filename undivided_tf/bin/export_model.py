"""Exports a trained model for serving: raw strings in, labels, vectors, words or answers out.

    python -m undivided_tf.bin.export_model --input=runs/half_topic/model_12345 \
        --output_dir=runs/served

Every signature that the weights support is exported: classify and classify_pair, answer,
fill_mask, embed. A model card is written beside the model. --output_format=litert and onnx take
ids of word pieces instead.
"""

from undivided_tf.bin import config_flags
from undivided_tf.export.config import ExportConfig

config_flags.define(ExportConfig())


def main() -> None:
    """Flags -> config -> export, with a model card."""
    config = config_flags.parse(ExportConfig())
    from undivided_tf.export import export
    from undivided_tf.reporting import model_card
    from undivided_tf.support import files
    from undivided_tf.workdir import new_directory

    output = new_directory(config.output_dir)
    with files.atomic_path(output) as partial:
        report = export(partial, config)
        model_card.write(partial, report)
    print(
        f"{report['encoder']['block_pattern']}, {config.dtype}: {report['parameters']:,} parameters"
    )
    for name, about in report["signatures"].items():
        print(f"{name}({', '.join(about['inputs'])}) -> {', '.join(about['outputs'])}")
    for name, size in report["files"].items():
        print(f"{name}: {size:,} bytes")
    print(f"written to {output}")


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
