"""Exact and near duplicates among documents. Pure NumPy, in bounded memory.

The data to compare is in files: a few numbers per document, and for near duplicates a MinHash
signature. Candidate pairs are found in buckets, which are sorted one at a time.

References:
    Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman and
    Ullman, "Mining of Massive Datasets", chapter 3 (banding).
"""

import pathlib
import re
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from undivided_tf.support import files

WORDS = 5  # Words of a shingle.
SIMILARITY = 0.8  # Near duplicates share at least this part of their shingles.
BANDS, ROWS = 20, 5  # 0.9996 of the pairs at this similarity share a band.
PERMUTATIONS = BANDS * ROWS
# Held in memory at a time: shingles of a document, documents, entries of a bucket.
_SHINGLES, _DOCUMENTS, _ENTRIES = 4096, 8192, 1 << 22
_WORD = re.compile(r"\w+")
_ENTRY = np.dtype([("key", "<u8"), ("document", "<u8")])
KEPT, EXACT, NEAR = 0, 1, 2
VERDICTS = "verdicts"  # File with the result of `mark`.


def _odd(count: int, seed: int) -> np.ndarray:
    """Fixed odd numbers, uint64 `(count,)`."""
    words = np.random.default_rng(seed).integers(1 << 63, size=count, dtype=np.uint64)
    return words * np.uint64(2) + np.uint64(1)


_SHINGLE_FACTORS, _FACTORS = _odd(WORDS, 1), _odd(PERMUTATIONS, 2)
_OFFSETS, _BAND_FACTORS = _odd(PERMUTATIONS, 3), _odd(ROWS, 4)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Mixes every bit into all 64 (the finaliser of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def shingles(text: str) -> np.ndarray:
    """Hashes of all runs of `WORDS` words, uint64; of the whole text if it is shorter.

    Case and punctuation are ignored, unless the text has only punctuation.
    """
    words = _WORD.findall(text.lower()) or [text]
    coded = "\n".join(words).encode().split(b"\n")  # Faster than word by word.
    codes = _mixed(np.fromiter(map(zlib.crc32, coded), np.uint64) + np.uint64(1))
    length = min(WORDS, len(codes))
    windows = np.lib.stride_tricks.sliding_window_view(codes, length)
    return _mixed((windows * _SHINGLE_FACTORS[:length]).sum(axis=1))


def signature(hashes: np.ndarray) -> np.ndarray:
    """MinHash: the smallest hash under each permutation, uint32 `(PERMUTATIONS,)`.

    The expected share of equal entries of two signatures is the Jaccard similarity of the sets.
    """
    least = np.full(PERMUTATIONS, np.iinfo(np.uint64).max)
    for start in range(0, len(hashes), _SHINGLES):
        part = hashes[start : start + _SHINGLES, np.newaxis]
        least = np.minimum(least, (part * _FACTORS + _OFFSETS).min(axis=0))
    return (least >> np.uint64(32)).astype(np.uint32)


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """Hashes of `ROWS` entries each: uint32 `(n, PERMUTATIONS)` -> uint64 `(n, BANDS)`.

    Equal keys mean equal entries of the same band (except with probability 2^-64).
    """
    bands = signatures.astype(np.uint64).reshape(-1, BANDS, ROWS)
    return _mixed((bands * _BAND_FACTORS).sum(axis=2) + np.arange(BANDS, dtype=np.uint64))


def mark(
    folder: pathlib.Path, digests: np.ndarray, signatures: np.ndarray | None = None
) -> np.ndarray:
    """Marks each document that duplicates an earlier one.

    Exact duplicates have the same digest. Near duplicates share a band of their signatures with an
    earlier document. Of the first document with this band they share at least `SIMILARITY` of the
    shingles, as the signatures estimate it.

    Args:
        folder: folder for the result and temporary files; it must exist.
        digests: uint64 `(documents, 2)`, may be a memory map.
        signatures: uint32 `(documents, PERMUTATIONS)`, may be a memory map; None: exact only.

    Returns:
        uint8 `(documents,)` of `KEPT`, `EXACT` and `NEAR`, a memory map of a file in `folder`.
    """
    verdicts = np.memmap(folder / VERDICTS, np.uint8, "w+", shape=(len(digests),))
    for first, other in _candidates(folder, len(digests), lambda part: digests[part, :1]):
        verdicts[other[(digests[first] == digests[other]).all(axis=1)]] = EXACT
    if signatures is not None:
        for first, other in _candidates(
            folder, len(digests), lambda part: band_keys(signatures[part])
        ):
            first, other = first[verdicts[other] == KEPT], other[verdicts[other] == KEPT]
            alike = (signatures[first] == signatures[other]).mean(axis=1) >= SIMILARITY
            verdicts[other[alike]] = NEAR
    return verdicts


def _candidates(
    folder: pathlib.Path, count: int, keys: Callable[[slice], np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (first document with a key, another document with this key), some at a time.

    Args:
        folder: folder for temporary files.
        count: number of documents.
        keys: uint64 `(n, keys)` of a slice of the documents.
    """
    buckets = folder / "buckets"
    files.remove(buckets)
    buckets.mkdir()
    number = 1 + count * keys(slice(0, 1)).shape[1] // _ENTRIES
    for start in range(0, count, _DOCUMENTS):
        bands = keys(slice(start, start + _DOCUMENTS))
        entries = np.empty(bands.shape, _ENTRY)
        entries["key"] = bands
        entries["document"] = np.arange(start, start + len(bands))[:, np.newaxis]
        entries = entries.ravel()
        bucket = (entries["key"] % np.uint64(number)).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        parts = np.split(entries[order], np.cumsum(np.bincount(bucket, minlength=number))[:-1])
        for name, part in enumerate(parts):
            with open(buckets / str(name), "ab") as file:
                part.tofile(file)
    for name in range(number):
        entries = np.fromfile(buckets / str(name), _ENTRY)
        # Stable, so that documents with equal keys keep their order.
        entries = entries[np.argsort(entries["key"], kind="stable")]
        opens = np.ones(len(entries), bool)
        opens[1:] = entries["key"][1:] != entries["key"][:-1]
        first = np.maximum.accumulate(np.where(opens, np.arange(len(entries)), 0))
        pairs = entries["document"][first], entries["document"]
        again = np.flatnonzero(pairs[0] != pairs[1])
        for start in range(0, len(again), _DOCUMENTS):
            chosen = again[start : start + _DOCUMENTS]
            yield pairs[0][chosen], pairs[1][chosen]
    files.remove(buckets)
