"""The scorer against a second one, written from the description of the official script."""

from random import Random

import hypothesis
import pytest
from hypothesis import strategies

from undivided_tf.errors import InputError
from undivided_tf.metrics.squad import evaluate, normalize_answer

WORDS = ("a", "The", "an", "cat", "Cat.", "cat's", "the-cat", "…", "!", "dog", "ñandú", "一", "")


# === A second implementation: plain loops, one score at a time ===


def words_of(text):
    kept = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    # An article counts as one wherever it is not next to another word character.
    result, i = "", 0
    while i < len(kept):
        for article in ("an", "a", "the"):
            end = i + len(article)
            free_before = i == 0 or not (kept[i - 1].isalnum() or kept[i - 1] == "_")
            free_after = end >= len(kept) or not (kept[end].isalnum() or kept[end] == "_")
            if kept[i:end] == article and free_before and free_after:
                result, i = result + " ", end
                break
        else:
            result, i = result + kept[i], i + 1
    return result.split()


def slow_f1(truth, prediction):
    true, predicted = words_of(truth), words_of(prediction)
    if not true or not predicted:
        return 1.0 if true == predicted else 0.0
    left, same = list(true), 0
    for word in predicted:
        if word in left:
            left.remove(word)
            same += 1
    return 2 * same / (len(true) + len(predicted))


def slow_evaluate(articles, predictions, odds=None):
    """Applies every threshold in turn; needs distinct odds for `best_...`."""
    questions = [
        (qa["id"], [answer["text"] for answer in qa["answers"]])
        for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]
    ]  # fmt: skip

    def score(id, answers, kind, threshold):
        if threshold is not None and odds[id] > threshold:
            return float(answers == [])
        golds = [answer for answer in answers if words_of(answer)] or [""]
        if kind == "exact":
            return max(float(words_of(gold) == words_of(predictions[id])) for gold in golds)
        return max(slow_f1(gold, predictions[id]) for gold in golds)

    def mean(chosen, kind, threshold):
        done = [(id, answers) for id, answers in chosen if id in predictions]
        return sum(score(id, answers, kind, threshold) for id, answers in done)

    fixed = None if odds is None else 1.0
    predicted = [q for q in questions if q[0] in predictions]
    result = {}
    for prefix, chosen in (
        ("", predicted),
        ("HasAns_", [q for q in questions if q[1]]),
        ("NoAns_", [q for q in questions if not q[1]]),
    ):
        if chosen:
            for kind in ("exact", "f1"):
                result[prefix + kind] = 100 * mean(chosen, kind, fixed) / len(chosen)
            result[prefix + "total"] = len(chosen)
    return result


def data_set(golds):
    return [
        {"paragraphs": [{"context": "", "qas": [
            {"id": f"q{i}", "answers": [{"text": text, "answer_start": 0} for text in answers]}
        ]}]}
        for i, answers in enumerate(golds)
    ]  # fmt: skip


text = strategies.lists(strategies.sampled_from(WORDS), max_size=4).map(" ".join)
case = strategies.lists(
    strategies.tuples(strategies.lists(text.filter(bool), max_size=3), strategies.none() | text),
    min_size=1, max_size=8,
).filter(lambda rows: any(prediction is not None for _, prediction in rows))  # fmt: skip


@hypothesis.settings(max_examples=200)
@hypothesis.given(case, strategies.randoms())
@hypothesis.example([(["cat"], "cat"), ([], "a")], Random(2))
def test_scores_equal_the_second_implementation(rows, random):
    articles = data_set([answers for answers, _ in rows])
    predictions = {f"q{i}": text for i, (_, text) in enumerate(rows) if text is not None}
    found = evaluate({"data": articles}, predictions)
    assert found == pytest.approx(slow_evaluate(articles, predictions), abs=1e-9)
    odds = {id: random.uniform(-3, 3) for id in predictions}
    found = evaluate(articles, predictions, odds)
    best = {key: found.pop(key) for key in list(found) if key.startswith("best_")}
    assert found == pytest.approx(slow_evaluate(articles, predictions, odds), abs=1e-9)
    assert set(best) == {"best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"}
    empty = [answers and not any(map(words_of, answers)) for answers, _ in rows]
    empty += [text and not words_of(text) for text in predictions.values()]
    if len(predictions) < len(rows) or any(empty):
        # The official search starts from another score than that of answering nothing, and it takes
        # "a", which is scored as the empty answer, for an answer.
        return
    # A threshold as good as the best one, and none better; -inf answers nothing.
    for kind in ("exact", "f1"):
        scores = []
        for threshold in (float("-inf"), *odds.values()):
            kept = {id: "" if odds[id] > threshold else predictions[id] for id in predictions}
            scores.append(evaluate(articles, kept)[kind])
        assert best[f"best_{kind}"] >= max(scores) - 1e-9


