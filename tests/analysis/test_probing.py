import dataclasses

import numpy as np
import pytest

from undivided_tf.analysis import probe_rows, probing
from undivided_tf.analysis.config import ProbingConfig
from undivided_tf.analysis.subjects import Subject
from undivided_tf.config import EncoderConfig
from undivided_tf.data.tasks.probing_tasks import load_probing_task
from undivided_tf.data.tasks.tasks import Rows, Task
from undivided_tf.data.tasks.treebank_tasks import WordRows, WordTask
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijkl")
CONFIG = ProbingConfig(
    max_train_rows=120, max_test_rows=60, max_seq_length=10, batch_size=16, inverse_l2=(1.0,),
    control_task=False, codelength=False, scalar_mix=False, num_seeds=1,
)  # fmt: skip


def letters(split):
    """Texts whose label is decided by one of two letters; two thirds have label 0."""
    rng = np.random.default_rng(len(split))
    labels = (rng.random(200) < 1 / 3).astype(np.int32)
    fill = rng.choice(list("cdefghijkl"), (200, 4))
    texts = [
        " ".join(rng.permutation(["ab"[label], *row]))
        for label, row in zip(labels, fill, strict=True)
    ]
    return Rows(texts, None, labels)


@pytest.fixture(scope="module")
def subject():
    config = EncoderConfig(
        vocab_size=len(PIECES), hidden_size=12, num_attention_heads=2, intermediate_size=16,
        block_pattern="AAI", max_position_embeddings=16,
    )  # fmt: skip
    return Subject(Encoder(config, seed=1), Tokenizer(PIECES), seed=5)


def test_every_tap_is_probed_and_compared_with_its_baselines(subject):
    result = probing.probe(subject, Task("letters", ("no", "yes"), False, letters), CONFIG)
    taps = list(subject.encoder.config.pattern.tap_names)
    assert (result["kind"], result["pattern"], result["task"]) == ("probing", "A*2I", "letters")
    assert (result["pretraining_seed"], result["taps"]) == (5, taps)
    assert (result["rows"], result["split"]) == ({"train": 120, "test": 60}, "test")
    assert len(result["accuracy"]) == len(result["untrained_accuracy"]) == len(taps)
    chosen = letters("test").take(60, CONFIG.seed).labels
    assert result["majority_accuracy"] == pytest.approx(np.mean(chosen == 0))
    # The letter is linear in the mean of the embeddings, for any weights.
    assert result["accuracy"][0] > 0.95 and result["untrained_accuracy"][0] > 0.95
    assert result["unconverged"] == 0
    again = probing.probe(subject, Task("letters", ("no", "yes"), False, letters), CONFIG)
    assert again == result


@pytest.mark.parametrize("kind", ["unlabelled", "absent"])
def test_without_test_labels_the_validation_split_is_scored(subject, kind, caplog):
    def read(split):
        if split != "test":
            return letters(split)
        if kind == "absent":
            return None
        return Rows(letters(split).first)

    result = probing.probe(subject, Task("letters", ("no", "yes"), False, read), CONFIG)
    assert result["split"] == "validation"
    several = CONFIG.replace(inverse_l2=(0.1, 1.0))  # A fifth of training decides.
    again = probing.probe(subject, Task("letters", ("no", "yes"), False, read), several)
    assert again["split"] == "validation" and set(again["inverse_l2"][0]) <= {0.1, 1.0}


def test_a_probe_is_reported_with_all_its_baselines(subject):
    config = CONFIG.replace(
        inverse_l2=(0.01, 1.0), control_task=True, codelength=True, scalar_mix=True, num_seeds=2
    )
    result = probing.probe(subject, Task("letters", ("no", "yes"), False, letters), config)
    taps = len(result["taps"])
    for key in (
        "accuracy", "low", "high", "untrained_accuracy", "control_accuracy", "selectivity",
        "compression", "untrained_compression",
    ):  # fmt: skip
        assert len(result[key]) == taps, key
    runs = np.array(result["accuracy_runs"])
    assert runs.shape == (2, taps) and result["seeds"] == [12345, 12346]
    np.testing.assert_allclose(result["accuracy"], runs.mean(0))
    for low, mean, high in zip(result["low"], result["accuracy"], result["high"], strict=True):
        assert low <= mean <= high
    # The control task needs the first word, which need not be the letter.
    assert result["accuracy"][0] > 0.95 > result["control_accuracy"][0]
    assert result["compression"][0] > 1.5
    mix = result["scalar_mix"]
    assert len(mix["weights"]) == taps and mix["accuracy"] > 0.9
    assert 0 < mix["centre_of_gravity"] < taps - 1
    assert result["unit"] == "sentences" and 0 < result["seen_type_share"] <= 1


