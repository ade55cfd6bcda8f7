"""Dependency treebanks in CoNLL-U, read by the package `conllu`.

References:
    Nivre et al. 2020, arXiv 2004.10643 (Universal Dependencies).
"""

import dataclasses
import functools
import gzip
import pathlib

import conllu
import numpy as np

from undivided_tf.data.rows import checked_split
from undivided_tf.errors import InputError

_NAMES = {"train": "train", "validation": "dev", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence with its tree.

    Attributes:
        words: forms, without multiword tokens and empty nodes.
        tags: universal parts of speech.
        heads: place of each word's head, -1 for the root.
        relations: universal relation to the head, without its subtype.
        features: morphological features of each word, such as `{"Number": "Sing"}`.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]
    features: tuple[dict[str, str], ...]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def root(self) -> int:
        """Place of the root."""
        return self.heads.index(-1)

    @property
    def depths(self) -> np.ndarray:
        """Edges between each word and the root."""
        depths = np.full(len(self), -1)
        depths[self.root] = 0

        def depth(word: int) -> int:
            if depths[word] < 0:
                depths[word] = 1 + depth(self.heads[word])
            return depths[word]

        return np.array([depth(word) for word in range(len(self))])

    @property
    def distances(self) -> np.ndarray:
        """Edges between each pair of words, `(words, words)`."""
        n = len(self)
        distances = np.full((n, n), -1)
        # From the root down, so that a word's head is known when it is reached.
        reached: list[int] = []
        for word in np.argsort(self.depths, kind="stable"):
            distances[word, word] = 0
            for other in reached:
                distances[word, other] = distances[other, word] = (
                    distances[self.heads[word], other] + 1
                )
            reached.append(word)
        return distances


def input_files(folder: str) -> dict[str, pathlib.Path]:
    """The files of a treebank, by split.

    Raises:
        InputError: a split has no file, or several.
    """
    return {split: _path(folder, split) for split in _NAMES}


def _path(folder: str, split: str) -> pathlib.Path:
    name = f"*-ud-{_NAMES[split]}.conllu"
    found = [
        p for pattern in (name, f"{name}.gz") for p in sorted(pathlib.Path(folder).glob(pattern))
    ]
    if len(found) != 1:
        raise InputError(f"{folder}: one file {name} (or .gz) is needed, there are {len(found)}")
    return found[0]


@functools.cache
def read(folder: str, split: str) -> tuple[Sentence, ...]:
    """The sentences of a split.

    Args:
        folder: with one file `*-ud-train.conllu`, `*-ud-dev.conllu` and `*-ud-test.conllu`, each
            of which may be packed (`.gz`).
        split: `train`, `validation` or `test`.

    Raises:
        InputError: no or several such files, or one that is no CoNLL-U; names file and sentence.
    """
    path = _path(folder, checked_split(split))
    opened = (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8")
    )
    sentences = []
    try:
        with opened as file:
            for tokens in conllu.parse_incr(file):
                sentences.append(_sentence(tokens))
    except (conllu.exceptions.ParseException, ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: sentence {len(sentences) + 1}: {error}") from error
    return tuple(sentences)


def _sentence(tokens: conllu.TokenList) -> Sentence:
    # Ids of multiword tokens ("1-2") and empty nodes ("1.1") are no integers.
    words = [token for token in tokens if isinstance(token["id"], int)]
    heads = tuple(token["head"] - 1 for token in words)
    if heads.count(-1) != 1 or any(not -1 <= head < len(words) for head in heads):
        raise ValueError("has no tree with one root")
    sentence = Sentence(
        words=tuple(token["form"] for token in words),
        tags=tuple(token["upos"] for token in words),
        heads=heads,
        relations=tuple(token["deprel"].partition(":")[0] for token in words),
        features=tuple(token["feats"] or {} for token in words),
    )
    try:
        sentence.depths.sum()
    except RecursionError as error:
        raise ValueError("its heads form a circle") from error
    return sentence
