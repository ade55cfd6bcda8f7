"""A small BERT with random weights, in the folders of Hugging Face, of Google and of ours."""

import json
import string

import numpy as np
import tensorflow as tf
from conftest import tiny_config
from safetensors.numpy import save_file

from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.tokenization import Tokenizer

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


GOOGLE = {"LayerNorm.weight": "LayerNorm/gamma", "LayerNorm.bias": "LayerNorm/beta"}


def google_variables(tensors):
    """The made-up BERT under Google's names, in Google's layout."""
    variables = {}
    for name, value in tensors.items():
        for theirs, ours in GOOGLE.items():
            name = name.replace(theirs, ours)
        if name.endswith("_embeddings.weight"):
            name = name.removesuffix(".weight")
        elif name.startswith(("cls.seq_relationship.", "qa_outputs.")):
            name = name.replace("qa_outputs", "cls.squad")
            name = name.replace("weight", "output_weights").replace(".bias", ".output_bias")
        elif name == "cls.predictions.bias":
            name = "cls.predictions.output_bias"
        elif name.endswith(".weight"):
            name, value = name.removesuffix("weight") + "kernel", value.T
        name = name.replace("encoder.layer.", "encoder.layer_").replace(".", "/")
        variables[name if name.startswith("cls/") else f"bert/{name}"] = value
    return variables


def write_google(folder, variables):
    folder.mkdir()
    keys = list(variables)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "bert_model.ckpt"), tensor_names=keys,
        shape_and_slices=[""] * len(keys), tensors=[variables[key] for key in keys],
    )  # fmt: skip
    leave_out = ("model_type", "architectures", "layer_norm_eps", "position_embedding_type")
    config = {key: value for key, value in CONFIG.items() if key not in leave_out}
    (folder / "bert_config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    return folder


def write_ours(folder, **changes):
    """A checkpoint of ours with random weights and the masked-language-model head."""
    tokenizer = Tokenizer(PIECES)
    config = tiny_config(vocab_size=60, vocabulary_hash=tokenizer.vocabulary_hash, **changes)
    model = Pretrainer(Encoder(config, seed=1))
    folder.mkdir()
    checkpoints.save_model(folder, model.weights, config, tokenizer)
    return model.encoder
