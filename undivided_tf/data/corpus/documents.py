"""Documents, the parts of a corpus. Needs no TensorFlow."""

from collections.abc import Iterable, Iterator
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


def from_texts(source: str, texts: Iterable[str]) -> Iterator[Document]:
    """Streams one document per text; each line of a text is a paragraph.

    Blank lines, and texts of white space alone, are skipped.
    """
    for text in texts:
        paragraphs = tuple(line.strip() for line in text.split("\n") if line.strip())
        if paragraphs:
            yield Document(source, paragraphs)


def position(digest: bytes) -> float:
    """A number in [0, 1) that decides the split of a document.

    Args:
        digest: SHA-256 of the text of the document; its first 52 bits are used.
    """
    return (int.from_bytes(digest[:7]) >> 4) / 2**52
