"""Weights in safetensors files, named after their variables; loaded strictly."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from absl import logging
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from undivided_tf.errors import InputError
from undivided_tf.support import files

WEIGHTS = "weights.safetensors"


def named_weights(variables: Iterable[Any]) -> dict[str, Any]:
    """Variables by their paths, such as `encoder/block_00_attention/query/kernel`.

    Raises:
        ValueError: two variables share a path.
    """
    variables = list(variables)
    named = {variable.path: variable for variable in variables}
    if len(named) < len(variables):
        raise ValueError("two variables share a path: give their layers different names")
    return named


def dropout_states(model: Any) -> list[Any]:
    """The variables of a Keras model that are not weights, in a fixed order."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def save_arrays(variables: Mapping[str, Any], path: pathlib.Path) -> None:
    """Writes variables by name; raises OSError if the disk is full."""
    try:
        save_file({name: np.asarray(variable) for name, variable in variables.items()}, path)
    except SafetensorError as error:  # The library's error for a full disk.
        raise OSError(f"cannot write {path}: {error}") from error


def require_finite(arrays: Mapping[str, np.ndarray], where: Any) -> None:
    """Raises an error if a weight is not finite.

    Args:
        arrays: weights by name; arrays that are not floats are not checked.
        where: their file or folder, for the message.

    Raises:
        InputError: a NaN or infinite value; names the first such tensor and the number of values.
    """
    for name, array in arrays.items():
        # NumPy's kind of the library's bfloat16 and float8 is V, not f.
        if array.dtype.kind not in "fV" or np.isfinite(array).all():
            continue
        bad = int(array.size - np.isfinite(array).sum())
        nan = int(np.isnan(array).sum())
        raise InputError(
            f"{where}: {name} has {bad} of {array.size} values that are not finite in "
            f"{array.dtype} ({nan} NaN, {bad - nan} infinite): the weights are damaged or their "
            "training has diverged; take another copy or an earlier checkpoint"
        )


def assign(
    variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], where: pathlib.Path
) -> None:
    """Assigns arrays to the variables of the same names; names and shapes must match.

    Raises:
        InputError: arrays that are missing, unused or of another shape (lists them), or a value
            that is not finite.
    """
    problems = [f"missing: {name}" for name in variables if name not in arrays]
    problems += [f"unused: {name}" for name in arrays if name not in variables]
    problems += [
        f"shape of {name}: {arrays[name].shape} there, {tuple(variable.shape)} in the model"
        for name, variable in variables.items()
        if name in arrays and arrays[name].shape != tuple(variable.shape)
    ]
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise InputError(
            f"the weights in {where} do not fit the model:\n  " + "\n  ".join(problems[:10]) + more
        )
    require_finite(arrays, where)
    for name, variable in variables.items():
        variable.assign(arrays[name])


def read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays in `weights.safetensors` of a directory; InputError if unreadable."""
    files.check_fetched(path / WEIGHTS)
    try:
        return load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path / WEIGHTS} cannot be read: {error}") from error


def load_weights(variables: Iterable[Any], path: pathlib.Path, scope: str = "") -> None:
    """Assigns the weights of a checkpoint; logs the weights that it skips.

    Args:
        variables: Keras variables; every one must be in the file and have its shape.
        path: a directory with `weights.safetensors`.
        scope: only weights whose name starts with `scope/`; empty: all must be used.

    Raises:
        InputError: an unreadable file, or weights that do not fit.
    """
    arrays = read_weights(path)
    outside = [name for name in arrays if scope and not name.startswith(f"{scope}/")]
    for name in outside:
        del arrays[name]
    assign(named_weights(variables), arrays, path)
    logging.info("%s: %d weights loaded, left out: %s", path, len(arrays), outside or "none")


def assign_initial_weights(
    variables: Iterable[Any],
    arrays: Mapping[str, np.ndarray],
    path: pathlib.Path,
    new_weights: tuple[str, ...],
) -> dict[str, Any]:
    """Assigns all weights except `new_weights`; logs and returns the names.

    Args:
        variables: Keras variables; each must be in the file with its shape, or in `new_weights`.
        arrays: result of `read_weights`. Unused arrays of heads are skipped; an unused array of the
            encoder is an error.
        path: for messages.
        new_weights: names of variables, or of layers, that keep their values.

    Returns:
        `loaded` (a number), `new` (names) and `unused` (names of `arrays`).

    Raises:
        InputError: weights that do not fit, or a new name that no variable has.
    """
    named = named_weights(variables)

    def is_in(name: str, layer: str) -> bool:
        return name == layer or name.startswith(f"{layer}/")

    def is_new(name: str) -> bool:
        return any(is_in(name, new) for new in new_weights)

    for new in new_weights:
        if not any(is_in(name, new) for name in named):
            raise InputError(f"new_weights names {new!r}, but the model has no such weights")
    fresh = [name for name in named if is_new(name)]
    wanted = {name: variable for name, variable in named.items() if name not in fresh}
    unused = [n for n in arrays if n not in wanted and (is_new(n) or not is_in(n, "encoder"))]
    try:
        assign(wanted, {n: array for n, array in arrays.items() if n not in unused}, path)
    except InputError as error:
        raise InputError(
            f"{error}\nname weights that keep their initial values: --new_weights"
        ) from error
    logging.info(
        "%s: %d weights loaded; new: %s; unused: %s",
        path,
        len(wanted),
        ", ".join(fresh) or "none",
        ", ".join(unused) or "none",
    )
    return {"loaded": len(wanted), "new": fresh, "unused": unused}
