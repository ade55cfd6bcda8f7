"""Documents, the parts of a corpus. Needs no TensorFlow."""

import hashlib
from typing import NamedTuple


class Document(NamedTuple):
    """A text whose paragraphs belong together.

    Attributes:
        source: its file, wheel or data set.
        paragraphs: stripped, without line breaks; at least one, none empty.
    """

    source: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        """The paragraphs, one per line, as in a corpus file."""
        return "\n".join(self.paragraphs)

    @property
    def position(self) -> float:
        """A number in [0, 1), a hash of the text."""
        return position(hashlib.sha256(self.text.encode()).digest())

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8."""
        return len(self.text.encode())


def position(digest: bytes) -> float:
    """The `position` of a document, from the SHA-256 of its text: the first 52 bits."""
    return (int.from_bytes(digest[:7]) >> 4) / 2**52


def document(source: str, text: str) -> Document | None:
    """A document from text with one paragraph per line; None if there is only white space."""
    paragraphs = tuple(line.strip() for line in text.split("\n") if line.strip())
    return Document(source, paragraphs) if paragraphs else None
