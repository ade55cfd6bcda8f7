"""Documents: what a corpus consists of, and how text files become them. Needs no TensorFlow."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from undivided_tf import files
from undivided_tf.errors import InputError


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
        return int(files.sha256(self.text)[:13], 16) / 16**13

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8."""
        return len(self.text.encode())


def document(source: str, text: str) -> Document | None:
    """A document from text with one paragraph a line; None when there is only white space."""
    paragraphs = tuple(line.strip() for line in text.split("\n") if line.strip())
    return Document(source, paragraphs) if paragraphs else None


def read_file(path: str | os.PathLike) -> Iterator[Document]:
    """Streams the documents of a UTF-8 text file: one paragraph a line, a blank line ends one.

    Memory grows with the longest document, not with the file.

    Raises:
        InputError: the file cannot be opened, or a line is not UTF-8 (file and line are named).
    """
    paragraphs = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start} of "
                        "the line); convert the file, for example with iconv -t UTF-8"
                    ) from error
                if text:
                    paragraphs.append(text)
                elif paragraphs:
                    yield Document(str(path), tuple(paragraphs))
                    paragraphs = []
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if paragraphs:
        yield Document(str(path), tuple(paragraphs))
