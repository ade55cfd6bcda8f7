"""Packing into pairs of segments: next sentence (BERT) and sentence order (ALBERT)."""

import bisect
import random
from typing import TYPE_CHECKING

import numpy as np

from undivided_tf.data.corpus.packing import PackedRows, Pieces, lay
from undivided_tf.data.examples import FIRST_SEGMENT_LENGTH, LABEL, ROW_DTYPE, TOKEN_IDS

if TYPE_CHECKING:
    from undivided_tf.data.corpus.config import RecordsConfig
    from undivided_tf.tokenization import Tokenizer

SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "।")  # noqa: RUF001


def next_sentence(
    pieces: Pieces, tokenizer: "Tokenizer", config: "RecordsConfig", rng: np.random.Generator
) -> PackedRows:
    """Pairs; half have a second segment from another document of the chunk (label 1).

    As in google-research/bert, sentences of a document are taken until they fill a row. A is a
    random number of them. B is the rest, or as much text from a random position of another
    document; the rest is then used again. If a single sentence fills a row, B is from another
    document. A share `short_seq_prob` of the documents has a random target length below that of a
    row. If a pair is too long, the longer segment is cut at its front or back at random.

    Our reading: paragraphs are cut into sentences after `SENTENCE_ENDS`. A sentence that is longer
    than half a row is cut, so that a row usually has two sentences. In a chunk of a single document
    B always follows A.

    References:
        Devlin et al. 2018, arXiv 1810.04805, appendix A.2; google-research/bert,
        create_pretraining_data.py.
    """
    return _pairs(pieces, tokenizer, config, rng, from_another_document=True)


def sentence_order(
    pieces: Pieces, tokenizer: "Tokenizer", config: "RecordsConfig", rng: np.random.Generator
) -> PackedRows:
    """Pairs of consecutive segments; half of the pairs are swapped (label 1).

    Segments are made as for `next_sentence`. If only one sentence is left, it is cut in two.

    References:
        Lan et al. 2019, arXiv 1909.11942, section 3.1.
    """
    return _pairs(pieces, tokenizer, config, rng, from_another_document=False)


def sentence_edges(pieces: Pieces, tokenizer: "Tokenizer", longest: int) -> np.ndarray:
    """Ascending indices in `pieces.ids` where sentences start or end; the first is 0.

    A sentence ends with its paragraph, after the last of some `SENTENCE_ENDS`, or after `longest`
    word pieces.
    """
    ids = pieces.ids
    marks = [tokenizer.vocabulary.index(m) for m in SENTENCE_ENDS if m in tokenizer.vocabulary]
    is_mark = np.isin(ids, marks)
    ends = np.zeros(len(ids) + 1, bool)
    ends[0] = ends[-1] = True
    ends[pieces.paragraph_ends] = True
    ends[1:-1] |= is_mark[:-1] & ~is_mark[1:]
    edges = np.flatnonzero(ends)
    within = np.arange(len(ids) + 1) - np.repeat(edges, np.diff(edges, append=len(ids) + 1))
    ends[within % longest == 0] = True
    return np.flatnonzero(ends)


def _pairs(
    pieces: Pieces,
    tokenizer: "Tokenizer",
    config: "RecordsConfig",
    rng: np.random.Generator,
    from_another_document: bool,
) -> PackedRows:
    room = config.max_seq_length - 3
    rows, cut = _choose(pieces, tokenizer, config, rng, from_another_document)
    starts_a, stops_a, starts_b, stops_b, labels = np.array(rows, np.int64).reshape(-1, 5).T
    # Equivalent to removing pieces one by one from the longer segment.
    kept_a = np.minimum(
        stops_a - starts_a, np.maximum(room - (stops_b - starts_b), (room + 1) // 2)
    )
    kept_b = np.minimum(stops_b - starts_b, room - kept_a)
    segments = []
    for starts, stops, kept in ((starts_a, stops_a, kept_a), (starts_b, stops_b, kept_b)):
        extra = stops - starts - kept
        # Text of B from another document is also packed in that document, so it is not lost.
        is_packed_elsewhere = starts is starts_b and from_another_document and labels == 1
        cut += int(np.where(is_packed_elsewhere, 0, extra).sum())
        starts = starts + rng.binomial(extra, 0.5)
        segments.append((starts, starts + kept))
    fields = {
        TOKEN_IDS: lay(pieces.ids, segments, tokenizer, config.max_seq_length),
        FIRST_SEGMENT_LENGTH: (kept_a + 2).astype(ROW_DTYPE),
        LABEL: labels.astype(ROW_DTYPE),
    }
    return PackedRows(fields, cut)


def _choose(
    pieces: Pieces,
    tokenizer: "Tokenizer",
    config: "RecordsConfig",
    rng: np.random.Generator,
    from_another_document: bool,
) -> tuple[list[tuple[int, ...]], int]:
    """Chooses the segments of all pairs, before long pairs are cut.

    Returns:
        For each pair the start and stop of A and of B in `pieces.ids`, and the label; and the
        number of word pieces that are in no pair.
    """
    room = config.max_seq_length - 3
    edges = sentence_edges(pieces, tokenizer, max(1, room // 2)).tolist()
    # For each document: its first sentence, and the sentence after its last.
    ends = [0, *(bisect.bisect_left(edges, end) for end in pieces.document_ends.tolist())]
    documents = [pair for pair in zip(ends, ends[1:], strict=False) if pair[0] < pair[1]]
    chooser = random.Random(int(rng.integers(1 << 62)))
    rows, unpaired = [], 0
    for number, (first, last) in enumerate(documents):
        target = room
        if chooser.random() < config.short_seq_prob:
            target = chooser.randint(2, room)
        while first < last:
            # The number of sentences that reach the target, at least one.
            after = min(bisect.bisect_left(edges, edges[first] + target), last)
            middle = chooser.randint(first + 1, after - 1) if after - first > 1 else after
            a = (edges[first], edges[middle])
            b = (edges[middle], edges[after])
            is_single = middle == after
            if not from_another_document:
                if is_single and a[1] - a[0] > 1:
                    place = chooser.randint(a[0] + 1, a[1] - 1)
                    a, b = (a[0], place), (place, a[1])
                label = int(chooser.random() < 0.5)
                if label:
                    a, b = b, a
            else:
                label = int(len(documents) > 1 and (is_single or chooser.random() < 0.5))
                if label:
                    b = _elsewhere(documents, number, edges, target - (a[1] - a[0]), chooser)
                    after = middle
            if a[0] < a[1] and b[0] < b[1]:
                rows.append((*a, *b, label))
            else:
                unpaired += edges[after] - edges[first]
            first = after
    return rows, unpaired


def _elsewhere(
    documents: list[tuple[int, int]],
    number: int,
    edges: list[int],
    length: int,
    chooser: random.Random,
) -> tuple[int, int]:
    """A segment of about `length` word pieces from a random position of another document."""
    other = chooser.randrange(len(documents) - 1)
    begin, end = documents[other + (other >= number)]
    start = chooser.randrange(begin, end)
    stop = bisect.bisect_left(edges, edges[start] + length)
    return edges[start], edges[min(max(stop, start + 1), end)]
