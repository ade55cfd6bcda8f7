"""BLiMP: minimal pairs of a grammatical and an ungrammatical sentence. Needs no TensorFlow.

References:
    Warstadt et al. 2020, arXiv 1912.00582.
"""

import dataclasses
import json
import os
import pathlib
import zipfile
from typing import Any

from undivided_tf.data import packed
from undivided_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Paradigm:
    """Pairs of one kind.

    Attributes:
        name: such as `principle_A_case_1`.
        phenomenon: such as `binding`.
        field: field of linguistics, such as `syntax`.
        pairs: (grammatical, ungrammatical).
    """

    name: str
    phenomenon: str
    field: str
    pairs: tuple[tuple[str, str], ...]


_SENTENCES = ("sentence_good", "sentence_bad")
_NAMES = ("UID", "linguistics_term", "field")


def read(path: str | os.PathLike) -> list[Paradigm]:
    """The paradigms of the archive, in the order of their files' names.

    Raises:
        InputError: the archive is absent or damaged, has no paradigm or two of one name, or a line
            is not in BLiMP's format; names file and line.
    """
    paradigms: dict[str, Paradigm] = {}
    for member in packed.members(pathlib.Path(path)):
        if member.name.lower().endswith(".jsonl"):
            paradigm = _paradigm(member)
            if paradigm.name in paradigms:
                raise InputError(
                    f"{member}: the paradigm {paradigm.name!r} is in another file of the archive, "
                    "too; a paradigm has one file"
                )
            paradigms[paradigm.name] = paradigm
    if not paradigms:
        raise InputError(f"{path}: holds no .jsonl file: give BLiMP.zip of alexwarstadt/blimp")
    return list(paradigms.values())


def _paradigm(file: zipfile.Path) -> Paradigm:
    """Reads the pairs of a file, which must all be of one paradigm."""
    pairs, names = [], None
    for number, line in enumerate(packed.read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        row = _row(line, f"{file}:{number}")
        pairs.append(tuple(row[key] for key in _SENTENCES))
        row_names = tuple(row[key] for key in _NAMES)
        names = names or row_names
        if row_names != names:
            raise InputError(
                f"{file}:{number}: {', '.join(row_names)}, but the lines before have "
                f"{', '.join(names)}; a file holds one paradigm"
            )
    if names is None:
        raise InputError(f"{file}: has no pairs; remove it from the archive")
    return Paradigm(*names, tuple(pairs))


def _row(line: str, where: str) -> dict[str, Any]:
    """The object of a line, with all keys that are used."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a pair of BLiMP: not JSON ({error})") from error
    for key in (*_SENTENCES, *_NAMES):
        if not isinstance(row, dict) or key not in row:
            raise InputError(f"{where}: not a pair of BLiMP: there is no {key!r}")
        if not isinstance(row[key], str) or not row[key].strip():
            raise InputError(
                f"{where}: not a pair of BLiMP: {key!r} is {json.dumps(row[key])} instead of a text"
            )
    return row
