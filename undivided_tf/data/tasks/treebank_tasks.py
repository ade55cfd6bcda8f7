"""Probing tasks about the words and the sentences of a treebank. Needs no TensorFlow.

References:
    Conneau et al. 2018, arXiv 1805.01070 (the sentence tasks, here derived from a treebank).
    Tenney et al. 2019, arXiv 1905.06316 (edge probing).
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from undivided_tf.config import SPLITS
from undivided_tf.data.tasks import treebank
from undivided_tf.data.tasks.rows import (
    Rows,
    Task,
    labelled_texts,
    learnable,
    positions,
    training_labels,
)
from undivided_tf.data.tasks.treebank import Sentence
from undivided_tf.errors import InputError

HEAD_DISTANCES = ("root", *(f"{n:+d}" for n in (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)))
LENGTHS, DEPTHS = (5, 10, 15, 20, 30), (2, 3, 4, 5, 6)
CONTENT_WORDS = 30


@dataclasses.dataclass(frozen=True, eq=False)
class WordRows:
    """Labelled words, or pairs of words, in their sentences.

    Attributes:
        sentences: lists of words.
        sentence: int `(items,)`, index of the sentence of each item.
        places: int `(items, 1)` or `(items, 2)`, indices of its word or words.
        labels: int32 `(items,)`, indices in `WordTask.labels`.
    """

    sentences: list[tuple[str, ...]]
    sentence: np.ndarray
    places: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def types(self) -> list[str]:
        """The word type of each item in lower case; for a pair that of its first word."""
        return [
            self.sentences[s][p].lower()
            for s, p in zip(self.sentence, self.places[:, 0], strict=True)
        ]

    def take(self, n: int, seed: int) -> "WordRows":
        """Items of randomly chosen sentences, `n` in total; all if `n` is 0."""
        if n <= 0 or n >= len(self):
            return self
        order = np.random.default_rng(seed).permutation(len(self.sentences))
        counts = np.bincount(self.sentence, minlength=len(self.sentences))[order]
        chosen = np.sort(order[: int(np.searchsorted(np.cumsum(counts), n)) + 1])
        return self.pick(np.flatnonzero(np.isin(self.sentence, chosen))[:n])

    def pick(self, places: np.ndarray) -> "WordRows":
        """The items at some indices; sentences without items are left out."""
        kept, sentence = np.unique(self.sentence[places], return_inverse=True)
        return WordRows(
            [self.sentences[i] for i in kept], sentence, self.places[places], self.labels[places]
        )


@dataclasses.dataclass(frozen=True)
class WordTask:
    """A task about words.

    Attributes:
        name: name of the task in tables and file names.
        labels: label names; a label is its index here.
        read: function from a split to its rows.
        files: files of the treebank.
    """

    name: str
    labels: tuple[str, ...]
    read: Callable[[str], WordRows]
    files: tuple[pathlib.Path, ...] = ()


# === Words ===

Items = list[tuple[tuple[int, ...], str]]


def _tags(sentence: Sentence, _: np.random.Generator) -> Items:
    return [((i,), tag) for i, tag in enumerate(sentence.tags)]


def _relations(sentence: Sentence, _: np.random.Generator) -> Items:
    return [((i,), relation) for i, relation in enumerate(sentence.relations)]


def _head_distances(sentence: Sentence, _: np.random.Generator) -> Items:
    """How many words ahead the head is; five also stands for larger distances."""
    return [
        ((i,), "root" if head < 0 else f"{int(np.clip(head - i, -5, 5)):+d}")
        for i, head in enumerate(sentence.heads)
    ]


def _arcs(sentence: Sentence, rng: np.random.Generator) -> Items:
    """Whether the second word is the head of the first; half the pairs have no edge in the tree."""
    items: Items = []
    for word, head in enumerate(sentence.heads):
        unlinked = [
            i for i in range(len(sentence)) if i not in (word, head) and sentence.heads[i] != word
        ]
        if head >= 0 and unlinked:
            items.append(((word, head), "head"))
            items.append(((word, int(rng.choice(unlinked))), "other"))
    return items


WORD_TASKS = {"pos": _tags, "relation": _relations, "head_distance": _head_distances, "arc": _arcs}


def word_task(task: str, folder: str) -> WordTask:
    """A task about the words of a treebank.

    Args:
        task: one of `WORD_TASKS`.
        folder: as for `treebank.read`.

    Raises:
        InputError: as `treebank.read`, a word is not annotated, or training has fewer than two
            labels.
    """

    def items(split: str) -> list[Items]:
        # One draw per split, so that the items are the same for all encoders.
        rng = np.random.default_rng(SPLITS.index(split))
        by_sentence = [WORD_TASKS[task](sentence, rng) for sentence in treebank.read(folder, split)]
        for number, of_sentence in enumerate(by_sentence, 1):
            if any(label in ("", "_") for _, label in of_sentence):
                raise InputError(
                    f"{where}, {split}: sentence {number} has a word without annotation (_); "
                    "choose a task that the treebank is annotated for, or remove the sentence"
                )
        return by_sentence

    def read(split: str) -> WordRows:
        flat = [(i, *item) for i, of_sentence in enumerate(items(split)) for item in of_sentence]
        flat = learnable(flat, labels, f"{where}, {split}")
        return WordRows(
            [sentence.words for sentence in treebank.read(folder, split)],
            np.array([i for i, _, _ in flat], np.int64),
            np.array([places for _, places, _ in flat], np.int64),
            positions([label for _, _, label in flat], labels),
        )

    where = f"ud:{task}:{folder}"
    seen = {label for of_sentence in items("train") for _, label in of_sentence}
    labels = HEAD_DISTANCES if task == "head_distance" else training_labels(seen, where)
    return WordTask(f"ud_{task}", labels, read, treebank.files(folder))


# === Sentences ===


def _length(sentence: Sentence, _: set[str]) -> str | None:
    return _bin(len(sentence), LENGTHS)


def _depth(sentence: Sentence, _: set[str]) -> str | None:
    return _bin(int(sentence.depths.max()), DEPTHS)


def _bin(value: int, edges: Sequence[int]) -> str:
    """`up to 5`, `up to 10` ..., `more`; two digits, so that names sort as numbers do."""
    return next((f"up to {edge:02d}" for edge in edges if value <= edge), "more")


def _tense(sentence: Sentence, _: set[str]) -> str | None:
    """Tense of the root, if it is a finite verb."""
    features = sentence.features[sentence.root]
    return features.get("Tense") if features.get("VerbForm") == "Fin" else None


def _number(relation: str) -> Callable[[Sentence, set[str]], str | None]:
    def number(sentence: Sentence, _: set[str]) -> str | None:
        for word, head in enumerate(sentence.heads):
            if head == sentence.root and sentence.relations[word] == relation:
                return sentence.features[word].get("Number")
        return None

    return number


def _content(sentence: Sentence, words: set[str]) -> str | None:
    """The word of a list that the sentence contains, if it contains exactly one."""
    targets = words & {word.lower() for word in sentence.words}
    return targets.pop() if len(targets) == 1 else None


SENTENCE_TASKS = {
    "length": _length,
    "depth": _depth,
    "tense": _tense,
    "subject_number": _number("nsubj"),
    "object_number": _number("obj"),
    "word_content": _content,
    "bigram_shift": None,
}


def sentence_task(task: str, folder: str) -> Task:
    """A task about the sentences of a treebank.

    Args:
        task: one of `SENTENCE_TASKS`.
        folder: as for `treebank.read`.

    Raises:
        InputError: as `treebank.read`, or training has fewer than two labels.
    """
    words: set[str] = set()
    if task == "word_content":
        counts = collections.Counter(
            word.lower()
            for sentence in treebank.read(folder, "train")
            for word, tag in zip(sentence.words, sentence.tags, strict=True)
            if tag in ("NOUN", "VERB")
        )
        words = {word for word, _ in counts.most_common(CONTENT_WORDS)}

    def labelled(split: str) -> list[tuple[str, str]]:
        sentences = treebank.read(folder, split)
        if task == "bigram_shift":
            rng = np.random.default_rng(SPLITS.index(split))
            return [_shifted(sentence.words, rng) for sentence in sentences if len(sentence) > 3]
        pairs = ((" ".join(s.words), SENTENCE_TASKS[task](s, words)) for s in sentences)
        return [(text, label) for text, label in pairs if label is not None]

    where = f"ud:{task}:{folder}"
    labels = training_labels({label for _, label in labelled("train")}, where)

    def read(split: str) -> Rows:
        return labelled_texts(learnable(labelled(split), labels, f"{where}, {split}"), labels)

    return Task(f"ud_{task}", labels, False, read, files=treebank.files(folder))


def _shifted(words: tuple[str, ...], rng: np.random.Generator) -> tuple[str, str]:
    """The sentence, unchanged or with two adjacent words swapped."""
    place = int(rng.integers(len(words) - 1))
    if rng.random() < 0.5 or words[place] == words[place + 1]:
        return " ".join(words), "original"
    swapped = (*words[:place], words[place + 1], words[place], *words[place + 2 :])
    return " ".join(swapped), "shifted"
