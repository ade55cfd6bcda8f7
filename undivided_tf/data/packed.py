"""Reads files that may be compressed with gzip or be members of a zip archive.

Needs no TensorFlow.
"""

import contextlib
import gzip
import lzma
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator

from undivided_tf.errors import InputError
from undivided_tf.support import files

Path = pathlib.Path | zipfile.Path

GZIP = b"\x1f\x8b"  # First bytes of a gzip file.
NUL = (
    "a NUL byte; the file is damaged or is not UTF-8 but UTF-16 (convert it, for example with "
    "iconv -f UTF-16 -t UTF-8)"
)
# Errors of Python's zip and gzip readers for damaged bytes, in addition to OSError.
_DAMAGE = (
    EOFError,
    ValueError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns errors of reading a file into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: cannot be read: no such member of the archive") from error
    except (OSError, *_DAMAGE) as error:
        if getattr(error, "strerror", None):
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: damaged: {reason}; fetch or compress it again") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file or of a zip member, decompressed if it is gzip.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    with reading(path):
        content = path.read_bytes()
        is_packed = content.startswith(GZIP) or path.name.lower().endswith(".gz")
        return gzip.decompress(content) if is_packed else content


def read_text(path: Path) -> str:
    """The content of a file, see `read_bytes`, as text without a byte order mark.

    Raises:
        InputError: as `read_bytes`, or a line is not UTF-8 or has a NUL byte (the line is named).
    """
    text = files.decode(read_bytes(path), path, "utf-8-sig")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}:{line}: {NUL}")
    return text


def members(archive: pathlib.Path) -> list[zipfile.Path]:
    """The files in a zip archive by name, without the files of macOS's Finder.

    Raises:
        InputError: there is no such archive, or it is damaged.
    """
    with reading(archive):
        opened = zipfile.ZipFile(archive)
        names = sorted(name for name in opened.namelist() if not name.endswith("/"))
        return [zipfile.Path(opened, name) for name in names if not name.startswith("__MACOSX")]