def test_test_rows_that_are_in_training_are_left_out(subject):
    def read(split):
        rows = letters(split)
        if split != "test":
            return rows
        known = letters("train")
        labels = np.concatenate([known.labels[:30], rows.labels[:50]])
        return Rows(known.first[:30] + rows.first[:50], None, labels)

    config = CONFIG.replace(max_train_rows=0, max_test_rows=0)
    result = probing.probe(subject, Task("letters", ("no", "yes"), False, read), config)
    assert (result["duplicates_dropped"], result["rows"]["test"]) == (30, 50)


def test_activations_are_in_the_order_of_the_rows(subject):
    def activations(texts):
        return probe_rows.activations(
            subject, probe_rows.Split("train", Rows(texts), texts), CONFIG.replace(batch_size=2)
        )

    texts = ["a b c d e f", "a", "b c", "d e f g h"]
    together = activations(texts)
    for i, text in enumerate(texts):
        for tap, (alone,) in activations([text]).items():
            np.testing.assert_allclose(together[tap][i], alone, atol=1e-5)


# === Words ===


def word_rows(split, longest=6):
    """Sentences of letters, and all of their words."""
    rng = np.random.default_rng(len(split))
    sentences = [
        tuple(rng.choice(list("abcdefghijkl"), rng.integers(2, longest))) for _ in range(60)
    ]
    items = [(s, p) for s, words in enumerate(sentences) for p in range(len(words))]
    return sentences, np.array([s for s, _ in items]), np.array([[p] for _, p in items])


def vowels(split):
    sentences, sentence, places = word_rows(split)
    labels = [sentences[s][p] in "aei" for s, (p,) in zip(sentence, places, strict=True)]
    return WordRows(sentences, sentence, places, np.array(labels, np.int32))


def test_words_are_probed_with_selectivity(subject):
    config = CONFIG.replace(max_train_rows=150, control_task=True)
    result = probing.probe(subject, WordTask("vowels", ("no", "yes"), vowels), config)
    assert (result["unit"], result["split"]) == ("words", "test")
    assert result["rows"] == {"train": 150, "test": 60}
    # A letter decides both its own class and its random label: the probe memorises the types.
    assert result["accuracy"][0] > 0.95 and result["control_accuracy"][0] > 0.9
    assert abs(result["selectivity"][0]) < 0.1
    assert result["type_majority_accuracy"] == 1 and result["seen_type_share"] == 1
    assert result["new_type_accuracy"] == [None] * 4


def test_words_that_are_cut_off_are_left_out_and_counted(subject):
    whole = probing.probe(subject, WordTask("vowels", ("no", "yes"), vowels), CONFIG)
    cut = probing.probe(
        subject, WordTask("vowels", ("no", "yes"), vowels), CONFIG.replace(max_seq_length=5)
    )
    assert whole["unseen_words"] == 0 and cut["unseen_words"] > 0
    train = vowels("train").take(120, CONFIG.seed)
    assert cut["rows"]["train"] == sum(place < 3 for place in train.places[:, 0])


def test_activations_of_a_pair_of_words_are_concatenated(subject):
    sentences, sentence, places = word_rows("train")
    pairs = np.concatenate([places, places * 0], 1)
    rows = WordRows(sentences, sentence, pairs, np.zeros(len(pairs), np.int32))
    split = probe_rows.Split("train", rows, rows.types)
    found = probe_rows.activations(subject, split, CONFIG)["block_00/attention"]
    single = WordRows(sentences, sentence, places, rows.labels)
    split = probe_rows.Split("train", single, single.types)
    one = probe_rows.activations(subject, split, CONFIG)["block_00/attention"]
    assert found.shape == (len(pairs), 24)
    np.testing.assert_allclose(found[:, :12], one, atol=1e-6)
    first = [np.flatnonzero(sentence == s)[0] for s in sentence]
    np.testing.assert_allclose(found[:, 12:], one[first], atol=1e-6)


