"""Signatures of exported models: functions of raw strings, or of token ids."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from undivided_tf.export import spans, texts
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.inference import InferenceEncoder, Operations, answers, masked_lm_logits
from undivided_tf.export.parts import Parts
from undivided_tf.models.classifier import pool
from undivided_tf.models.heads import CLASSIFICATION, REGRESSION, ClassifierHead

_TEXT = "string (batch,)"
_TEXTS = {
    "classify": {"text": _TEXT},
    "classify_pair": {"text": _TEXT, "second_text": _TEXT},
    "answer": {"question": _TEXT, "context": _TEXT},
    "fill_mask": {"text": f"{_TEXT}, with `[MASK]` in place of the word pieces to predict"},
    "embed": {"text": _TEXT},
}
_IDS = "int32 (batch, length)"
IDS = {
    "token_ids": f"{_IDS}, of the pieces in vocab.txt",
    "segment_ids": f"{_IDS}, 1 in a second text",
    "padding_mask": f"{_IDS}, 1 on tokens",
}


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function of an exported model.

    Attributes:
        name: one of `config.SIGNATURES`. `classify` of ids takes pairs, too, with `segment_ids`.
        function: from tensors, by name, to a dict of tensors with the batch as their first axis.
        inputs: descriptions of the inputs by name: all strings (batch,), or all int32
            (batch, length).
        outputs: descriptions of the outputs by name.
        max_seq_length: word pieces per text, or per window for `answer`.
    """

    name: str
    function: Callable
    inputs: dict[str, str]
    outputs: dict[str, str]
    max_seq_length: int

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """Specifications of the inputs, in order."""
        of_ids = "token_ids" in self.inputs
        shape, dtype = ([None, None], tf.int32) if of_ids else ([None], tf.string)
        return [tf.TensorSpec(shape, dtype, name) for name in self.inputs]

    def describe(self, **measured: Any) -> dict[str, Any]:
        """The entry of the signature in export.json, with measured values."""
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "max_seq_length": self.max_seq_length,
            **measured,
        }


def trace(signatures: Iterable[Signature]) -> tuple[tf.Module, dict[str, Callable]]:
    """Traces signatures for `tf.saved_model.save`: the module to save, and its graphs by name."""
    module, graphs = tf.Module(), {}
    for signature in signatures:
        function = tf.function(signature.function, signature.specs, autograph=False)
        setattr(module, signature.name, function)
        graphs[signature.name] = function.get_concrete_function()
    # Track only the variables that the graphs use, without the states of dropout.
    module.weights = list({id(v): v for graph in graphs.values() for v in graph.variables}.values())
    return module, graphs


def of_texts(name: str, parts: Parts, encode: Callable, config: ExportConfig) -> Signature:
    """A signature of raw strings.

    Args:
        name: one of `parts.signatures`.
        parts: the weights.
        encode: function from inputs and `positions` to outputs, such as an `InferenceEncoder`.
        config: lengths and numbers of results.

    Raises:
        InputError: `max_seq_length` is more than the encoder's positions.
    """
    length = parts.length_of(name, config.max_seq_length)
    make = {
        "classify": _classify,
        "classify_pair": _classify,
        "answer": _answer,
        "fill_mask": _fill_mask,
        "embed": _embed,
    }[name]
    function, outputs = make(parts, encode, config, length)
    return Signature(name, function, _TEXTS[name], outputs, length)


def _classify(parts: Parts, encode: Callable, config: ExportConfig, length: int):
    classifier, head, tokenizer = parts.classifier, parts.classifier_head, parts.tokenizer
    labels = tf.constant(head.labels, tf.string)
    # The pooler needs only the first token, so the last blocks compute no other.
    positions = 0 if classifier.pooling == "first" else None

    def classify(text, second_text=None):
        pair = None if second_text is None else texts.clean(second_text)
        inputs = tokenizer.encode(texts.clean(text), pair, max_seq_length=length)
        inputs = texts.without_padding(inputs, config)
        first = None if positions is None else tf.zeros([tf.size(text), 1], tf.int32)
        pooled = pool(encode(inputs, first), inputs, classifier.pooling)
        logits = classifier.head(pooled)
        outputs = answers(head, logits)
        if head.kind == REGRESSION:
            return {"score": outputs["score"][:, 0]}
        outputs["labels"] = tf.tile(labels[tf.newaxis], [tf.size(text), 1])
        if head.kind == CLASSIFICATION:
            outputs["label"] = tf.gather(labels, tf.argmax(logits, axis=-1))
        return outputs

    descriptions = _classifier_outputs(head, "(batch,)")
    if head.kind != REGRESSION:
        descriptions["labels"] = (
            "string, names of the columns of `probabilities`, the same in every row"
        )
    return classify, descriptions


