"""Safetensors files, read and written one tensor at a time, and JSON objects of any origin."""

import json
import math
import pathlib
import struct
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from undivided_tf.errors import InputError
from undivided_tf.models.weights import require_finite
from undivided_tf.support import files

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object from a file that may be malformed in any way.

    Raises:
        InputError: the file is missing, is not JSON, contains NaN or Infinity, or is not an object.
    """

    def refuse(constant: str):
        raise ValueError(f"{constant} is not JSON")

    files.check_fetched(path)
    try:
        value = json.loads(files.read_text(path, "utf-8-sig"), parse_constant=refuse)
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply to be a config") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


class SafetensorsReader:
    """The tensors of one or several safetensors files, read one at a time.

    The library checks header and offsets. The values are read from the file instead of the
    library's memory map, because its pages would stay in memory in addition to the weights.

    Attributes:
        shapes: dict from tensor names to shapes.

    Args:
        paths: the files; each name may be in one of them only.

    Raises:
        InputError: a missing, truncated or damaged file, or a name that is in two files.
    """

    def __init__(self, paths: Iterable[pathlib.Path]):
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, tuple[pathlib.Path, str, int, int]] = {}
        for path in paths:
            for name, about in _checked_header(path).items():
                if name in self._places:
                    raise InputError(f"{name} is in {path} and in {self._places[name][0]}")
                self.shapes[name] = tuple(about["shape"])
                self._places[name] = (path, about["dtype"], *about["data_offsets"])

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor in float32.

        Raises:
            InputError: its values are not floats, or not finite.
        """
        path, kind, start, end = self._places[name]
        if kind not in _FLOATS:
            raise InputError(f"{path}: {name} holds {kind}; weights are {', '.join(_FLOATS)}")
        with path.open("rb") as file:
            file.seek(start)
            array = np.frombuffer(file.read(end - start), _FLOATS[kind])
        return as_float32(array.reshape(self.shapes[name]), name, path)


def as_float32(array: np.ndarray, name: str, where: Any) -> np.ndarray:
    """Converts a tensor to float32 and checks that all values are finite.

    Args:
        array: tensor of any float type, such as bfloat16 or float64.
        name: its name, for errors.
        where: its file or folder, for errors.

    Raises:
        InputError: NaN or infinite values, or values that overflow in float32.
    """
    with np.errstate(over="ignore"):
        single = np.asarray(array).astype(np.float32, copy=False)
    require_finite({name: single}, where)
    return single


def _checked_header(path: pathlib.Path) -> dict[str, Any]:
    """The entries of the header by tensor, with offsets from the start of the file."""
    files.check_fetched(path)
    try:
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a complete safetensors file ({error}): fetch it again"
        ) from error
    header.pop("__metadata__", None)
    for about in header.values():
        about["data_offsets"] = [8 + length + offset for offset in about["data_offsets"]]
    return header


def open_folder(folder: pathlib.Path) -> SafetensorsReader:
    """Opens the tensors of a Hugging Face folder: one file, or the shards in an index.

    Raises:
        InputError: no safetensors, an index that contradicts its shards, or an invalid file.
    """
    if (folder / INDEX).exists():
        return _open_shards(folder)
    if (folder / SINGLE).exists():
        return SafetensorsReader([folder / SINGLE])
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise InputError(
            f"{folder} has its weights in {pickled[0]}, a pickle, which can run any program when "
            "it is read. Use model.safetensors of the repository, or, if you trust the file, write "
            "one with transformers: model.save_pretrained(FOLDER, safe_serialization=True)"
        )
    raise InputError(f"{folder} has neither {SINGLE} nor {INDEX}")


def _open_shards(folder: pathlib.Path) -> SafetensorsReader:
    path = folder / INDEX
    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{path}: has no weight_map from tensor names to files")
    for name in places.values():
        if not isinstance(name, str) or pathlib.PurePath(name).name != name or "\\" in name:
            raise InputError(f"{path}: {name!r} is not a plain name of a file in {folder}")
        if not (folder / name).is_file():
            raise InputError(f"{path}: names the shard {name}, which is not in {folder}")
    reader = SafetensorsReader(folder / name for name in sorted(set(places.values())))
    lost = sorted(set(places) - set(reader.shapes))
    if lost:
        raise InputError(f"{path}: names {lost[0]}, which is not in {places[lost[0]]}")
    return reader


def write_tensors(
    path: pathlib.Path, tensors: Iterable[tuple[str, tuple[int, ...], Callable[[], np.ndarray]]]
) -> None:
    """Writes a safetensors file in float32, with one tensor in memory at a time.

    The library's `save_file` needs all tensors at once, a second copy of the weights.

    Args:
        path: the file, usually in an unfinished directory.
        tensors: for each tensor its name, its shape and a function that returns the array.

    References:
        https://github.com/huggingface/safetensors, section "Format".
    """
    tensors, header, end = list(tensors), {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in tensors:
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape, read in tensors:
            array = np.ascontiguousarray(read(), "<f4")
            if array.shape != tuple(shape):
                raise ValueError(f"{name} has the shape {array.shape}, announced {shape}")
            file.write(array.data)
