"""Rows of word pieces: full rows, one document per row, and pairs of segments."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undivided_tf.data.corpus import packing, pairs
from undivided_tf.data.corpus.config import RecordsConfig


class Vocabulary:
    """The part of a tokenizer that packing needs; ordinary word pieces are ids from 10."""

    pad_id, cls_id, sep_id = 0, 1, 2
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "x", ".", "!", "?"]


def make(documents):
    """Documents are lists of paragraphs, which are lists of ids."""
    paragraphs = [paragraph for document in documents for paragraph in document]
    ends = np.cumsum([0, *map(len, paragraphs)])
    last = np.cumsum([0, *map(len, documents)])
    ids = np.array([i for paragraph in paragraphs for i in paragraph], np.int32)
    return packing.Pieces(ids, ends[1:], ends[last[1:]])


def rows_of(packer, documents, length, seed=0, **changes):
    config = RecordsConfig(max_seq_length=length).replace(**changes)
    return packer(make(documents), Vocabulary, config, np.random.default_rng(seed))


def numbered(*sizes):
    """Documents of one paragraph each, all ids different."""
    ids = iter(range(10, 10_000))
    return [[[next(ids) for _ in range(size)]] for size in sizes]


def test_full_rows_have_sep_between_documents_and_only_the_last_is_padded():
    rows = rows_of(packing.full, [[[10, 11], [12]], [], [[13, 14, 15, 16, 17]], [[18]]], 8)
    assert rows.fields["token_ids"].tolist() == [
        [1, 10, 11, 12, 2, 13, 14, 2],
        [1, 15, 16, 17, 2, 18, 2, 0],
    ]
    assert rows.cut == 0


def test_a_document_a_row_and_several_rows_for_a_long_one():
    rows = rows_of(packing.document, numbered(3, 0, 13, 6), 8)
    assert rows.fields["token_ids"].tolist() == [
        [1, 10, 11, 12, 2, 0, 0, 0],
        [1, 13, 14, 15, 16, 17, 18, 2],
        [1, 19, 20, 21, 22, 23, 24, 2],
        [1, 25, 2, 0, 0, 0, 0, 0],
        [1, 26, 27, 28, 29, 30, 31, 2],
    ]


@pytest.mark.parametrize("packer", [packing.full, packing.document])
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=5), st.integers(8, 12))
def test_nothing_is_lost_and_the_order_stays(packer, sizes, length):
    ids = iter(range(10, 10_000))
    documents = [[[next(ids) for _ in range(n)] for n in document] for document in sizes]
    found = rows_of(packer, documents, length).fields["token_ids"].ravel()
    flat = [i for document in documents for paragraph in document for i in paragraph]
    assert found[found >= 10].tolist() == flat


def test_sentences_end_with_paragraphs_marks_and_at_the_longest():
    # x . x ! ? x | x x x x x x x | .
    pieces = make([[[3, 4, 3, 5, 6, 3], [3] * 7], [[4]]])
    edges = pairs.sentence_edges(pieces, Vocabulary, 3).tolist()
    assert edges == [0, 2, 5, 6, 9, 12, 13, 14]


def parse(rows):
    """(first segment, second segment, label) of each row; the form of the rows is checked."""
    found = []
    for ids, first, label in zip(
        rows.fields["token_ids"].tolist(),
        rows.fields["first_segment_length"].tolist(),
        rows.fields["next_sentence_label"].tolist(),
        strict=True,
    ):
        assert ids[0] == 1 and ids[first - 1] == 2
        second = ids[first:]
        end = second.index(2)
        assert set(second[end + 1 :]) <= {0}
        found.append((ids[1 : first - 1], second[:end], label))
    return found


def sentences(documents, number, size, stop=4):
    """Documents of `number` sentences of `size` pieces and a full stop, all ids different."""
    ids = iter(range(10, 1_000_000))
    return [
        [[next(ids) for _ in range(size)] + [stop] for _ in range(number)] for _ in range(documents)
    ]


def owner(documents):
    return {i: n for n, d in enumerate(documents) for p in d for i in p if i >= 10}


def test_next_sentences_follow_or_come_from_another_document():
    documents = sentences(40, 30, 5)
    owns = owner(documents)
    found = parse(rows_of(pairs.next_sentence, documents, 64))
    for first, second, label in found:
        assert first and second
        first_owners, second_owners = ({owns[i] for i in s if i >= 10} for s in (first, second))
        assert len(first_owners) == len(second_owners) == 1
        assert (first_owners != second_owners) == label
        if not label and len(first) + len(second) < 61:  # Longer pairs may have been cut.
            assert first[-1] == 4 and second[0] == first[-2] + 1
    labels = [label for *_, label in found]
    assert 0.4 < np.mean(labels) < 0.75  # B of a single last sentence is from elsewhere.
    # Text that a B from elsewhere replaces is used again. So A and true B together are the text
    # once, except for what truncation cuts.
    used = Counter(i for a, b, label in found for i in (a if label else a + b) if i >= 10)
    assert set(used.values()) == {1}
    cut = rows_of(pairs.next_sentence, documents, 64).cut
    pieces = sum(len(p) for d in documents for p in d)
    stops = sum(s.count(4) for a, b, label in found for s in ((a,) if label else (a, b)))
    assert sum(used.values()) + stops + cut == pieces


def test_pairs_fill_rows_except_in_the_share_of_short_documents():
    documents = sentences(300, 12, 4)

    def lengths(share):
        found = parse(rows_of(pairs.next_sentence, documents, 32, short_seq_prob=share))
        return np.array([len(a) + len(b) for a, b, _ in found])

    whole, short = lengths(0.0), lengths(0.9)
    assert whole.max() == short.max() == 29 and np.mean(whole > 20) > 0.7
    assert short.mean() < 0.75 * whole.mean()


def test_truncation_takes_from_the_longer_segment_at_either_end():
    # Three sentences of 20 make 60 pieces for 47: A or B of two sentences loses 13 of 40.
    documents = sentences(200, 3, 19)
    rows = rows_of(pairs.sentence_order, documents, 50, short_seq_prob=0.0)
    fronts, backs, seen = 0, 0, 0
    for first, second, label in parse(rows):
        if label:
            first, second = second, first
        if len(first) + len(second) == 47:
            longer = max(first, second, key=len)
            assert len(longer) == 27 and len(min(first, second, key=len)) == 20
            start = (longer[0] - 10) % 57 if longer[0] >= 10 else -1
            fronts += start % 19
            seen += 13
            backs += longer[-1] != 4
    assert seen > 1000 and rows.cut > 0
    assert abs(fronts / seen - 0.5) < 0.06 and backs > 0.9 * seen / 13


def test_sentence_order_exchanges_half_of_the_pairs():
    documents = sentences(100, 21, 5)
    found = parse(rows_of(pairs.sentence_order, documents, 64, short_seq_prob=0.0))
    for first, second, label in found:
        ordered = [i for i in first + second if i >= 10]
        assert (ordered == sorted(ordered)) == (not label)
    assert 0.4 < np.mean([label for *_, label in found]) < 0.6


def test_a_lone_sentence_is_cut_in_two_for_sentence_order_only():
    documents = numbered(6)
    ((first, second, label),) = parse(rows_of(pairs.sentence_order, documents, 32))
    ordered = second + first if label else first + second
    assert ordered == list(range(10, 16)) and first and second
    rows = rows_of(pairs.next_sentence, documents, 32)  # There is no other document for B.
    assert len(rows.fields["token_ids"]) == 0 and rows.cut == 6
    assert rows_of(pairs.sentence_order, numbered(1), 32).cut == 1


def test_a_chunk_of_one_document_has_true_pairs_only():
    found = parse(rows_of(pairs.next_sentence, sentences(1, 50, 5), 32))
    assert len(found) > 5 and not any(label for *_, label in found)


@pytest.mark.parametrize(
    "packer", [*map(staticmethod, (pairs.next_sentence, pairs.sentence_order))]
)
@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.sampled_from([3, 3, 3, 4, 6]), max_size=30), max_size=4), max_size=5
    ),
    st.integers(8, 40),
    st.integers(0, 9),
)
def test_pairs_of_any_text_are_rows(packer, documents, length, seed):
    rows = rows_of(packer, documents, length, seed, short_seq_prob=0.5)
    for first, second, label in parse(rows):
        assert first and second and label in (0, 1)
        assert len(first) + len(second) + 3 <= length
    assert 0 <= rows.cut <= sum(len(p) for d in documents for p in d)
    again = rows_of(packer, documents, length, seed, short_seq_prob=0.5)
    for name, values in rows.fields.items():
        np.testing.assert_array_equal(again.fields[name], values)
