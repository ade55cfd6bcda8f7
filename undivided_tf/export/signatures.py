"""What a served model can be asked: functions of the graph, from raw strings to named outputs."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from undivided_tf.export import spans, texts
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.inference import answers, masked_lm_logits
from undivided_tf.export.parts import Parts
from undivided_tf.models.classifier import pool
from undivided_tf.models.heads import CLASSIFICATION, REGRESSION, ClassifierHead

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
        name: of `config.SIGNATURES`.
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
    length = parts.length_of(name, config.max_seq_length)
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
    classifier, head, tokenizer = parts.classifier, parts.classifier_head, parts.tokenizer
    labels = tf.constant(head.labels, tf.string)
    # The pooler reads the first token, so that the last blocks need compute no other.
    positions = 0 if classifier.pooling == "first" else None

    def classify(text, second_text=None):
        pair = None if second_text is None else texts.clean(second_text)
        inputs = tokenizer.encode(texts.clean(text), pair, max_seq_length=length)
        inputs = texts.without_padding(inputs, config.pad_to_multiple_of)
        first = None if positions is None else tf.zeros([tf.size(text), 1], tf.int32)
        pooled = pool(encode(inputs, first), inputs, classifier.pooling)
        logits = classifier.head(pooled)
        found = answers(head, logits)
        if head.kind == REGRESSION:
            return {"score": found["score"][:, 0]}
        found["labels"] = tf.tile(labels[tf.newaxis], [tf.size(text), 1])
        if head.kind == CLASSIFICATION:
            found["label"] = tf.gather(labels, tf.argmax(logits, axis=-1))
        return found

    names = {"labels": "string, names of the columns of `probabilities`, the same in every row"}
    return classify, answer_texts(head, "(batch,)") | ({} if head.kind == REGRESSION else names)


def answer_texts(head: ClassifierHead, scores: str) -> dict[str, str]:
    """What the outputs of a classifier are, by name.

    Args:
        head: of the classifier.
        scores: shape of the scores of a regression.
    """
    if head.kind == REGRESSION:
        within = ", within {:g} to {:g}".format(*head.score_range) if head.score_range else ""
        return {"score": f"float32 {scores}, of a regression{within}"}
    shape = f"float32 (batch, {head.outputs})"
    if head.kind == CLASSIFICATION:
        return {"label": "string (batch,), the likeliest", "probabilities": shape}
    return {"probabilities": f"{shape}, of each label by itself: they need not sum to 1"}


def _answer(parts: Parts, encode: Callable, config: ExportConfig, length: int):
    about, span_predictor = parts.span_head.with_length(length), parts.span_predictor

    def answer(question, context):
        question, context = texts.clean(question), texts.clean(context)
        windows, row = spans.make_windows(parts.tokenizer, question, context, about.windows)
        windows = texts.without_padding(windows, config.pad_to_multiple_of)
        logits = span_predictor.head(encode(windows, None)["sequence_output"])
        logits = tf.transpose(logits, [0, 2, 1])
        found = spans.best_spans(logits, windows, row, context, config.max_answer_length)
        if about.version_2_with_negative:
            is_null = found["null_odds"] > about.null_score_diff_threshold
            found["text"] = tf.where(is_null, "", found["text"])
            for edge in ("start", "end"):
                found[edge] = tf.where(is_null, 0, found[edge])
        return found

    empty = ""
    if about.version_2_with_negative:
        empty = f"; empty where null_odds exceed {about.null_score_diff_threshold:g}"
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
        found = {"mean": tf.cast(pool(encoded, inputs, "mean"), tf.float32)}
        if parts.has_pooler:
            found["pooled"] = tf.cast(encoded["pooled_output"], tf.float32)
        return found

    hidden = parts.encoder.config.hidden_size
    outputs = {"mean": f"float32 (batch, {hidden}), mean over all word pieces of the last tap"}
    if parts.has_pooler:
        outputs["pooled"] = f"float32 (batch, {hidden}), the pooler on [CLS]"
    return embed, outputs
