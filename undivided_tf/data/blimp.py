"""BLiMP: pairs of sentences of which one is grammatical. Needs no TensorFlow.

References:
    Warstadt et al. 2020, arXiv 1912.00582.
"""

import dataclasses
import json
import os
import zipfile

from undivided_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Paradigm:
    """Pairs of one kind.

    Attributes:
        name: such as `principle_A_case_1`.
        phenomenon: that it belongs to, such as `binding`.
        field: of linguistics, such as `syntax`.
        pairs: (grammatical, ungrammatical).
    """

    name: str
    phenomenon: str
    field: str
    pairs: tuple[tuple[str, str], ...]


def read(path: str | os.PathLike) -> list[Paradigm]:
    """The paradigms of the archive, in the order of their names.

    Raises:
        InputError: no such archive, no paradigm in it, or a line that is none of BLiMP's.
    """
    paradigms = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".jsonl") and not name.startswith("__MACOSX"):
                    paradigms.append(_paradigm(name, archive.read(name).decode("utf-8"), path))
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not paradigms:
        raise InputError(f"{path}: holds no .jsonl file: give BLiMP.zip of alexwarstadt/blimp")
    return paradigms


def _paradigm(name: str, text: str, path: str | os.PathLike) -> Paradigm:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append((row["sentence_good"], row["sentence_bad"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: {name}:{number}: no pair of BLiMP ({error!r})") from error
    return Paradigm(row["UID"], row["linguistics_term"], row["field"], tuple(rows))
