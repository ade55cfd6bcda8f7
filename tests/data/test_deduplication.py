"""MinHash against the similarity that it estimates, and duplicates against all pairs."""

import random

import numpy as np
import pytest
import toys

from undivided_tf.data.corpus import deduplication, records
from undivided_tf.errors import InputError


def jaccard(first, second):
    first, second = set(first.tolist()), set(second.tolist())
    return len(first & second) / len(first | second)


def text_of(numbers):
    return " ".join(f"word{number}" for number in numbers)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.95])
def test_the_share_of_equal_entries_estimates_the_similarity(share):
    generator = np.random.default_rng(0)
    agreed, exact = [], []
    for _ in range(60):
        pool = generator.integers(0, 1 << 63, 400, dtype=np.uint64)
        common = int(2 * 200 * share / (1 + share))
        first, second = pool[:200], np.concatenate([pool[:common], pool[200 : 400 - common]])
        exact.append(jaccard(first, second))
        signatures = [deduplication.signature(part) for part in (first, second)]
        agreed.append(np.mean(signatures[0] == signatures[1]))
    # The mean of 60 x 100 draws, each with this probability.
    deviation = np.sqrt(share * (1 - share) / (60 * deduplication.PERMUTATIONS))
    assert np.mean(exact) == pytest.approx(share, abs=0.01)
    assert abs(np.mean(agreed) - np.mean(exact)) < 4 * deviation


def test_a_signature_does_not_depend_on_order_repetition_or_portions(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 1 << 63, 1000, dtype=np.uint64)
    whole = deduplication.signature(hashes)
    monkeypatch.setattr(deduplication, "_SHINGLES", 7)
    again = deduplication.signature(np.concatenate([hashes[::-1], hashes[:50]]))
    np.testing.assert_array_equal(again, whole)


def test_shingles_are_the_runs_of_five_words_without_case_and_punctuation():
    def count(text):
        return len(set(deduplication.shingles(text).tolist()))

    assert count(text_of(range(20))) == 16
    assert count("a b c d e " * 9) == 5
    one, other = "One, two; three four five six", "one two (three) FOUR five six!"
    np.testing.assert_array_equal(deduplication.shingles(one), deduplication.shingles(other))
    assert jaccard(deduplication.shingles("a b c"), deduplication.shingles("a b d")) == 0
    assert jaccard(deduplication.shingles("a b c"), deduplication.shingles("c b a")) == 0
    assert jaccard(deduplication.shingles("!!!"), deduplication.shingles("???")) == 0


def test_pairs_share_a_band_with_the_probability_of_the_formula():
    generator = np.random.default_rng(0)
    share, pairs = 0.6, 2000
    first = generator.integers(0, 1 << 32, (pairs, deduplication.PERMUTATIONS), dtype=np.uint32)
    other = generator.integers(0, 1 << 32, first.shape, dtype=np.uint32)
    second = np.where(generator.random(first.shape) < share, first, other)
    met = (deduplication.band_keys(first) == deduplication.band_keys(second)).any(axis=1)
    expected = 1 - (1 - share**deduplication.ROWS) ** deduplication.BANDS
    assert abs(met.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / pairs)


@pytest.mark.parametrize("entries", [1 << 22, 50])
def test_verdicts_equal_those_of_all_pairs(tmp_path, monkeypatch, entries):
    monkeypatch.setattr(deduplication, "_ENTRIES", entries)  # One bucket, and many.
    monkeypatch.setattr(deduplication, "_DOCUMENTS", 16)
    chooser = random.Random(0)
    texts = []
    for _ in range(150):
        kind = chooser.random()
        if texts and kind < 0.2:
            texts.append(chooser.choice(texts))
        elif texts and kind < 0.4:  # Two of a hundred words differ: 0.82 is shared.
            words = chooser.choice(texts).split()
            words[chooser.randrange(len(words))] = words[-1] = f"other{len(texts)}"
            texts.append(" ".join(words))
        else:
            texts.append(text_of(chooser.sample(range(10_000), 100)))
    digests = np.array([divmod(hash(text) & (1 << 60) - 1, 1 << 30) for text in texts], np.uint64)
    sets = [deduplication.shingles(text) for text in texts]
    signatures = np.array([deduplication.signature(part) for part in sets])
    verdicts = deduplication.mark(tmp_path, digests, signatures)

    alike = (signatures[:, np.newaxis] == signatures).mean(axis=2) >= deduplication.SIMILARITY
    for number, text in enumerate(texts):
        if text in texts[:number]:
            assert verdicts[number] == deduplication.EXACT
        elif not alike[number, :number].any():
            assert verdicts[number] == deduplication.KEPT
    found = (verdicts == deduplication.NEAR).sum()
    wanted = sum(alike[n, :n].any() and text not in texts[:n] for n, text in enumerate(texts))
    assert wanted > 15 and found >= 0.9 * wanted
    exact = deduplication.mark(tmp_path, digests)
    np.testing.assert_array_equal(exact == deduplication.EXACT, verdicts == deduplication.EXACT)
    assert set(np.unique(exact)) == {deduplication.KEPT, deduplication.EXACT}


@pytest.fixture
def corpus(tmp_path):
    """Twelve documents, a copy of one, and a copy of another with one word changed; two files."""
    chooser = random.Random(0)
    texts = [text_of(chooser.choices(range(50), k=80)) for _ in range(12)]
    changed = texts[3].split()
    changed[20] = "another"
    (tmp_path / "a.txt").write_text("\n\n".join(texts[:8]))
    (tmp_path / "b.txt").write_text("\n\n".join([*texts[8:], " ".join(changed), texts[5]]))
    return tmp_path, texts


def records_of(corpus, deduplicate):
    folder, _ = corpus
    return records.create_records(
        toys.records_config(
            folder / deduplicate, f"{folder}/?.txt", vocab_size=120, deduplicate=deduplicate
        )
    )


def test_left_out_duplicates_are_counted(corpus):
    _, texts = corpus
    size = sum(map(len, texts))
    for deduplicate, exact, near in (("none", 0, 0), ("exact", 1, 0), ("near", 1, 1)):
        metadata = records_of(corpus, deduplicate)
        left_out = metadata["left_out"]
        assert (left_out["exact_duplicates"], left_out["near_duplicates"]) == (exact, near)
        kept = [metadata[split] for split in ("train", "validation")]
        assert sum(split["documents"] for split in kept) == 14 - exact - near
        assert sum(source["documents"] for source in metadata["sources"]) == 14
        read = sum(source["bytes"] for source in metadata["sources"])
        assert sum(split["bytes"] for split in kept) + left_out["duplicate_bytes"] == read
        if deduplicate == "near":
            assert sum(split["bytes"] for split in kept) == size


@pytest.mark.parametrize("deduplicate", ["exact", "near"])
def test_a_corpus_of_too_few_different_documents_is_refused(tmp_path, deduplicate):
    (tmp_path / "a.txt").write_text("the same text again and again\n\n" * 9)
    config = toys.records_config(tmp_path / "r", f"{tmp_path}/a.txt", deduplicate=deduplicate)
    with pytest.raises(InputError, match=rf"9 document\(s\), of which --deduplicate={deduplicate} "
                       "leaves 1, and validation_fraction 0.2 holds them all out"):  # fmt: skip
        records.create_records(config)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
