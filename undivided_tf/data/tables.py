"""Tab-separated files in GLUE's way: no quoting, one row a line, a header or agreed columns.

Needs no TensorFlow.
"""

import dataclasses
import pathlib
import zipfile

from absl import logging

from undivided_tf import files
from undivided_tf.errors import InputError

Path = pathlib.Path | zipfile.Path


@dataclasses.dataclass(frozen=True)
class Table:
    """A file's rows.

    Attributes:
        path: of the file.
        header: names of the columns.
        rows: one list of fields a row, as many as the header has.
        lines: number of the line, from 1, that each row stands on.
    """

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """All fields of a column.

        Raises:
            InputError: there is no such column.
        """
        if name not in self.header:
            raise InputError(
                f"{self.path}:1: no column {name!r} among {', '.join(self.header)}; name the "
                "columns in task.json"
            )
        place = self.header.index(name)
        return [row[place] for row in self.rows]


def read_table(path: Path, header: tuple[str, ...] = (), tolerance: float = 0.0) -> Table:
    """Reads a TSV; quotes are ordinary characters, as in GLUE, and a byte order mark is skipped.

    Args:
        path: of the file, which may lie in a zip archive.
        header: the columns of a file that does not name them in its first line.
        tolerance: largest share of rows with a wrong number of fields that are dropped, counted
            and logged; more are an error.

    Raises:
        InputError: the file is absent, not UTF-8, has a NUL byte or no rows, or too many of
            its rows are too short or too long; names file and line.
    """
    try:
        text = files.decode(path.read_bytes(), path, "utf-8-sig")
    except (OSError, KeyError) as error:
        reason = getattr(error, "strerror", None) or "no such member of the archive"
        raise InputError(f"{path}: cannot be read: {reason}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(
            f"{path}:{line}: a NUL byte; the file is damaged or is not UTF-8 but UTF-16"
        )
    fields = [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")]
    names, start = (list(header), 0) if header else (fields[0], 1)
    lines = range(start + 1, len(fields) + 1)
    if len(fields) == start or not text:
        raise InputError(f"{path}: has no rows{'' if header else ' behind its header line'}")
    wrong = [number for number in lines if len(fields[number - 1]) != len(names)]
    if len(wrong) > tolerance * len(lines):
        raise InputError(
            f"{path}:{wrong[0]}: {len(fields[wrong[0] - 1])} columns, but the header has "
            f"{len(names)} ({', '.join(names)})"
            + (f"; so have {len(wrong) - 1} more of {len(lines)} rows" if len(wrong) > 1 else "")
        )
    if wrong:
        logging.warning(
            "%s: %d of %d rows dropped for a wrong number of columns, the first on line %d",
            path, len(wrong), len(lines), wrong[0],
        )  # fmt: skip
    dropped = set(wrong)
    kept = [number for number in lines if number not in dropped]
    return Table(path, names, [fields[number - 1] for number in kept], kept)
