"""SQuAD's exact match and F1, with the keys and numbers of the official script of version 2.0.

Version 1.1's script has other keys for the same numbers: its `exact_match` is `exact` here, its
`f1` is `f1`, both in percent. The scripts differ for missing predictions (see `evaluate`) and for
answers without a word after normalisation. Needs no TensorFlow.
"""

import collections
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from undivided_tf.errors import InputError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NAMED = 10  # Number of ids that a warning lists.


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and superfluous white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_score(truth: str, prediction: str) -> int:
    """1 if both are equal after normalisation, else 0."""
    return int(normalize_answer(truth) == normalize_answer(prediction))


def f1_score(truth: str, prediction: str) -> float:
    """F1 of the multisets of words. If a side is empty, it is 1 if both are, else 0."""
    true, predicted = normalize_answer(truth).split(), normalize_answer(prediction).split()
    if not true or not predicted:
        return float(true == predicted)
    same = (collections.Counter(true) & collections.Counter(predicted)).total()
    if not same:
        return 0.0
    # The order of operations is the official script's, so the result is equal to the last bit.
    precision, recall = same / len(predicted), same / len(true)
    return 2 * precision * recall / (precision + recall)


def evaluate(
    dataset: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    predictions: Mapping[str, str],
    na_probabilities: Mapping[str, float] | None = None,
) -> dict[str, float | int]:
    """Scores predictions as evaluate-v2.0.py does, with its default threshold of 1.

    A question without a prediction is left out of `exact`, `f1` and `total`, as in the script, and
    named in a warning. On the subsets of questions with and without an answer, where the script
    raises a KeyError, it counts as wrong, since their totals are those of the data set. Predictions
    for unknown ids are left out and named in a warning.

    Args:
        dataset: the JSON of a data set, or its `data`, a list of articles; SQuAD 1.1 or 2.0.
        predictions: text by question id, empty for no answer.
        na_probabilities: by question id, the probability that there is no answer, or another score
            that grows with it. An answer with a value above 1 counts as no answer. Ties keep the
            order of this mapping.

    Returns:
        `exact`, `f1` (percent) and `total`; with the prefixes `HasAns_` and `NoAns_` the same for
        questions with and without an answer, if there are any; with `na_probabilities` also
        `best_exact`, `best_exact_thresh`, `best_f1` and `best_f1_thresh`: the best scores over all
        thresholds, and the threshold (0 if answering nothing is best).

    Raises:
        InputError: no question has a prediction, a prediction is not a string, a predicted question
            has no probability, or the data set has an id twice.

    References:
        Rajpurkar et al. 2016, arXiv 1606.05250; Rajpurkar et al. 2018, arXiv 1806.03822.
    """
    truths: dict[str, list[str]] = {}
    for id, answers in _questions(dataset):
        if id in truths:
            raise InputError(f"question id {id!r} occurs twice in the data set")
        truths[id] = answers
    exact, f1 = _raw_scores(truths, predictions)
    kept_exact, kept_f1 = exact, f1
    if na_probabilities is not None:
        missing = [id for id in exact if id not in na_probabilities]
        if missing:
            raise InputError(f"no no-answer probability for {_list(missing)}")
        null = {id for id in exact if na_probabilities[id] > 1.0}
        kept_exact, kept_f1 = (
            {id: float(not truths[id]) if id in null else score for id, score in scores.items()}
            for scores in (exact, f1)
        )
    result = _means(kept_exact, kept_f1, list(exact))
    for prefix, has_answer in (("HasAns", True), ("NoAns", False)):
        ids = [id for id, answers in truths.items() if bool(answers) is has_answer]
        if ids:
            means = _means(kept_exact, kept_f1, ids)
            result |= {f"{prefix}_{name}": value for name, value in means.items()}
    if na_probabilities is not None:
        for name, scores in (("exact", exact), ("f1", f1)):
            best, threshold = _best_threshold(truths, predictions, scores, na_probabilities)
            result |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return result


def _questions(dataset: Mapping[str, Any] | Sequence[Any]) -> Iterator[tuple[str, list[str]]]:
    """Ids of the questions and the texts of their answers."""
    try:
        articles = dataset["data"] if isinstance(dataset, Mapping) else dataset
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield question["id"], [answer["text"] for answer in question["answers"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"the data set is not in SQuAD's format: {error!r}") from error


def _raw_scores(
    truths: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> tuple[dict[str, int], dict[str, float]]:
    """Exact match and F1 of every predicted question, the maximum over its answers."""
    unknown = [id for id in predictions if id not in truths]
    if unknown:
        logging.warning("%d predictions are for unknown ids: %s", len(unknown), _list(unknown))
    missing = [id for id in truths if id not in predictions]
    if missing:
        logging.warning("%d questions have no prediction: %s", len(missing), _list(missing))
    if len(missing) == len(truths):
        raise InputError(f"none of the {len(truths)} questions has a prediction")
    exact, f1 = {}, {}
    for id, answers in truths.items():
        if id in predictions:
            text = predictions[id]
            if not isinstance(text, str):
                raise InputError(f"the prediction for {id!r} is not a string: {text!r}")
            # If there is no answer, or only answers of punctuation, the empty answer is correct.
            golds = [answer for answer in answers if normalize_answer(answer)] or [""]
            exact[id] = max(exact_score(gold, text) for gold in golds)
            f1[id] = max(f1_score(gold, text) for gold in golds)
    return exact, f1


def _means(
    exact: Mapping[str, float], f1: Mapping[str, float], ids: Sequence[str]
) -> dict[str, float | int]:
    return {
        "exact": 100.0 * sum(exact.get(id, 0) for id in ids) / len(ids),
        "f1": 100.0 * sum(f1.get(id, 0) for id in ids) / len(ids),
        "total": len(ids),
    }


def _best_threshold(
    truths: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    scores: Mapping[str, float],
    na_probabilities: Mapping[str, float],
) -> tuple[float, float]:
    """The best score over thresholds, starting with no answer to any question.

    As in the official script, a threshold may fall between equal probabilities, and questions
    without an answer count from the start even if they have no prediction.
    """
    current = best = sum(not answers for answers in truths.values())
    threshold = 0.0
    for id in sorted(na_probabilities, key=lambda id: na_probabilities[id]):
        if id in scores:
            current += scores[id] if truths[id] else -bool(predictions[id])
            if current > best:
                best, threshold = current, na_probabilities[id]
    return 100.0 * best / len(scores), threshold


def _list(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more
