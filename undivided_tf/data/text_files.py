"""Documents out of files: text, JSON lines, Parquet, gzip. Needs no TensorFlow.

All readers stream: memory grows with the longest document, for Parquet with a row group.
"""

import gzip
import itertools
import json
import os
import zlib
from collections.abc import Iterator

from undivided_tf.data.documents import Document, document
from undivided_tf.errors import InputError

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIX = ".parquet"
# Of a text file, and rows of a Parquet file, that are Python strings at a time.
_BYTES, _ROWS = 1 << 16, 256


def read_file(path: str | os.PathLike, text_field: str = "text") -> Iterator[Document]:
    """Streams the documents of a file; its name says what it is.

    - `.parquet`: a document a row, in the column `text_field`;
    - `.jsonl`, `.ndjson`, `.json`: a JSON object a line, the document in `text_field`;
    - any other: UTF-8 text, one paragraph a line, a blank line ends a document.

    The last two may be compressed, with `.gz` behind the name. In a field each line is a
    paragraph; rows without any text are passed over.

    Raises:
        InputError: the file cannot be read or is damaged, a line is not UTF-8, no JSON or
            without the field (file and line are named), there is no such column of strings.
    """
    name = str(path).removesuffix(".gz")
    if name.endswith(PARQUET_SUFFIX):
        texts = _parquet_texts(str(path), text_field)
    elif name.endswith(JSON_SUFFIXES):
        texts = _json_texts(path, text_field)
    else:
        yield from _paragraph_documents(path)
        return
    for text in texts:
        if found := document(str(path), text):
            yield found


def is_plain(path: str) -> bool:
    """Whether a file is nothing but text, by its name."""
    return not path.endswith((*JSON_SUFFIXES, PARQUET_SUFFIX, ".gz"))


def _lines(path: str | os.PathLike) -> Iterator[list[str]]:
    """Stripped lines, some thousands at a time: as many as make `_BYTES`, one at least."""
    number = 1
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as file:
            while data := file.read(_BYTES):
                data += file.readline()
                lines = _decoded(path, data, number).split("\n")
                if data.endswith(b"\n"):
                    lines.pop()
                yield [line.strip() for line in lines]
                number += len(lines)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: damaged gzip file, behind line {number - 1}: {error}; fetch or compress it "
            "again"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _decoded(path: str | os.PathLike, data: bytes, number: int) -> str:
    """The text of whole lines, of which the first has that number in its file."""
    try:
        return data.decode("utf-8-sig" if number == 1 else "utf-8")
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
        raise AssertionError("lines that are UTF-8 are not UTF-8 together") from error


def _paragraph_documents(path: str | os.PathLike) -> Iterator[Document]:
    paragraphs = []
    for lines in _lines(path):
        for text in lines:
            if text:
                paragraphs.append(text)
            elif paragraphs:
                yield Document(str(path), tuple(paragraphs))
                paragraphs = []
    if paragraphs:
        yield Document(str(path), tuple(paragraphs))


def _json_texts(path: str | os.PathLike, text_field: str) -> Iterator[str]:
    numbered = enumerate(itertools.chain.from_iterable(_lines(path)), 1)
    for number, line in numbered:
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"{path}:{number}: not JSON ({error}); each line must be a JSON object"
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get(text_field), str):
            told = ", ".join(row) if isinstance(row, dict) else f"a {type(row).__name__}"
            raise InputError(
                f"{path}:{number}: no field {text_field!r} with text, only {told or 'nothing'}; "
                "name the field: --text_field=NAME"
            )
        text = row[text_field]
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{path}:{number}: {text_field!r} holds half of a pair of surrogates, which is no "
                f"character ({error.reason}); mend or remove it"
            ) from error
        yield text


def _parquet_texts(path: str, text_field: str) -> Iterator[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            schema = file.schema_arrow
            kind = schema.field(text_field).type if text_field in schema.names else None
            if kind not in (pyarrow.string(), pyarrow.large_string()):
                columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
                raise InputError(
                    f"{path}: no column {text_field!r} of strings, only {columns}; name the "
                    "column: --text_field=NAME"
                )
            for batch in file.iter_batches(_ROWS, columns=[text_field]):
                for text in batch.column(0).to_pylist():
                    yield text or ""
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
