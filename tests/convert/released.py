"""A released BERT, made up: the folder that Hugging Face's `save_pretrained` would write."""

import json
import string

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 60, "hidden_size": 8,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 12, "type_vocab_size": 2, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12, "position_embedding_type": "absolute",
}  # fmt: skip
PIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "bird",
    *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase),
]  # fmt: skip


def weights(heads=(), seed=0):
    """Random tensors of BertModel, and of the heads `cls` (BertForPreTraining), `classifier`,
    `qa_outputs`."""
    random = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (60, 8),
        "embeddings.position_embeddings.weight": (12, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
        "embeddings.LayerNorm.weight": (8,),
        "embeddings.LayerNorm.bias": (8,),
    }

    def dense(name, inputs, outputs):
        shapes.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name):
        shapes.update({f"{name}.LayerNorm.weight": (8,), f"{name}.LayerNorm.bias": (8,)})

    for layer in ("encoder.layer.0", "encoder.layer.1"):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            dense(f"{layer}.attention.{part}", 8, 8)
        norm(f"{layer}.attention.output")
        dense(f"{layer}.intermediate.dense", 8, 16)
        dense(f"{layer}.output.dense", 16, 8)
        norm(f"{layer}.output")
    dense("pooler.dense", 8, 8)
    if "cls" in heads:
        dense("cls.predictions.transform.dense", 8, 8)
        norm("cls.predictions.transform")
        shapes["cls.predictions.bias"] = (60,)
        dense("cls.seq_relationship", 8, 2)
    if "classifier" in heads:
        dense("classifier", 8, 3)
    if "qa_outputs" in heads:
        dense("qa_outputs", 8, 2)
    return {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def write(folder, tensors=None, pieces=PIECES, **changes):
    """Writes the folder; a change to None removes the key of the config."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights() if tensors is None else tensors, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return folder