def test_new_word_types_are_also_scored_by_themselves(subject):
    def read(split):
        rows = vowels(split)
        if split == "train":  # Without "a", so the probe has to guess its class.
            return rows.pick(np.array([i for i, t in enumerate(rows.types) if t != "a"]))
        return rows

    result = probing.probe(
        subject, WordTask("vowels", ("no", "yes"), read), CONFIG.replace(max_test_rows=0)
    )
    test, known = read("test"), set(read("train").take(120, CONFIG.seed).sentences)
    fresh = [test.sentences[s] not in known for s in test.sentence]
    types = test.pick(np.flatnonzero(fresh)).types
    assert result["seen_type_share"] == pytest.approx(1 - types.count("a") / len(types))
    assert result["new_type_accuracy"][0] < result["accuracy"][0]


def test_words_of_several_labels_are_also_scored_by_themselves(subject):
    """The label of "a" depends on its place, which the tap of the embeddings hardly holds."""

    def read(split):
        rows = vowels(split)
        odd = rows.places[:, 0] % 2 == 1
        is_a = np.array([name == "a" for name in rows.types])
        return dataclasses.replace(rows, labels=np.where(is_a, odd, rows.labels).astype(np.int32))

    config = CONFIG.replace(max_test_rows=0)
    result = probing.probe(subject, WordTask("places", ("no", "yes"), read), config)
    test, known = read("test"), set(read("train").take(120, CONFIG.seed).sentences)
    types = test.pick(np.flatnonzero([test.sentences[s] not in known for s in test.sentence])).types
    share = types.count("a") / len(types)
    accuracy, ambiguous = (result[n][0] for n in ("accuracy", "ambiguous_type_accuracy"))
    others = (accuracy - share * ambiguous) / (1 - share)
    assert 0 < share < 1 and ambiguous < 0.9 < 0.98 < others <= 1 + 1e-9
    assert result["untrained_ambiguous_type_accuracy"][0] is not None


def test_words_of_sentences_that_are_in_training_are_left_out(subject):
    def read(split):
        rows, known = vowels(split), vowels("train")
        if split != "test":
            return rows
        sentences = known.sentences[:10] + rows.sentences
        places = known.pick(np.flatnonzero(known.sentence < 10))
        return WordRows(
            sentences,
            np.concatenate([places.sentence, rows.sentence + 10]),
            np.concatenate([places.places, rows.places]),
            np.concatenate([places.labels, rows.labels]),
        )

    known = set(vowels("train").sentences)
    test = read("test")
    inside = sum(test.sentences[s] in known for s in test.sentence)
    config = CONFIG.replace(max_train_rows=0, max_test_rows=0)
    result = probing.probe(subject, WordTask("vowels", ("no", "yes"), read), config)
    assert result["duplicates_dropped"] == inside > 20
    assert result["rows"]["test"] == len(test) - inside


def test_a_split_without_rows_that_remain_is_named(subject):
    task = WordTask("vowels", ("no", "yes"), lambda split: vowels("train"))
    with pytest.raises(InputError, match="task vowels: no row of test is left.* in training too"):
        probing.probe(subject, task, CONFIG.replace(max_train_rows=0))

    def read(split):
        rows = vowels(split)
        return rows.pick(np.flatnonzero(rows.places[:, 0] > 1)) if split == "test" else rows

    task = WordTask("vowels", ("no", "yes"), read)
    with pytest.raises(InputError, match="no row of test is left.* cut off by max_seq_length 4"):
        probing.probe(subject, task, CONFIG.replace(max_seq_length=4))
    same = Task("letters", ("no", "yes"), False, lambda split: letters("train"))
    with pytest.raises(InputError, match="task letters: no row of test is left"):
        probing.probe(subject, same, CONFIG.replace(max_train_rows=0))


def test_the_sentences_that_both_splits_of_a_treebank_hold_are_left_out(shared_data):
    task = load_probing_task(f"ud:pos:{shared_data / 'ud'}")
    config = CONFIG.replace(max_train_rows=0, max_test_rows=0)
    chosen, dropped = probe_rows._words(task, config, seed=0)
    whole = task.read("test")
    assert (len(whole), dropped, len(chosen["test"])) == (25_094, 165, 25_094 - 165)
    assert len(whole.sentences) - len(chosen["test"].sentences) == 94
