"""Documents: what a corpus consists of. Needs no TensorFlow."""

import hashlib
from typing import NamedTuple


class Document(NamedTuple):
    """A text whose paragraphs belong together.

    Attributes:
        source: the file, wheel or data set it comes from.
        paragraphs: stripped, without line breaks; at least one, none empty.
    """

    source: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        """The paragraphs, one a line, as in a corpus file."""
        return "\n".join(self.paragraphs)

    @property
    def position(self) -> float:
        """A number in [0, 1) made from the text: the same text always gets the same one."""
        return position(hashlib.sha256(self.text.encode()).digest())

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8."""
        return len(self.text.encode())


def position(digest: bytes) -> float:
    """The `position` of a document, from the SHA-256 of its text: the first 52 bits."""
    return (int.from_bytes(digest[:7]) >> 4) / 2**52


def document(source: str, text: str) -> Document | None:
    """A document from text with one paragraph a line; None when there is only white space."""
    paragraphs = tuple(line.strip() for line in text.split("\n") if line.strip())
    return Document(source, paragraphs) if paragraphs else None
