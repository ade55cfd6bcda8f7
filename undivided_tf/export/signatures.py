"""What a served model can be asked: functions of the graph, from raw strings to named outputs."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from undivided_tf.export import spans, texts
from undivided_tf.export.inference import masked_lm_logits
from undivided_tf.export.parts import Parts
from undivided_tf.models.classifier import pool
from undivided_tf.recipes import ExportConfig

_TEXT = "string (batch,)"
_INPUTS = {
    "classify": {"text": _TEXT},
    "classify_pair": {"text": _TEXT, "second_text": _TEXT},
    "answer": {"question": _TEXT, "context": _TEXT},
    "fill_mask": {"text": f"{_TEXT}, with `[MASK]` where a word piece is asked for"},
    "embed": {"text": _TEXT},
}


@dataclasses.dataclass(frozen=True)
class Signature:
    """One thing a served model can be asked.

    Attributes:
        name: of `recipes.SIGNATURES`.
        function: from string tensors (batch,), by name, to a dict of tensors that all have the
            batch as their first axis.
        inputs: from the names of the inputs to what they are.
        max_seq_length: word pieces a text, or a window for `answer`.
        outputs: from the names of the outputs to what they are.
    """

    name: str
    function: Callable
    inputs: dict[str, str]
    max_seq_length: int
    outputs: dict[str, str]


def make(name: str, parts: Parts, encode: Callable, config: ExportConfig) -> Signature:
    """One signature.

    Args:
        name: of `parts.signatures`.
        parts: the weights.
        encode: as `Encoder.call` without training: from inputs and `positions` to outputs.
        config: lengths and numbers.

    Raises:
        InputError: the encoder has not so many positions.
    """
    length = config.max_seq_length or {
        "classify": parts.classifier_length,
        "classify_pair": parts.classifier_length,
        "answer": parts.windows.get("max_seq_length", 0),
    }.get(name, 0)
    length = length or parts.encoder.config.max_position_embeddings
    parts.encoder.config.require_length(length)
    make_one = {
        "classify": _classify,
        "classify_pair": _classify,
        "answer": _answer,
        "fill_mask": _fill_mask,
        "embed": _embed,
    }[name]
    function, outputs = make_one(parts, encode, config, length)
    return Signature(name, function, _INPUTS[name], length, outputs)


def _classify(parts: Parts, encode: Callable, config: ExportConfig, length: int):
    classifier, tokenizer = parts.classifier, parts.tokenizer
    labels = tf.constant(classifier.labels, tf.string)
    # The pooler reads the first token, so that the last blocks need compute no other.
    positions = 0 if classifier.pooling == "first" else None

    def classify(text, second_text=None):
        pair = None if second_text is None else texts.clean(second_text)
        inputs = tokenizer.encode(texts.clean(text), pair, max_seq_length=length)
        inputs = texts.without_padding(inputs, config.pad_to_multiple_of)
        first = None if positions is None else tf.zeros([tf.size(text), 1], tf.int32)
        pooled = pool(encode(inputs, first), inputs["padding_mask"], classifier.pooling)
        logits = classifier.head(pooled)
        if not classifier.labels:
            return {"score": logits[:, 0]}
        return {
            "label": tf.gather(labels, tf.argmax(logits, axis=-1)),
            "probabilities": tf.nn.softmax(logits),
            "labels": tf.tile(labels[tf.newaxis], [tf.size(text), 1]),
        }

    if not classifier.labels:
        return classify, {"score": "float32 (batch,), of a regression"}
    return classify, {
        "label": "string (batch,), the likeliest",
        "probabilities": f"float32 (batch, {len(classifier.labels)})",
        "labels": "string, names of the columns of `probabilities`, the same in every row",
    }


def _answer(parts: Parts, encode: Callable, config: ExportConfig, length: int):
    about, span_predictor = parts.windows_of(length), parts.span_predictor

    def answer(question, context):
        question, context = texts.clean(question), texts.clean(context)
        windows, row = spans.make_windows(parts.tokenizer, question, context, about)
        windows = texts.without_padding(windows, config.pad_to_multiple_of)
        logits = span_predictor.head(encode(windows, None)["sequence_output"])
        logits = tf.transpose(logits, [0, 2, 1])
        found = spans.best_spans(logits, windows, row, context, config.max_answer_length)
        if about["version_2_with_negative"]:
            is_null = found["null_odds"] > about["null_score_diff_threshold"]
            found["text"] = tf.where(is_null, "", found["text"])
            for edge in ("start", "end"):
                found[edge] = tf.where(is_null, 0, found[edge])
        return found

    empty = ""
    if about["version_2_with_negative"]:
        empty = f"; empty where null_odds exceed {about['null_score_diff_threshold']:g}"
    return answer, {
        "text": f"string (batch,), a substring of the context{empty}",
        "start": "int32 (batch,), its first character in the context",
        "end": "int32 (batch,), the character behind its last",
        "score": "float32 (batch,), sum of the logits of start and end",
        "null_odds": "float32 (batch,), score of no answer less `score`",
    }


def _fill_mask(parts: Parts, encode: Callable, config: ExportConfig, length: int):
    tokenizer = parts.tokenizer
    vocabulary = tf.constant(tokenizer.vocabulary, tf.string)
    k = min(config.top_k, tokenizer.vocab_size)

    def fill_mask(text):
        pieces = texts.tokenize_with_masks(tokenizer, texts.clean(text))
        inputs = tokenizer.pack([pieces], length)
        inputs = texts.without_padding(inputs, config.pad_to_multiple_of)
        positions, count = texts.mask_positions(inputs["token_ids"], tokenizer.mask_id)
        masked = encode(inputs, positions)["sequence_output"]
        # Embedding rows behind the vocabulary have no word piece to answer with.
        logits = masked_lm_logits(parts.masked_lm, masked)[..., : tokenizer.vocab_size]
        scores, ids = tf.math.top_k(tf.nn.softmax(logits), k)
        used = tf.sequence_mask(count, tf.shape(positions)[1])[..., tf.newaxis]
        return {
            "tokens": tf.where(used, tf.gather(vocabulary, ids), ""),
            "scores": tf.where(used, scores, 0.0),
            "mask_count": count,
        }

    return fill_mask, {
        "tokens": f"string (batch, masks, {k}), the likeliest first",
        "scores": f"float32 (batch, masks, {k}), their probabilities",
        "mask_count": "int32 (batch,), how many `[MASK]` a text has within its length; slots "
        "beyond hold empty tokens and scores of 0, also where a text has none",
    }


def _embed(parts: Parts, encode: Callable, config: ExportConfig, length: int):
    def embed(text):
        inputs = parts.tokenizer.encode(texts.clean(text), max_seq_length=length)
        inputs = texts.without_padding(inputs, config.pad_to_multiple_of)
        encoded = encode(inputs, None)
        found = {"mean": tf.cast(pool(encoded, inputs["padding_mask"], "mean"), tf.float32)}
        if parts.has_pooler:
            found["pooled"] = tf.cast(encoded["pooled_output"], tf.float32)
        return found

    hidden = parts.encoder.config.hidden_size
    outputs = {"mean": f"float32 (batch, {hidden}), mean over all word pieces of the last tap"}
    if parts.has_pooler:
        outputs["pooled"] = f"float32 (batch, {hidden}), the pooler on [CLS]"
    return embed, outputs
