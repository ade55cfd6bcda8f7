"""Atomic files: written under a temporary name in the same directory, then renamed."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

from undivided_tf.errors import InputError

# First line of the text file that Git LFS keeps in place of a large file.
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def _flush(path: pathlib.Path) -> None:
    """Forces the bytes of a file, or the names in a directory, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, shared: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary path; on success the file or directory made there becomes `path`.

    If the body raises, the temporary path is removed and an older `path` stays unchanged. A killed
    process leaves at most a hidden `.NAME.partial` beside `path`, which the next writer replaces.

    Args:
        path: of the finished file or directory.
        shared: several processes may write `path` at the same time; the last complete one remains.
            Nobody removes the temporary path of a killed process then.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = f".{uuid.uuid4().hex}" if shared else ""
    partial = path.with_name(f".{path.name}{suffix}.partial")
    remove(partial)
    try:
        yield partial
        replace(partial, path)
    except BaseException:
        remove(partial)
        raise


def replace(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Forces a finished file or directory onto the disk, then renames it to `path`."""
    source, path = pathlib.Path(source), pathlib.Path(path)
    for member in sorted(source.rglob("*")) if source.is_dir() else []:
        _flush(member)
    _flush(source)
    if source.is_dir():
        remove(path)  # A directory cannot be renamed over a directory that is not empty.
    os.replace(source, path)
    _flush(path.parent)


def remove(path: str | os.PathLike) -> None:
    """Removes a file or a directory, if there is one."""
    path = pathlib.Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str, shared: bool = False) -> None:
    """Writes a UTF-8 text file atomically; `shared` as for `atomic_path`."""
    with atomic_path(path, shared) as partial:
        partial.write_text(text, encoding="utf-8")


def read_text(path: str | os.PathLike, encoding: str = "utf-8") -> str:
    """Reads a UTF-8 text file without translating line endings.

    Raises:
        InputError: the file cannot be read, or a line is not UTF-8 (names file and line).
    """
    path = pathlib.Path(path)
    try:
        return decode(path.read_bytes(), path, encoding)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def check_fetched(path: str | os.PathLike) -> None:
    """Raises InputError if a file is a Git LFS pointer instead of the data itself.

    References:
        https://github.com/git-lfs/git-lfs, docs/spec.md.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LFS_POINTER))
    except OSError:
        return  # The function that reads the file reports the error.
    if start == _LFS_POINTER:
        raise InputError(
            f"{path} is a Git LFS pointer, a few lines of text in place of the file: "
            "run `git lfs pull` in the clone that it is from, or download the file"
        )


def decode(content: bytes, where: Any, encoding: str = "utf-8") -> str:
    """Decodes bytes; the InputError for a line that is not UTF-8 names `where` and the line."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}:{line}: not UTF-8 ({error.reason}); convert the file, for example with "
            "iconv -t UTF-8"
        ) from error


def write_json(path: str | os.PathLike, value: Any, shared: bool = False) -> None:
    """Writes indented JSON atomically; refuses NaN, which JSON does not have."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text, shared)


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file, which may start with a byte order mark.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: the content is not JSON.
    """
    content = pathlib.Path(path).read_bytes()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON: {error}; it is damaged: restore a copy, or remove it"
        ) from error


def sha256_of_file(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of the content of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(*parts: bytes | str) -> str:
    """Hexadecimal SHA-256 of the concatenation of `parts`; strings count as UTF-8."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()