@hypothesis.settings(max_examples=200)
@hypothesis.given(strategies.text(max_size=20) | text)
def test_normalisation_equals_the_second_implementation(value):
    assert normalize_answer(value).split() == words_of(value)


def test_keys_and_numbers_of_a_case_done_by_hand():
    articles = data_set([["the cat sat"], ["dog", "a big dog"], [], [], ["..."]])
    predictions = {"q0": "cat", "q1": "Big dog!", "q2": "", "q3": "dog", "q4": ""}
    odds = {"q0": -2.0, "q1": -1.0, "q2": 5.0, "q3": 0.5, "q4": -3.0}
    found = evaluate(articles, predictions, odds)
    assert list(found) == [
        "exact", "f1", "total", "HasAns_exact", "HasAns_f1", "HasAns_total", "NoAns_exact",
        "NoAns_f1", "NoAns_total", "best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh",
    ]  # fmt: skip
    # q0 has F1 2/3; q3 is wrong, with odds below 1; the answer to q4 is only punctuation.
    assert found == pytest.approx(
        {
            "exact": 60.0, "f1": 100 * (3 + 2 / 3) / 5, "total": 5,
            "HasAns_exact": 200 / 3, "HasAns_f1": 100 * (2 + 2 / 3) / 3, "HasAns_total": 3,
            "NoAns_exact": 50.0, "NoAns_f1": 50.0, "NoAns_total": 2,
            "best_exact": 80.0, "best_exact_thresh": -1.0,
            "best_f1": 100 * (4 + 2 / 3) / 5, "best_f1_thresh": -1.0,
        }
    )  # fmt: skip


def test_missing_and_unknown_predictions_are_named(caplog):
    articles = data_set([["cat"], ["dog"], []])
    found = evaluate(articles, {"q0": "cat", "q9": "mouse"})
    assert (found["exact"], found["total"]) == (100.0, 1)
    assert (found["HasAns_exact"], found["HasAns_total"]) == (50.0, 2)
    assert (found["NoAns_exact"], found["NoAns_total"]) == (0.0, 1)
    assert "1 predictions are for unknown ids: q9" in caplog.text
    assert "2 questions have no prediction: q1, q2" in caplog.text


def test_answering_nothing_at_its_best_has_the_official_threshold_of_zero():
    found = evaluate(data_set([[], []]), {"q0": "x", "q1": "y"}, {"q0": -5.0, "q1": -4.0})
    assert (found["exact"], found["best_exact"], found["best_exact_thresh"]) == (0.0, 100.0, 0.0)


@pytest.mark.parametrize(
    ("predictions", "odds", "message"),
    [
        ({}, None, "none of the 1 questions has a prediction"),
        ({"q9": "x"}, None, "none of the 1 questions has a prediction"),
        ({"q0": None}, None, "the prediction for 'q0' is not a string: None"),
        ({"q0": "x"}, {}, "no no-answer probability for q0"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions, odds, message):
    with pytest.raises(InputError, match=message):
        evaluate(data_set([["cat"]]), predictions, odds)


@pytest.mark.parametrize("wrong", [{"dat": []}, [{"paragraph": []}], [3]])
def test_data_in_another_format_is_refused(wrong):
    with pytest.raises(InputError, match="not in SQuAD's format"):
        evaluate(wrong, {"q0": "x"})


def test_a_repeated_id_is_refused():
    with pytest.raises(InputError, match="'q0' occurs twice"):
        evaluate(data_set([["a"]]) * 2, {"q0": "x"})
