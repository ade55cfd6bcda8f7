"""Reference outputs of the Keras models in Python, to compare exported models with."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special
import tensorflow as tf

from undivided_tf.data.tasks.answers import predict_answers
from undivided_tf.data.tasks.squad import Question
from undivided_tf.data.tasks.windows import make_windows
from undivided_tf.errors import InputError
from undivided_tf.export.parts import Parts
from undivided_tf.export.texts import MASK
from undivided_tf.models.classifier import pool
from undivided_tf.training.span_finetuning import window_logits

# Short, long and empty texts, accents, unknown words, and characters of three bytes.
TEXTS = (
    "The cat sat on the mat, and the dog ran up the hill.",
    "",
    "A naïve café owner: \N{SNOWMAN} \N{SNOWMAN}!",
    "zxqv " * 7,
    "One bird sang in that tree; " * 30,
)
QUESTIONS = ("Where did the cat sit?", "Who?", "What is \N{SNOWMAN}?", "zxqv?", "Where?")


# === Raw strings ===


def classify(parts: Parts, texts: Sequence[str], seconds: Sequence[str] | None, length: int):
    """The predictions of the head, float64: probabilities (texts, labels), or scores (texts,)."""
    pair = None if seconds is None else list(seconds)
    inputs = parts.tokenizer.encode(list(texts), pair, max_seq_length=length)
    return of_ids(parts, "classify", inputs)["probabilities"]


def embed(parts: Parts, texts: Sequence[str], length: int) -> dict[str, np.ndarray]:
    """`mean` and `pooled`, (texts, hidden) each."""
    inputs = parts.tokenizer.encode(list(texts), max_seq_length=length)
    return of_ids(parts, "embed", inputs)


def fill_mask(parts: Parts, texts: Sequence[str], length: int) -> list[np.ndarray]:
    """For each text the probabilities (masks, vocabulary) at every [MASK] within `length`."""
    tokenizer, probabilities = parts.tokenizer, []
    for text in texts:
        ids: list[int] = []
        for part in tokenizer.tokenize(text.split(MASK)).to_list():
            ids += [*part, tokenizer.mask_id]
        ids = [tokenizer.cls_id, *ids[:-1][: length - 2], tokenizer.sep_id]
        token_ids = np.array([ids], np.int32)
        positions = np.flatnonzero(token_ids[0] == tokenizer.mask_id)[np.newaxis]
        if not positions.size:
            probabilities.append(np.zeros((0, tokenizer.vocab_size)))
            continue
        inputs = {
            "token_ids": token_ids,
            "segment_ids": np.zeros_like(token_ids),
            "padding_mask": np.ones_like(token_ids),
            "masked_positions": positions.astype(np.int32),
        }
        logits = parts.masked_lm(inputs, training=False)["masked_lm_logits"]
        logits = np.asarray(logits[0], np.float64)[:, : tokenizer.vocab_size]
        probabilities.append(scipy.special.softmax(logits, -1))
    return probabilities


def answer(
    parts: Parts,
    questions: Sequence[str],
    contexts: Sequence[str],
    length: int,
    max_answer_length: int,
) -> list[dict[str, Any]]:
    """For each question the best span, `text`, and `null_odds`.

    Args:
        parts: the weights.
        questions: texts.
        contexts: one per question.
        length: word pieces per window.
        max_answer_length: largest number of word pieces of an answer.
    """
    examples = [
        Question(id=str(i), question=question, context=context, answers=(), place=f"example {i}")
        for i, (question, context) in enumerate(zip(questions, contexts, strict=True))
    ]
    windows = make_windows(examples, parts.tokenizer, **parts.span_head.with_length(length).windows)
    predictions = predict_answers(
        examples,
        windows,
        window_logits(parts.span_predictor, windows, 8),
        n_best_size=1,
        max_answer_length=max_answer_length,
        version_2_with_negative=False,
    )
    return [
        {"text": predictions.texts[q.id], "null_odds": predictions.null_odds[q.id]}
        for q in examples
    ]


def largest_difference(
    name: str, served: Any, parts: Parts, length: int, max_answer_length: int
) -> float:
    """The largest difference of a served signature from the reference, over `TEXTS`.

    Args:
        name: name of the signature.
        served: the loaded signature, a function from string tensors by name to tensors by name.
        parts: the weights in float32.
        length: word pieces per text or window.
        max_answer_length: largest number of word pieces of an answer.

    Returns:
        Difference of probabilities, scores, activations or null odds.
    """

    def call(**strings):
        outputs = served(**{key: tf.constant(value) for key, value in strings.items()})
        return {key: value.numpy() for key, value in outputs.items()}

    if name in ("classify", "classify_pair"):
        pair = QUESTIONS if name == "classify_pair" else None
        strings = {"text": TEXTS} | ({"second_text": pair} if pair else {})
        outputs = call(**strings)
        predictions = outputs["probabilities" if "probabilities" in outputs else "score"]
        return _difference(predictions, classify(parts, TEXTS, pair, length))
    if name == "embed":
        outputs, expected = call(text=TEXTS), embed(parts, TEXTS, length)
        return max(_difference(values, expected[kind]) for kind, values in outputs.items())
    if name == "fill_mask":
        masked = [f"[MASK] {text} [MASK]" for text in TEXTS]
        outputs = call(text=masked)
        expected = fill_mask(parts, masked, length)
        k = outputs["scores"].shape[-1]
        return max(
            _difference(scores[: len(all_of)], -np.sort(-all_of, axis=-1)[:, :k])
            for scores, all_of in zip(outputs["scores"], expected, strict=True)
        )
    if name == "answer":
        outputs = call(question=QUESTIONS, context=TEXTS)
        expected = answer(parts, QUESTIONS, TEXTS, length, max_answer_length)
        odds = np.array([row["null_odds"] for row in expected])
        return _difference(outputs["null_odds"], odds)
    raise InputError(f"unknown signature {name!r}")


def _difference(values: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(values, np.float64) - expected).max(initial=0.0))


# === Token ids ===


def example_ids(parts: Parts, name: str, length: int) -> dict[str, np.ndarray]:
    """Inputs of a signature, made from `TEXTS`."""
    encoded = parts.tokenizer.encode(list(TEXTS), max_seq_length=length)
    inputs = {key: np.array(value) for key, value in encoded.items()}
    if name == "fill_mask":
        # The first piece after [CLS]; for the empty text this is [SEP].
        inputs["masked_positions"] = np.ones((len(TEXTS), 1), np.int32)
        inputs["token_ids"][:, 1] = parts.tokenizer.vocabulary.index(MASK)
    return inputs


def of_ids(parts: Parts, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of the Keras models for `inputs`, such as those of `example_ids`."""
    if name == "embed":
        encoded = parts.encoder(inputs, training=False)
        mean = pool(encoded, inputs, "mean")
        outputs = {"mean": mean, "pooled": encoded["pooled_output"]}
    elif name == "classify":
        logits = np.asarray(parts.classifier(inputs, training=False), np.float64)
        predictions = parts.classifier_head.answers(logits)
        outputs = {"probabilities": predictions, "score": predictions[:, np.newaxis]}
    elif name == "answer":
        logits = parts.span_predictor(inputs, training=False)
        outputs = {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}
    else:
        logits = parts.masked_lm(inputs, training=False)["masked_lm_logits"]
        outputs = {"scores": tf.nn.softmax(logits[..., : parts.tokenizer.vocab_size])}
    return {key: np.asarray(value) for key, value in outputs.items()}


def largest_difference_of_ids(
    parts: Parts, name: str, length: int, run: Callable[..., dict[str, np.ndarray]]
) -> float:
    """The largest difference of a converted signature from the Keras models, over all tokens.

    Args:
        parts: the weights.
        name: name of the signature.
        length: word pieces per text.
        run: the converted signature, a function from arrays by name to arrays by name.
    """
    inputs = example_ids(parts, name, length)
    expected, largest = of_ids(parts, name, inputs), 0.0
    for key, values in run(**inputs).items():
        differences = np.abs(values - expected[key])
        if key.endswith("_logits"):  # Logits of padding have no meaning.
            differences = differences[inputs["padding_mask"] == 1]
        largest = max(largest, float(differences.max()))
    return largest
