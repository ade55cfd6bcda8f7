"""Names of the tensors of an encoder and its heads, here and in Hugging Face's BERT."""

import dataclasses
from collections.abc import Container, Iterator

from undivided_tf.config import EncoderConfig
from undivided_tf.models.heads import ClassifierHead, head_width


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One weight.

    Attributes:
        path: our name, the path of the Keras variable, such as `encoder/pooler/kernel`.
        shape: our shape; kernels are (inputs, outputs).
        module: module in Hugging Face's BERT classes, without the prefix `bert.`, such as
            `pooler.dense`.
        part: `kernel`, `bias`, `gamma`, `beta`, `scale` (of RMS norms) or `embeddings`.
    """

    path: str
    shape: tuple[int, ...]
    module: str
    part: str


def encoder_tensors(config: EncoderConfig) -> Iterator[Tensor]:
    """All weights of an encoder, in the order of its layers.

    Pre-norm encoders have the same module names, and `final_layer_norm`.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    tables = {
        "word": config.vocab_size,
        "position": config.max_position_embeddings,
        "segment": config.type_vocab_size,
    }
    if config.position_type != "absolute":
        del tables["position"]
    for name, rows in tables.items():
        theirs = "token_type" if name == "segment" else name
        yield Tensor(
            f"encoder/embeddings/{name}_embeddings/embeddings",
            (rows, hidden),
            f"embeddings.{theirs}_embeddings",
            "embeddings",
        )
    yield from _norm("encoder/embeddings/layer_norm", hidden, "embeddings.LayerNorm")
    for block, has_norm, owns in zip(
        config.pattern, config.layer_norms, config.owns_weights, strict=True
    ):
        ours = f"encoder/{block.name.replace('/', '_')}"
        layer = f"encoder.layer.{block.index}"
        if block.kind == "attention":
            for part in ("query", "key", "value"):
                theirs = f"{layer}.attention.self.{part}"
                yield from _dense(f"{ours}/{part}", hidden, hidden, theirs)
            for part in ("query_norm", "key_norm") if config.query_key_norm else ():
                theirs = f"{layer}.attention.self.{part}"
                yield Tensor(f"{ours}/{part}/scale", (config.head_width,), theirs, "scale")
            layer += ".attention"
            yield from _dense(f"{ours}/output", hidden, hidden, f"{layer}.output.dense")
        elif owns:  # Of blocks that share weights, only the first owns them.
            yield from _dense(f"{ours}/intermediate", hidden, inner, f"{layer}.intermediate.dense")
            yield from _dense(f"{ours}/output", inner, hidden, f"{layer}.output.dense")
        if has_norm:
            yield from _norm(f"{ours}/layer_norm", hidden, f"{layer}.output.LayerNorm")
    if config.norm_first:
        yield from _norm("encoder/final_layer_norm", hidden, "final_layer_norm")
    yield from pooler_tensors(config)


def pooler_tensors(config: EncoderConfig) -> Iterator[Tensor]:
    """The pooler: a dense layer on the first token."""
    yield from _dense("encoder/pooler", config.hidden_size, config.hidden_size, "pooler.dense")


def masked_lm_tensors(config: EncoderConfig) -> Iterator[Tensor]:
    """The masked-language-model head without its matrix, which is tied to the word embeddings."""
    hidden, theirs = config.hidden_size, "cls.predictions.transform"
    yield from _dense("masked_lm_head/transform", hidden, hidden, f"{theirs}.dense")
    yield from _norm("masked_lm_head/layer_norm", hidden, f"{theirs}.LayerNorm")
    yield Tensor("masked_lm_head/output_bias", (config.vocab_size,), "cls.predictions", "bias")


def next_sentence_tensors(config: EncoderConfig) -> Iterator[Tensor]:
    """The next-sentence head."""
    yield from _dense("next_sentence_head", config.hidden_size, 2, "cls.seq_relationship")


def classifier_tensors(config: EncoderConfig, head: ClassifierHead) -> Iterator[Tensor]:
    """The head of a sequence classifier."""
    width = head_width(config.hidden_size, head.pooling)
    yield from _dense("classifier_head", width, head.outputs, "classifier")


def span_tensors(config: EncoderConfig) -> Iterator[Tensor]:
    """The head of a span predictor: start and end of an answer."""
    yield from _dense("span_head", config.hidden_size, 2, "qa_outputs")


def head_tensors(
    config: EncoderConfig, paths: Container[str], classifier: ClassifierHead | None
) -> Iterator[Tensor]:
    """The weights of all heads that `paths`, our names, contain."""
    if "masked_lm_head/output_bias" in paths:
        yield from masked_lm_tensors(config)
    if "next_sentence_head/kernel" in paths:
        yield from next_sentence_tensors(config)
    if classifier and "classifier_head/kernel" in paths:
        yield from classifier_tensors(config, classifier)
    if "span_head/kernel" in paths:
        yield from span_tensors(config)


def _dense(path: str, inputs: int, outputs: int, module: str) -> Iterator[Tensor]:
    yield Tensor(f"{path}/kernel", (inputs, outputs), module, "kernel")
    yield Tensor(f"{path}/bias", (outputs,), module, "bias")


def _norm(path: str, size: int, module: str) -> Iterator[Tensor]:
    yield Tensor(f"{path}/gamma", (size,), module, "gamma")
    yield Tensor(f"{path}/beta", (size,), module, "beta")
