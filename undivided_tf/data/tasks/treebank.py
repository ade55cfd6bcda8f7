"""Dependency treebanks in CoNLL-U, read by the package `conllu`.

References:
    Nivre et al. 2020, arXiv 2004.10643 (Universal Dependencies).
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator

import conllu
import numpy as np

from undivided_tf.data import packed
from undivided_tf.data.tasks.rows import checked_split
from undivided_tf.errors import InputError

_NAMES = {"train": "train", "validation": "dev", "test": "test"}
_COLUMNS = 10


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence with its tree.

    Attributes:
        words: forms, without multiword tokens and empty nodes.
        tags: universal parts of speech.
        heads: index of each word's head, -1 for the root.
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
        """Index of the root."""
        return self.heads.index(-1)

    @property
    def depths(self) -> np.ndarray:
        """Number of edges between each word and the root.

        Raises:
            InputError: heads form a cycle.
        """
        depths = np.full(len(self), -1)
        depths[self.root] = 0
        for word in range(len(self)):
            path = []
            while depths[word] < 0:
                path.append(word)
                if len(path) > len(self):
                    raise InputError("its heads form a cycle")
                word = self.heads[word]
            depths[path] = depths[word] + np.arange(len(path), 0, -1)
        return depths

    @property
    def distances(self) -> np.ndarray:
        """Number of edges between each pair of words, `(words, words)`."""
        n = len(self)
        distances = np.full((n, n), -1)
        # From the root down, so that the distances of a word's head are known first.
        order = np.argsort(self.depths, kind="stable")
        for number, word in enumerate(order):
            reached = order[:number]
            distances[word, word] = 0
            distances[word, reached] = distances[reached, word] = (
                distances[self.heads[word], reached] + 1
            )
        return distances


def read(folder: str, split: str) -> tuple[Sentence, ...]:
    """Reads the sentences of a split.

    Args:
        folder: it has one file `*-ud-train.conllu`, `*-ud-dev.conllu` and `*-ud-test.conllu`, each
            optionally compressed (`.gz`); names in any case.
        split: `train`, `validation` or `test`.

    Raises:
        InputError: no or several such files, or a file that is damaged, is not CoNLL-U or has no
            sentence; names file, line and sentence.
    """
    path = _file(folder, split)
    status = path.stat()
    return _parsed(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _parsed(path: pathlib.Path, size: int, modified: int) -> tuple[Sentence, ...]:
    """The sentences of a file, cached until its size or modification time changes."""
    sentences = []
    for first, lines in _blocks(packed.read_text(path)):
        sentences.append(_sentence(lines, first, f"sentence {len(sentences) + 1}", path))
    if not sentences:
        raise InputError(f"{path}: has no sentences")
    return tuple(sentences)


def files(folder: str) -> tuple[pathlib.Path, ...]:
    """The files of all splits; argument and errors as in `read`."""
    return tuple(_file(folder, split) for split in _NAMES)


def _file(folder: str, split: str) -> pathlib.Path:
    name = f"*-ud-{_NAMES[checked_split(split)]}.conllu"
    pattern = re.compile(rf".*{re.escape(name[1:])}(\.gz)?", re.IGNORECASE)
    matching = [p for p in sorted(pathlib.Path(folder).glob("*")) if pattern.fullmatch(p.name)]
    if len(matching) != 1:
        raise InputError(f"{folder}: one file {name} (or .gz) is needed, there are {len(matching)}")
    return matching[0]


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of each sentence, comments included, and the line number of the first."""
    lines: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            lines.append(line.removesuffix("\r"))
        elif lines:
            if not all(line.startswith("#") for line in lines):
                yield number - len(lines), lines
            lines = []


def _sentence(lines: list[str], first: int, name: str, path: pathlib.Path) -> Sentence:
    """The tree of a sentence.

    Args:
        lines: lines of the file.
        first: line number of the first line.
        name: name of the sentence, for errors.
        path: path of the file, for errors.
    """
    rows = [(n, line) for n, line in enumerate(lines, first) if not line.startswith("#")]
    for number, line in rows:
        if (columns := line.count("\t") + 1) != _COLUMNS:
            raise InputError(
                f"{path}:{number}: {name}: {columns} columns, but CoNLL-U has {_COLUMNS}, with "
                "tabs between them"
            )
    try:
        (tokens,) = conllu.parse("\n".join(line for _, line in rows))
    except (conllu.exceptions.ParseException, ValueError) as error:
        raise InputError(f"{path}:{first}: {name}: {error}") from error
    # Ids of multiword tokens ("1-2") and empty nodes ("1.1") are not integers.
    words = [
        (number, token)
        for (number, _), token in zip(rows, tokens, strict=True)
        if isinstance(token["id"], int)
    ]
    for place, (number, token) in enumerate(words, 1):
        if token["id"] != place:
            raise InputError(
                f"{path}:{number}: {name}: id {token['id']} instead of {place}; heads are ids, so "
                "words must be numbered from 1 in order"
            )
        if token["head"] is None:
            raise InputError(
                f"{path}:{number}: {name}: {token['form']!r} has no head (_); remove sentences "
                "that are not annotated"
            )
        if not 0 <= token["head"] <= len(words):
            raise InputError(
                f"{path}:{number}: {name}: {token['form']!r} has the head {token['head']}, which "
                f"is no word of the {len(words)}"
            )
    heads = tuple(token["head"] - 1 for _, token in words)
    if heads.count(-1) != 1:
        raise InputError(
            f"{path}:{first}: {name}: {heads.count(-1)} roots; a tree has one (head 0)"
        )
    sentence = Sentence(
        words=tuple(token["form"] for _, token in words),
        tags=tuple(token["upos"] for _, token in words),
        heads=heads,
        relations=tuple(token["deprel"].partition(":")[0] for _, token in words),
        features=tuple(token["feats"] or {} for _, token in words),
    )
    try:
        sentence.depths.sum()
    except InputError as error:
        raise InputError(f"{path}:{first}: {name}: {error}") from error
    return sentence
