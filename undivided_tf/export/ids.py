"""What a model without its tokenizer can be asked: functions of word piece ids."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.export import reference
from undivided_tf.export.inference import InferenceEncoder, Spelling, answers, masked_lm_logits
from undivided_tf.export.parts import Parts
from undivided_tf.export.signatures import answer_texts
from undivided_tf.export.texts import MASK
from undivided_tf.models.classifier import pool

_IDS = "int32 (batch, length)"
INPUTS = {
    "token_ids": f"{_IDS}, of the pieces in vocab.txt",
    "segment_ids": f"{_IDS}, 1 in a second text",
    "padding_mask": f"{_IDS}, 1 on tokens",
}


@dataclasses.dataclass(frozen=True)
class IdSignature:
    """One thing a model without its tokenizer can be asked.

    Attributes:
        name: of `config.SIGNATURES`; pairs are told by `segment_ids`, in `classify`.
        function: from int32 tensors, by name, to a dict of float32 tensors.
        inputs: from the names of the inputs to what they are.
        outputs: likewise.
        max_seq_length: word pieces a text, or a window for `answer`.
    """

    name: str
    function: Callable
    inputs: dict[str, str]
    outputs: dict[str, str]
    max_seq_length: int

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """Of the inputs, in order."""
        return [tf.TensorSpec([None, None], tf.int32, name) for name in self.inputs]

    def describe(self, differences: dict[str, float]) -> dict[str, Any]:
        """What export.json says of it, with the differences by file."""
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "max_seq_length": self.max_seq_length,
            "differences": differences,
        }


def make(
    names: tuple[str, ...], parts: Parts, spelling: Spelling, max_seq_length: int = 0
) -> list[IdSignature]:
    """The signatures of some names.

    Args:
        names: of `parts.signatures`.
        parts: the weights, in float32.
        spelling: of what will run them.
        max_seq_length: word pieces a text; 0: as for `Parts.length_of`.

    Raises:
        InputError: more word pieces than the encoder has positions.
    """
    encode = InferenceEncoder(parts.encoder, spelling)
    makers = {
        "classify": _classify,
        "answer": _answer,
        "fill_mask": functools.partial(_fill_mask, spelling=spelling),
        "embed": _embed,
    }
    names = dict.fromkeys("classify" if name == "classify_pair" else name for name in names)
    return [
        makers[name](parts, encode, length=parts.length_of(name, max_seq_length)) for name in names
    ]


def _classify(parts: Parts, encode: Callable, length: int) -> IdSignature:
    classifier, head = parts.classifier, parts.classifier_head

    def classify(token_ids, segment_ids, padding_mask):
        inputs = _inputs(token_ids, segment_ids, padding_mask)
        pooled = pool(encode(inputs, None), inputs, classifier.pooling)
        logits = classifier.head(pooled)
        return answers(head, logits)

    texts = answer_texts(head, "(batch, 1)")
    of = f", of {', '.join(head.labels)}" if head.labels else ""
    outputs = {name: texts[name] + of for name in ("probabilities", "score") if name in texts}
    return IdSignature("classify", classify, INPUTS, outputs, length)


def _answer(parts: Parts, encode: Callable, length: int) -> IdSignature:
    def answer(token_ids, segment_ids, padding_mask):
        encoded = encode(_inputs(token_ids, segment_ids, padding_mask), None)
        logits = parts.span_predictor.head(encoded["sequence_output"])
        return {"start_logits": logits[:, :, 0], "end_logits": logits[:, :, 1]}

    edges = {name: f"float32 (batch, length), of the {name} piece" for name in ("first", "last")}
    outputs = {"start_logits": edges["first"], "end_logits": edges["last"]}
    return IdSignature("answer", answer, INPUTS, outputs, length)


def _fill_mask(parts: Parts, encode: Callable, spelling: Spelling, length: int) -> IdSignature:
    def fill_mask(token_ids, segment_ids, padding_mask, masked_positions):
        inputs = _inputs(token_ids, segment_ids, padding_mask)
        masked = encode(inputs, masked_positions)["sequence_output"]
        logits = masked_lm_logits(parts.masked_lm, masked, spelling)
        return {"scores": tf.nn.softmax(logits[..., : parts.tokenizer.vocab_size])}

    inputs = {**INPUTS, "masked_positions": "int32 (batch, masks), where [MASK] stands"}
    scores = f"float32 (batch, masks, {parts.tokenizer.vocab_size}), of every word piece"
    return IdSignature("fill_mask", fill_mask, inputs, {"scores": scores}, length)


def _embed(parts: Parts, encode: Callable, length: int) -> IdSignature:
    def embed(token_ids, segment_ids, padding_mask):
        inputs = _inputs(token_ids, segment_ids, padding_mask)
        encoded = encode(inputs, None)
        found = {"mean": pool(encoded, inputs, "mean")}
        return {**found, "pooled": encoded["pooled_output"]} if parts.has_pooler else found

    hidden = f"float32 (batch, {parts.encoder.config.hidden_size})"
    outputs = {"mean": f"{hidden}, mean over all word pieces of the last tap"}
    if parts.has_pooler:
        outputs["pooled"] = f"{hidden}, the pooler on [CLS]"
    return IdSignature("embed", embed, INPUTS, outputs, length)


def _inputs(token_ids, segment_ids, padding_mask):
    return {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}


def examples(parts: Parts, name: str, length: int) -> dict[str, np.ndarray]:
    """Inputs of a signature, made of `reference.TEXTS`, to compare with the Python path."""
    encoded = parts.tokenizer.encode(list(reference.TEXTS), max_seq_length=length)
    inputs = {key: np.array(value) for key, value in encoded.items()}
    if name == "fill_mask":
        # The first piece behind [CLS]; for the empty text that is [SEP].
        inputs["masked_positions"] = np.ones((len(reference.TEXTS), 1), np.int32)
        inputs["token_ids"][:, 1] = parts.tokenizer.vocabulary.index(MASK)
    return inputs


def expected(parts: Parts, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the Keras models make of `examples`."""
    if name == "embed":
        encoded = parts.encoder(inputs, training=False)
        mean = pool(encoded, inputs, "mean")
        found = {"mean": mean, "pooled": encoded["pooled_output"]}
    elif name == "classify":
        logits = np.asarray(parts.classifier(inputs, training=False), np.float64)
        truth = parts.classifier_head.answers(logits)
        found = {"probabilities": truth, "score": truth[:, np.newaxis]}
    elif name == "answer":
        logits = parts.span_predictor(inputs, training=False)
        found = {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}
    else:
        logits = parts.masked_lm(inputs, training=False)["masked_lm_logits"]
        found = {"scores": tf.nn.softmax(logits[..., : parts.tokenizer.vocab_size])}
    return {key: np.asarray(value) for key, value in found.items()}


def largest_difference(
    parts: Parts, name: str, length: int, run: Callable[..., dict[str, np.ndarray]]
) -> float:
    """How far a converted signature is from the Keras models, at all tokens.

    Args:
        parts: the weights.
        name: of the signature.
        length: word pieces a text.
        run: the converted signature: arrays by name to arrays by name.
    """
    inputs = examples(parts, name, length)
    truth, largest = expected(parts, name, inputs), 0.0
    for key, values in run(**inputs).items():
        apart = np.abs(values - truth[key])
        if key.endswith("_logits"):  # Those of padding mean nothing.
            apart = apart[inputs["padding_mask"] == 1]
        largest = max(largest, float(apart.max()))
    return largest
