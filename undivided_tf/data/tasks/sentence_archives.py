"""Tasks from archives of labelled sentences in NLTK's data. Needs no TensorFlow.

References:
    Li, Roth 2002 (TREC question types); Pang, Lee 2004, arXiv cs/0409058 (subjectivity).
"""

import pathlib

from undivided_tf.data import packed
from undivided_tf.data.tasks.rows import Rows, Task, labelled_texts, learnable, training_labels
from undivided_tf.errors import InputError
from undivided_tf.support import files


def _lines(archive: pathlib.Path, ending: str) -> list[tuple[str, str]]:
    """Places and Latin-1 lines of the only file in a zip archive whose name ends with `ending`.

    Blank lines are left out.
    """
    members = [member for member in packed.members(archive) if member.at.endswith(ending)]
    if len(members) != 1:
        raise InputError(f"{archive}: one file *{ending} is needed, there are {len(members)}")
    lines = packed.read_bytes(members[0]).decode("latin-1").split("\n")
    stripped = [(f"{members[0]}:{number}", line.strip()) for number, line in enumerate(lines, 1)]
    return [(where, line) for where, line in stripped if line]


def _tenth(text: str) -> int:
    """A hash of the text from 0 to 9, for a stable split."""
    return int(files.sha256(text)[:8], 16) % 10


def _question_types(archive: pathlib.Path) -> Task:
    """Six coarse types; a tenth of the training questions is the validation split."""

    def rows(ending: str) -> list[tuple[str, str]]:
        pairs = []
        for where, line in _lines(archive, ending):
            label, _, text = line.partition(" ")
            coarse, colon, _ = label.partition(":")
            if not (coarse and colon and text.strip()):
                raise InputError(
                    f"{where}: {line[:60]!r} is not a COARSE:fine label and a question"
                )
            pairs.append((text, coarse))
        return pairs

    train = rows("train.txt")
    labels = training_labels({label for _, label in train}, f"trec:{archive}")

    def read(split: str) -> Rows:
        chosen = (
            learnable(rows("test.txt"), labels, f"trec:{archive}, test")
            if split == "test"
            else [row for row in train if (_tenth(row[0]) == 0) == (split == "validation")]
        )
        return labelled_texts(chosen, labels)

    return Task("trec", labels, False, read, files=(archive,))


def _subjectivity(archive: pathlib.Path) -> Task:
    """Subjective or objective; a tenth of the sentences each for validation and for test."""
    labels = ("objective", "subjective")
    rows = [
        (line, label)
        for label, ending in zip(labels, ("plot.tok.gt9.5000", "quote.tok.gt9.5000"), strict=True)
        for _, line in _lines(archive, ending)
    ]

    def read(split: str) -> Rows:
        tenths = {"validation": (0,), "test": (1,)}.get(split, range(2, 10))
        return labelled_texts([row for row in rows if _tenth(row[0]) in tenths], labels)

    return Task("subjectivity", labels, False, read, files=(archive,))


ARCHIVES = {"trec": _question_types, "subjectivity": _subjectivity}
