"""Writes the weights of one block pattern for all peers: Hugging Face's format and our exports.

python start_serving.py FOLDER '{"preset": "bert_mini", "pattern": "A*4", "vocab_size": 30522}'
"""

import numpy as np
import serving

from undivided_tf import convert
from undivided_tf.convert.config import ConversionConfig
from undivided_tf.export import export
from undivided_tf.export.config import ExportConfig
from undivided_tf.models import checkpoints, presets
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer


def main() -> None:
    """Writes our checkpoint, and makes the other formats from it."""
    job, folder = serving.read_job()
    tokenizer = Tokenizer(serving.vocabulary(job["vocab_size"]))
    config = presets.preset(job["preset"]).replace(
        block_pattern=job["pattern"],
        vocab_size=tokenizer.vocab_size,
        vocabulary_hash=tokenizer.vocabulary_hash,
    )
    encoder = Encoder(config, seed=0)
    # At the start of training LayerNorms are the identity and biases 0, and compilers would leave
    # them out.
    random = np.random.default_rng(0)
    for weight in encoder.weights:
        if weight.dtype == "float32":
            weight.assign(weight.numpy() + random.normal(0, 0.02, weight.shape))
    ours = folder / "checkpoint"
    ours.mkdir(parents=True)
    checkpoints.save_model(ours, encoder.weights, config, tokenizer)
    convert.convert(
        ConversionConfig(
            input=str(ours), output_dir=str(folder / "huggingface"), output_format="huggingface"
        )
    )
    for name, changes in job["exports"].items():
        export(folder / name, ExportConfig(input=str(ours), signatures=("embed",), **changes))


if __name__ == "__main__":
    main()
