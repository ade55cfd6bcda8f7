"""Counts of word pieces and of adjacent pairs of them in the training rows of records.

Rows are counted as an encoder sees them. [CLS] and [SEP] are neighbours like any other piece,
including the [SEP] between two documents or segments of a row. Padding is not a neighbour.
"""

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse

from undivided_tf.data.examples import TOKEN_IDS, Layout
from undivided_tf.errors import InputError
from undivided_tf.support import files

FILE = "counts.npz"
# Number of word pieces that are counted at once. This and the distinct pairs bound the memory.
_CHUNK = 1 << 21


class NgramCounts(NamedTuple):
    """Counts of the training rows of records.

    Attributes:
        unigrams: int64 `(vocab_size,)`, occurrences of each word piece in the rows; 0 for the
            special pieces, which are never predicted.
        bigrams: int64 CSR array `(vocab_size, vocab_size)`, occurrences of the piece of a column
            directly after the piece of a row; special pieces are counted, padding is not.
    """

    unigrams: np.ndarray
    bigrams: scipy.sparse.csr_array


def count_pairs(token_ids: np.ndarray, vocab_size: int, pad_id: int) -> scipy.sparse.csr_array:
    """Counts adjacent pairs of word pieces.

    Args:
        token_ids: int `(rows, length)`; padding, if any, ends a row.
        vocab_size: number of word pieces.
        pad_id: id of the padding.

    Returns:
        int64 `(vocab_size, vocab_size)`, rows are the left pieces; indices are sorted.
    """
    left, right = token_ids[:, :-1].reshape(-1), token_ids[:, 1:].reshape(-1)
    real = right != pad_id
    keys = left[real].astype(np.int64) * vocab_size + right[real]
    pairs, counts = np.unique(keys, return_counts=True)
    starts = np.searchsorted(pairs, np.arange(vocab_size + 1, dtype=np.int64) * vocab_size)
    return scipy.sparse.csr_array(
        (counts.astype(np.int64), (pairs % vocab_size).astype(np.int32), starts.astype(np.int64)),
        (vocab_size, vocab_size),
    )


def count_file(
    path: str | os.PathLike, layout: Layout, vocab_size: int, pad_id: int
) -> Iterator[scipy.sparse.csr_array]:
    """Streams the counts of a record file, some rows at a time.

    Raises:
        InputError: the file is damaged.
    """
    size = os.path.getsize(path)
    if size % layout.dtype.itemsize:
        raise InputError(
            f"{path}: {size} bytes are not a whole number of records; make the records again"
        )
    if not size:
        return
    rows = np.memmap(path, layout.dtype, "r")
    chunk = max(1, _CHUNK // rows[TOKEN_IDS].shape[1])
    for start in range(0, len(rows), chunk):
        ids = np.array(rows[start : start + chunk][TOKEN_IDS])
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise InputError(
                f"{path}: a token id is outside the vocabulary of {vocab_size}; make the records "
                "again"
            )
        yield count_pairs(ids, vocab_size, pad_id)


def total(parts: Iterable[scipy.sparse.csr_array], vocab_size: int) -> scipy.sparse.csr_array:
    """Adds counts; holds at most a few times the number of distinct pairs in memory.

    Parts of similar size are added first, like carries of a binary counter, so the time grows with
    the number of pieces times the logarithm of the number of parts.
    """
    stack: list[tuple[int, scipy.sparse.csr_array]] = []  # In descending numbers of parts.
    for part in parts:
        number = 1
        while stack and stack[-1][0] <= number:
            before, sum_before = stack.pop()
            number, part = number + before, part + sum_before
        stack.append((number, part))
    summed = scipy.sparse.csr_array((vocab_size, vocab_size), dtype=np.int64)
    for _, part in reversed(stack):
        summed = summed + part
    summed.sort_indices()
    return summed


def summarise(bigrams: scipy.sparse.csr_array, is_special: np.ndarray) -> NgramCounts:
    """Derives the counts of single pieces from those of pairs.

    Args:
        bigrams: see `NgramCounts`.
        is_special: bool `(vocab_size,)`.
    """
    # Every piece except [CLS], the first of a row, has a left neighbour.
    return NgramCounts(np.where(is_special, 0, bigrams.sum(axis=0)).astype(np.int64), bigrams)


def write(path: str | os.PathLike, counts: NgramCounts) -> None:
    """Writes counts to a file, see `FILE`; the same counts give the same bytes."""
    unigrams, bigrams = counts
    columns = "<u2" if len(unigrams) <= 1 << 16 else "<i4"
    largest = bigrams.data.max(initial=0)
    with files.atomic_path(path, shared=True) as partial, open(partial, "wb") as file:
        np.savez(
            file,
            unigrams=unigrams.astype("<i8"),
            row_starts=bigrams.indptr.astype("<i8"),
            columns=bigrams.indices.astype(columns),
            counts=bigrams.data.astype("<u2" if largest < 1 << 16 else "<i8"),
        )


def load(path: str | os.PathLike) -> NgramCounts:
    """Reads a file of `write`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            unigrams = arrays["unigrams"].astype(np.int64)
            parts = (arrays["counts"], arrays["columns"], arrays["row_starts"])
            data, columns, starts = (
                part.astype(dtype)
                for part, dtype in zip(parts, (np.int64, np.int32, np.int64), strict=True)
            )
            size = len(unigrams)
            return NgramCounts(
                unigrams, scipy.sparse.csr_array((data, columns, starts), (size, size))
            )
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: damaged ({error}); remove it, and it is counted from the records again"
        ) from error


@dataclasses.dataclass(frozen=True)
class CountShard:
    """Job: counts a record file, unless it is counted already.

    Args:
        folder: work folder with `records`; the counts go to `counts`.
        layout: arguments of `Layout`.
        vocab_size: number of word pieces.
        pad_id: id of the padding.
    """

    folder: str
    layout: tuple[int, bool]
    vocab_size: int
    pad_id: int

    def __call__(self, name: str) -> Iterator[int]:
        """Yields the bytes that were processed."""
        source = pathlib.Path(self.folder) / "records" / name
        path = pathlib.Path(self.folder) / "counts" / f"{name}.npz"
        if not path.exists():
            layout = Layout(*self.layout)
            parts = count_file(source, layout, self.vocab_size, self.pad_id)
            no_special = np.zeros(self.vocab_size, bool)
            write(path, summarise(total(parts, self.vocab_size), no_special))
        yield source.stat().st_size
