"""Documents from files: text, JSON lines, Parquet, gzip. Needs no TensorFlow.

All readers stream: memory grows with the longest document, or for Parquet with a row group.
"""

import gzip
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator

from absl import logging

from undivided_tf.data import packed
from undivided_tf.data.corpus import documents
from undivided_tf.data.corpus.documents import Document
from undivided_tf.errors import InputError

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIX = ".parquet"
_PARQUET = b"PAR1"
# First bytes of unsupported formats, and what to do about each.
_UNSUPPORTED = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh": "compressed with bzip2: unpack it, or use gzip",
    b"\xfd7zXZ\0": "compressed with xz: unpack it, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it, or use gzip",
    b"%PDF-": "a PDF: extract its text",
}
# Limits of what is decoded at a time: bytes of a text file, rows of a Parquet file.
_BYTES, _ROWS = 1 << 16, 256


def read_file(path: str | os.PathLike, text_field: str = "text") -> Iterator[Document]:
    """Streams the documents of a file; its content or its name (in any case) gives the format.

    - Parquet (`.parquet`): one document per row, in the column `text_field`;
    - JSON lines (`.jsonl`, `.ndjson`, `.json`, or a JSON object as the first line): one object per
      line, the document in `text_field`;
    - any other: UTF-8 text, one paragraph per line; a blank line ends a document.

    Text and JSON lines may be compressed with gzip (`.gz`). In a field each line is a paragraph.
    Rows without text are skipped. Missing values of Parquet are counted and logged.

    Raises:
        InputError: the file cannot be read or is damaged, a line is not UTF-8, has a NUL byte, is
            not JSON or lacks the field (names file and line), there is no such column of strings,
            or the file is a PDF or compressed in another way.
    """
    start, name = _first_bytes(path), str(path).lower().removesuffix(".gz")
    if start.startswith(_PARQUET) or name.endswith(PARQUET_SUFFIX):
        texts = _parquet_texts(str(path), text_field)
    else:
        is_packed = start.startswith(packed.GZIP) or str(path).lower().endswith(".gz")
        lines, is_json = _with_kind(_lines(path, is_packed))
        if not is_json and not name.endswith(JSON_SUFFIXES):
            yield from _paragraph_documents(path, lines)
            return
        texts = _json_texts(path, lines, text_field)
    yield from documents.from_texts(str(path), texts)


def is_plain(path: str) -> bool:
    """Whether a file is plain text, by its name."""
    return not path.lower().endswith((*JSON_SUFFIXES, PARQUET_SUFFIX, ".gz"))


def _first_bytes(path: str | os.PathLike) -> bytes:
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    for mark, remedy in _UNSUPPORTED.items():
        if start.startswith(mark):
            raise InputError(f"{path}: is {remedy}")
    return start


def _with_kind(lines: Iterator[list[str]]) -> tuple[Iterator[list[str]], bool]:
    """The lines, and whether the first line that is not blank is a JSON object."""
    consumed: list[list[str]] = []
    for block in lines:
        consumed.append(block)
        if first := next(filter(None, block), ""):
            return itertools.chain(consumed, lines), first.startswith("{") and _is_json(first)
    return iter(consumed), False


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(path: str | os.PathLike, is_packed: bool) -> Iterator[list[str]]:
    """Stripped lines in lists of about `_BYTES` bytes, at least one line each."""
    number = 1
    try:
        with (gzip.open if is_packed else open)(path, "rb") as file:
            while data := file.read(_BYTES):
                data += file.readline()
                lines = _decoded(path, data, number).split("\n")
                if data.endswith(b"\n"):
                    lines.pop()
                yield [line.strip() for line in lines]
                number += len(lines)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: damaged gzip file after line {number - 1}: {error}; fetch or compress it "
            "again"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _decoded(path: str | os.PathLike, data: bytes, number: int) -> str:
    """Decodes complete lines; `number` is the line number of the first."""
    try:
        text = data.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        # Not `error.object`, which lacks the byte order mark.
        for line in data.split(b"\n"):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start} of the "
                    "line); convert the file, for example with iconv -t UTF-8"
                ) from error
            number += 1
        raise AssertionError("every line is UTF-8, but the text is not") from error
    if "\0" in text:
        number += text.count("\n", 0, text.index("\0"))
        raise InputError(f"{path}:{number}: {packed.NUL}")
    return text


def _paragraph_documents(path: str | os.PathLike, lines: Iterable[list[str]]) -> Iterator[Document]:
    paragraphs = []
    for line in itertools.chain.from_iterable(lines):
        if line:
            paragraphs.append(line)
        elif paragraphs:
            yield Document(str(path), tuple(paragraphs))
            paragraphs = []
    if paragraphs:
        yield Document(str(path), tuple(paragraphs))


def _json_texts(
    path: str | os.PathLike, lines: Iterable[list[str]], text_field: str
) -> Iterator[str]:
    numbered = enumerate(itertools.chain.from_iterable(lines), 1)
    for number, line in numbered:
        if not line:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}:{number}: not JSON ({error}); each line must be a JSON object"
            ) from error
        if not isinstance(row, dict) or text_field not in row:
            fields = ", ".join(row) if isinstance(row, dict) else f"a {type(row).__name__}"
            raise InputError(
                f"{path}:{number}: no field {text_field!r}, only {fields or 'nothing'}; name the "
                "field: --text_field=NAME"
            )
        text = row[text_field]
        if not isinstance(text, str):
            raise InputError(
                f"{path}:{number}: {text_field!r} is {json.dumps(text)[:40]}, which is not text; "
                "correct or remove the line, or name another field: --text_field=NAME"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{path}:{number}: {text_field!r} contains a lone surrogate, which is not a "
                f"character ({error.reason}); correct or remove it"
            ) from error
        yield text


def _parquet_texts(path: str, text_field: str) -> Iterator[str]:
    import pyarrow
    from pyarrow import parquet

    missing = 0
    try:
        with parquet.ParquetFile(
            path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
        ) as file:
            schema = file.schema_arrow
            kind = schema.field(text_field).type if text_field in schema.names else None
            if kind not in (pyarrow.string(), pyarrow.large_string()):
                columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
                raise InputError(
                    f"{path}: no column {text_field!r} of strings, only {columns}; name the "
                    "column: --text_field=NAME"
                )
            for batch in file.iter_batches(_ROWS, columns=[text_field]):
                missing += batch.column(0).null_count
                for text in batch.column(0).to_pylist():
                    yield text or ""
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    if missing:
        logging.warning("%s: %d rows have no %r and are skipped", path, missing, text_field)
