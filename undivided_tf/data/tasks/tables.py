"""Tab-separated files in GLUE's format: no quoting, one row per line, known columns.

Needs no TensorFlow.
"""

import dataclasses

from absl import logging

from undivided_tf.data import packed
from undivided_tf.data.packed import Path
from undivided_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class TsvTable:
    """The rows of a file.

    Attributes:
        path: path of the file.
        header: names of the columns.
        rows: a list of fields per row, as many as in the header.
        lines: line number of each row, from 1.
    """

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """All fields of a column.

        Raises:
            InputError: there is no such column, or there are several.
        """
        if name not in self.header:
            raise InputError(
                f"{self.path}:1: no column {name!r} among {', '.join(self.header)}; name the "
                "columns in task.json"
            )
        if self.header.count(name) > 1:
            raise InputError(f"{self.path}:1: {self.header.count(name)} columns {name!r}")
        place = self.header.index(name)
        return [row[place] for row in self.rows]


def read_table(path: Path, header: tuple[str, ...] = (), tolerance: float = 0.0) -> TsvTable:
    """Reads a TSV; quotes are ordinary characters, as in GLUE, and a byte order mark is skipped.

    Blank lines at the end are not rows, unless there is only one column.

    Args:
        path: path of the file, which may lie in a zip archive.
        header: the columns of a file without a header line.
        tolerance: up to this share, rows with a wrong number of fields are dropped, counted and
            logged; more are an error.

    Raises:
        InputError: the file is absent, damaged, not UTF-8, has a NUL byte or no rows, or too
            many of its rows are too short or too long; names file and line.
    """
    text = packed.read_text(path)
    fields = [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")]
    names, start = (list(header), 0) if header else (fields[0], 1)
    while len(names) > 1 and len(fields) > start and fields[-1] == [""]:
        fields.pop()
    lines = range(start + 1, len(fields) + 1)
    if len(fields) == start or not text:
        raise InputError(f"{path}: has no rows{'' if header else ' after its header line'}")
    wrong = [number for number in lines if len(fields[number - 1]) != len(names)]
    if len(wrong) > tolerance * len(lines):
        row = fields[wrong[0] - 1]
        what = "a blank line" if row == [""] else f"{len(row)} columns"
        raise InputError(
            f"{path}:{wrong[0]}: {what}, but the header has {len(names)} ({', '.join(names)})"
            + (f"; so have {len(wrong) - 1} more of {len(lines)} rows" if len(wrong) > 1 else "")
        )
    if wrong:
        logging.warning(
            "%s: %d of %d rows dropped for a wrong number of columns, the first on line %d",
            path,
            len(wrong),
            len(lines),
            wrong[0],
        )
    dropped = set(wrong)
    kept = [number for number in lines if number not in dropped]
    return TsvTable(path, names, [fields[number - 1] for number in kept], kept)
