"""Writes the initial weights of one size for all peers, and a seeded batch.

python start.py FOLDER '{"preset": "bert_mini", "rows": 32, "length": 128, ...}'
"""

import json
import pathlib
import sys

import numpy as np

from undivided_tf import convert
from undivided_tf.convert.config import ConversionConfig
from undivided_tf.models import checkpoints, presets
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.tokenization import Tokenizer


def main() -> None:
    """Writes our checkpoint, converts it to the other formats, and writes the batch."""
    folder, job = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [f"piece{i}" for i in range(job["vocab_size"] - len(special))]
    tokenizer = Tokenizer([*special, *pieces])
    config = presets.preset(job["preset"]).replace(
        vocab_size=tokenizer.vocab_size,
        vocabulary_hash=tokenizer.vocabulary_hash,
        do_lower_case=True,
    )
    model = Pretrainer(Encoder(config, seed=0))
    (folder / "ours").mkdir(parents=True)
    checkpoints.save_model(folder / "ours", model.trainable_variables, config, tokenizer)
    for output_format in ("huggingface", "keras_hub"):
        convert.convert(
            ConversionConfig(
                input=str(folder / "ours"),
                output_dir=str(folder / output_format),
                output_format=output_format,
            )
        )
    random = np.random.default_rng(0)
    rows, length, predictions = job["rows"], job["length"], job["predictions"]
    ids = random.integers(len(special), job["vocab_size"], (rows, length), dtype="int32")
    positions = np.stack([random.permutation(length)[:predictions] for _ in range(rows)])
    positions = np.sort(positions, axis=1).astype("int32")
    masked_ids = np.take_along_axis(ids, positions, axis=1)
    np.put_along_axis(ids, positions, tokenizer.mask_id, axis=1)
    np.savez(
        folder / "batch.npz",
        token_ids=ids,
        segment_ids=0 * ids,
        padding_mask=0 * ids + 1,
        masked_positions=positions,
        masked_ids=masked_ids,
        masked_weights=np.ones((rows, predictions), "float32"),
    )


if __name__ == "__main__":
    main()