def _classifier_outputs(head: ClassifierHead, scores: str) -> dict[str, str]:
    """Descriptions of the outputs of a classifier by name.

    Args:
        head: head of the classifier.
        scores: shape of the scores of a regression.
    """
    if head.kind == REGRESSION:
        within = ", within {:g} to {:g}".format(*head.score_range) if head.score_range else ""
        return {"score": f"float32 {scores}, of a regression{within}"}
    shape = f"float32 (batch, {head.outputs})"
    if head.kind == CLASSIFICATION:
        return {"label": "string (batch,), the most probable", "probabilities": shape}
    return {"probabilities": f"{shape}, one per label, independent: they need not sum to 1"}


def _answer(parts: Parts, encode: Callable, config: ExportConfig, length: int):
    head, span_predictor = parts.span_head.with_length(length), parts.span_predictor

    def answer(question, context):
        question, context = texts.clean(question), texts.clean(context)
        windows, row = spans.make_windows(parts.tokenizer, question, context, head.windows)
        windows = texts.without_padding(windows, config)
        logits = span_predictor.head(encode(windows, None)["sequence_output"])
        logits = tf.transpose(logits, [0, 2, 1])
        best = spans.best_spans(logits, windows, row, context, config.max_answer_length)
        if head.version_2_with_negative:
            is_null = best["null_odds"] > head.null_score_diff_threshold
            best["text"] = tf.where(is_null, "", best["text"])
            for edge in ("start", "end"):
                best[edge] = tf.where(is_null, 0, best[edge])
        return best

    empty = ""
    if head.version_2_with_negative:
        empty = f"; empty where null_odds exceed {head.null_score_diff_threshold:g}"
    return answer, {
        "text": f"string (batch,), a substring of the context{empty}",
        "start": "int32 (batch,), its first character in the context",
        "end": "int32 (batch,), the character after its last",
        "score": "float32 (batch,), sum of the logits of start and end",
        "null_odds": "float32 (batch,), score of no answer minus `score`",
    }


def _fill_mask(parts: Parts, encode: Callable, config: ExportConfig, length: int):
    tokenizer = parts.tokenizer
    vocabulary = tf.constant(tokenizer.vocabulary, tf.string)
    k = min(config.top_k, tokenizer.vocab_size)

    def fill_mask(text):
        pieces = texts.tokenize_with_masks(tokenizer, texts.clean(text))
        inputs = tokenizer.pack([pieces], length)
        inputs = texts.without_padding(inputs, config)
        positions, count = texts.mask_positions(inputs["token_ids"], tokenizer.mask_id)
        masked = encode(inputs, positions)["sequence_output"]
        # Embedding rows beyond the vocabulary have no word piece.
        logits = masked_lm_logits(parts.masked_lm, masked)[..., : tokenizer.vocab_size]
        scores, ids = tf.math.top_k(tf.nn.softmax(logits), k)
        used = tf.sequence_mask(count, tf.shape(positions)[1])[..., tf.newaxis]
        return {
            "tokens": tf.where(used, tf.gather(vocabulary, ids), ""),
            "scores": tf.where(used, scores, 0.0),
            "mask_count": count,
        }

    return fill_mask, {
        "tokens": f"string (batch, masks, {k}), the most probable first",
        "scores": f"float32 (batch, masks, {k}), their probabilities",
        "mask_count": "int32 (batch,), number of `[MASK]` in a text within its length; unused "
        "slots have empty tokens and scores of 0",
    }


