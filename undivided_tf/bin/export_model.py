"""Exports a trained model for serving: from raw strings to labels, vectors, words or answers.

    python -m undivided_tf.bin.export_model --input=runs/half_topic/model_12345 \
        --output_dir=runs/served

Every signature that the weights support is exported: classify and classify_pair, answer,
fill_mask, embed. A model card is written, too. With --output_format=litert or onnx the model takes
token ids instead.
"""

from undivided_tf.bin import config_flags
from undivided_tf.export.config import ExportConfig


def main(config: ExportConfig) -> None:
    """Exports the model, writes its card and prints a summary."""
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


parse, run = config_flags.program(ExportConfig(), main)


if __name__ == "__main__":
    run()
