"""What a page holds, whatever its format: sections of sentences, tables and figures.

In texts, backticks mark code. `layout` renders the same sections as HTML and as Markdown.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from undivided_tf.pattern import BlockPattern

FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Value:
    """One cell of a table.

    Attributes:
        text: the value as written.
        note: small print below it: ratio, interval, number of repetitions.
        number: the value at full precision; None for words.
        code: whether the text is a pattern, a tap or another literal.
    """

    text: str
    note: str = ""
    number: float | None = None
    code: bool = False

    @property
    def failed(self) -> bool:
        """Whether the value is absent because its cell failed."""
        return self.text == FAILED


def code(text: str) -> Value:
    """A literal."""
    return Value(text, code=True)


def number(value: float, show: Callable[[float], str], note: str = "") -> Value:
    """A number, written by `show`."""
    return Value(show(value), note, value)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first value of each row is its heading.

    Attributes:
        title: what the table shows.
        columns: headings, with units.
        rows: as many values a row as there are columns.
        note: how to read it, in a sentence or two.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: of its file, without ending; unique on the page.
        title: its caption.
        alternative: what it shows, for readers who cannot see it.
        draw: writes it to a path that ends in `.svg`.
    """

    name: str
    title: str
    alternative: str
    draw: Callable[[pathlib.Path], Any]


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; one with `stress` stands out."""

    text: str
    stress: bool = False


@dataclasses.dataclass(frozen=True)
class Finding:
    """Sentences on one subject, which is named in one or two words."""

    subject: str
    text: str


@dataclasses.dataclass(frozen=True)
class Findings:
    """A list of findings."""

    items: tuple[Finding, ...]


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of sentences; with `stress` it stands out."""

    items: tuple[str, ...]
    stress: bool = False


@dataclasses.dataclass(frozen=True)
class Code:
    """A literal block."""

    text: str


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A block pattern: drawn where the format can, described elsewhere."""

    pattern: BlockPattern


@dataclasses.dataclass(frozen=True)
class Details:
    """Parts that a reader opens where the format can hide them."""

    summary: str
    parts: tuple["Part", ...]


Part = Table | Figure | Text | Findings | Bullets | Code | Drawing | Details


@dataclasses.dataclass(frozen=True)
class Section:
    """Parts under one heading.

    Attributes:
        chapter: heading of the chapter that it belongs to.
        title: its own heading; empty: it begins the chapter.
        parts: in their order.
    """

    chapter: str
    title: str
    parts: tuple[Part, ...]