def _embed(parts: Parts, encode: Callable, config: ExportConfig, length: int):
    def embed(text):
        inputs = parts.tokenizer.encode(texts.clean(text), max_seq_length=length)
        inputs = texts.without_padding(inputs, config)
        encoded = encode(inputs, None)
        outputs = {"mean": tf.cast(pool(encoded, inputs, "mean"), tf.float32)}
        if parts.has_pooler:
            outputs["pooled"] = tf.cast(encoded["pooled_output"], tf.float32)
        return outputs

    return embed, _embed_outputs(parts)


def _embed_outputs(parts: Parts) -> dict[str, str]:
    """Descriptions of the outputs of `embed` by name."""
    hidden = f"float32 (batch, {parts.encoder.config.hidden_size})"
    outputs = {"mean": f"{hidden}, mean over all word pieces of the last tap"}
    return {**outputs, "pooled": f"{hidden}, the pooler on [CLS]"} if parts.has_pooler else outputs


def of_ids(
    names: tuple[str, ...], parts: Parts, operations: Operations, max_seq_length: int = 0
) -> list[Signature]:
    """Signatures of token ids, for a model without its tokenizer.

    Args:
        names: some of `parts.signatures`.
        parts: the weights, in float32.
        operations: operations that suit the runtime.
        max_seq_length: word pieces per text; 0: see `Parts.length_of`.

    Raises:
        InputError: more word pieces than the encoder has positions.
    """
    encode = InferenceEncoder(parts.encoder, operations)
    makers = {
        "classify": _classify_ids,
        "answer": _answer_ids,
        "fill_mask": functools.partial(_fill_mask_ids, operations=operations),
        "embed": _embed_ids,
    }
    names = dict.fromkeys("classify" if name == "classify_pair" else name for name in names)
    return [
        makers[name](parts, encode, length=parts.length_of(name, max_seq_length)) for name in names
    ]


def _classify_ids(parts: Parts, encode: Callable, length: int) -> Signature:
    classifier, head = parts.classifier, parts.classifier_head

    def classify(token_ids, segment_ids, padding_mask):
        inputs = _inputs(token_ids, segment_ids, padding_mask)
        pooled = pool(encode(inputs, None), inputs, classifier.pooling)
        return answers(head, classifier.head(pooled))

    described = _classifier_outputs(head, "(batch, 1)")
    of = f", of {', '.join(head.labels)}" if head.labels else ""
    outputs = {name: text + of for name, text in described.items() if name != "label"}
    return Signature("classify", classify, IDS, outputs, length)


def _answer_ids(parts: Parts, encode: Callable, length: int) -> Signature:
    def answer(token_ids, segment_ids, padding_mask):
        encoded = encode(_inputs(token_ids, segment_ids, padding_mask), None)
        logits = parts.span_predictor.head(encoded["sequence_output"])
        return {"start_logits": logits[:, :, 0], "end_logits": logits[:, :, 1]}

    edges = {name: f"float32 (batch, length), of the {name} piece" for name in ("first", "last")}
    outputs = {"start_logits": edges["first"], "end_logits": edges["last"]}
    return Signature("answer", answer, IDS, outputs, length)


def _fill_mask_ids(
    parts: Parts, encode: Callable, operations: Operations, length: int
) -> Signature:
    def fill_mask(token_ids, segment_ids, padding_mask, masked_positions):
        inputs = _inputs(token_ids, segment_ids, padding_mask)
        masked = encode(inputs, masked_positions)["sequence_output"]
        logits = masked_lm_logits(parts.masked_lm, masked, operations)
        return {"scores": tf.nn.softmax(logits[..., : parts.tokenizer.vocab_size])}

    inputs = {**IDS, "masked_positions": "int32 (batch, masks), positions of [MASK]"}
    scores = f"float32 (batch, masks, {parts.tokenizer.vocab_size}), of every word piece"
    return Signature("fill_mask", fill_mask, inputs, {"scores": scores}, length)


def _embed_ids(parts: Parts, encode: Callable, length: int) -> Signature:
    def embed(token_ids, segment_ids, padding_mask):
        inputs = _inputs(token_ids, segment_ids, padding_mask)
        encoded = encode(inputs, None)
        outputs = {"mean": pool(encoded, inputs, "mean")}
        return {**outputs, "pooled": encoded["pooled_output"]} if parts.has_pooler else outputs

    return Signature("embed", embed, IDS, _embed_outputs(parts), length)


def _inputs(token_ids, segment_ids, padding_mask):
    return {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}
