"""Checkpoints: directories of safetensors, written whole or not at all, loaded strictly.

WORKDIR/checkpoints/step_00002000/
    weights.safetensors    encoder and heads, by the names of their variables
    training.safetensors   optimizer and dropout states (pre-training only)
    state.json             step and what else a resumed run needs
    encoder.json           EncoderConfig
    vocab.txt              the vocabulary that the ids belong to
    ema/                   weights, encoder and vocabulary once more: the moving average
    checksums.json         SHA-256 of each of them
"""

import hashlib
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from undivided_tf import files
from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer

WEIGHTS, TRAINING, STATE, ENCODER, VOCABULARY = (
    "weights.safetensors",
    "training.safetensors",
    "state.json",
    "encoder.json",
    "vocab.txt",
)


CHECKSUMS = "checksums.json"


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


def _numbered(variables: Iterable[Any]) -> dict[str, Any]:
    """Variables by their place in a fixed order, for those whose paths are not stable."""
    return {f"{i:05d}": variable for i, variable in enumerate(variables)}


def _save_arrays(variables: Mapping[str, Any], path: pathlib.Path) -> None:
    try:
        save_file({name: np.asarray(variable) for name, variable in variables.items()}, path)
    except SafetensorError as error:  # What the library makes of a full disk.
        raise OSError(f"cannot write {path}: {error}") from error


def save_model(
    directory: pathlib.Path, variables: Iterable[Any], config: EncoderConfig, tokenizer: Tokenizer
) -> None:
    """Writes weights, architecture and vocabulary into a directory that is being made.

    Args:
        directory: an existing directory, usually that of `files.atomic_path`.
        variables: Keras variables of the encoder and its heads.
        config: the encoder's.
        tokenizer: the encoder's.
    """
    _save_arrays(named_weights(variables), directory / WEIGHTS)
    config.to_json(directory / ENCODER)
    tokenizer.save(directory / VOCABULARY)


def save(
    workdir: str | pathlib.Path,
    state: Mapping[str, Any],
    model: Any,
    training_variables: Iterable[Any],
    tokenizer: Tokenizer,
    keep: int,
    averages: Sequence[Any] = (),
) -> pathlib.Path:
    """Writes the checkpoint of a step; removes all but the newest `keep` and the best.

    Args:
        workdir: the run's directory.
        state: JSON values for state.json; `step` counts the optimizer steps done, `best`,
            where given, holds the `step` of the best checkpoint.
        model: Keras model with an `encoder`; its weights are saved.
        training_variables: further variables, in a fixed order: optimizer, dropout states.
        tokenizer: the encoder's.
        keep: checkpoints to keep, from 1.
        averages: moving averages of the model's trainable weights, in their order; they are
            saved as a model of its own in the folder `ema`.

    Returns:
        The directory of the checkpoint.

    Raises:
        OSError: the disk is full or the directory not writable; older checkpoints stay.
    """
    path = pathlib.Path(workdir) / "checkpoints" / _name(state["step"])
    with files.atomic_path(path) as partial:
        partial.mkdir()
        save_model(partial, model.weights, model.encoder.config, tokenizer)
        _save_arrays(_numbered(training_variables), partial / TRAINING)
        files.write_json(partial / STATE, state)
        if averages:
            names = named_weights(model.trainable_weights)
            _save_averages(partial / "ema", dict(zip(names, averages, strict=True)), partial)
        seal(partial)
    best = (state.get("best") or {}).get("step")
    for old in _all(workdir)[:-keep]:
        if old.name != _name(best):
            files.remove(old)
    return path


def _save_averages(
    directory: pathlib.Path, averages: Mapping[str, Any], model: pathlib.Path
) -> None:
    """A model of its own beside the one that was saved in `model`."""
    directory.mkdir()
    _save_arrays(averages, directory / WEIGHTS)
    for name in (ENCODER, VOCABULARY):
        shutil.copy(model / name, directory / name)
    seal(directory)


def seal(directory: pathlib.Path) -> None:
    """Writes the checksums of the files of a checkpoint, anew where there are some."""
    members = [p for p in sorted(directory.iterdir()) if p.is_file() and p.name != CHECKSUMS]
    checksums = {path.name: _checksum(path) for path in members}
    files.write_json(directory / CHECKSUMS, checksums)


def _checksum(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(directory: pathlib.Path) -> None:
    """Raises ValueError or OSError when a file is not what was written."""
    for name, checksum in files.read_json(directory / CHECKSUMS).items():
        if _checksum(directory / name) != checksum:
            raise ValueError(f"{name} has changed since it was written")


def _name(step: int | None) -> str:
    return "" if step is None else f"step_{step:08d}"


def newest(workdir: str | pathlib.Path) -> pathlib.Path | None:
    """The directory of a run's newest checkpoint, None when there is none."""
    return max(_all(workdir), default=None)


def _all(workdir: str | pathlib.Path) -> list[pathlib.Path]:
    """All checkpoints of a run, oldest first."""
    return sorted((pathlib.Path(workdir) / "checkpoints").glob("step_*"))


def restore_latest(
    workdir: str | pathlib.Path, model: Any, training_variables: Iterable[Any]
) -> dict[str, Any] | None:
    """Restores the newest readable checkpoint of a run.

    A checkpoint that cannot be read is named in a warning, and the one before it is taken.

    Args:
        workdir: the run's directory.
        model: as for `save`.
        training_variables: as for `save`, in the same order.

    Returns:
        The content of state.json, or None when the run has no checkpoint yet.

    Raises:
        InputError: there are checkpoints, but none can be read, or one does not fit the model.
    """
    candidates = _all(workdir)
    training_variables = list(training_variables)
    for path in reversed(candidates):
        try:
            _verify(path)
            weights = load_file(path / WEIGHTS)
            training = load_file(path / TRAINING)
            state = files.read_json(path / STATE)
        except (SafetensorError, OSError, ValueError) as error:
            logging.warning(
                "checkpoint %s cannot be read (%s); GOING BACK TO THE ONE BEFORE: the steps "
                "since then are trained again", path, error,
            )  # fmt: skip
            continue
        assign(named_weights(model.weights), weights, path)
        assign(_numbered(training_variables), training, path)
        return state
    if candidates:
        raise InputError(
            f"none of the {len(candidates)} checkpoints in {candidates[-1].parent} can be read; "
            "remove that directory to start anew"
        )
    return None


def assign(
    variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], where: pathlib.Path
) -> None:
    """Assigns arrays to variables of the same names; every one must fit.

    Raises:
        InputError: a missing, superfluous or misshapen array; lists them.
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
    for name, variable in variables.items():
        variable.assign(arrays[name])


def resolve(path: str | pathlib.Path) -> pathlib.Path:
    """The directory with the weights: `path` itself, or the newest checkpoint of the run there.

    Raises:
        InputError: there is no checkpoint at `path`.
    """
    if not str(path):
        raise InputError("a checkpoint is needed: the directory of a pre-training run")
    path = pathlib.Path(path)
    if (path / WEIGHTS).exists():
        return path
    candidates = _all(path)
    if not candidates:
        raise InputError(
            f"there is no checkpoint in {path}: give the workdir of run_pretraining, or "
            "WORKDIR/model_SEED of a fine-tuning"
        )
    return candidates[-1]


def load_encoder(path: str | pathlib.Path, seed: int | None = None) -> tuple[Encoder, Tokenizer]:
    """Loads the encoder of a checkpoint; weights of heads are left out and logged.

    Args:
        path: a pre-training workdir, or one of its checkpoints.
        seed: decides the dropout of the encoder.

    Returns:
        The encoder with its weights, and its tokenizer.

    Raises:
        InputError: no checkpoint there, an unreadable file, a weight that is missing or does
            not fit, or a vocabulary other than that of the weights.
    """
    path = resolve(path)
    encoder, tokenizer = untrained_encoder(path, seed)
    load_weights(encoder.weights, path, scope=encoder.name)
    return encoder, tokenizer


def load_weights(variables: Iterable[Any], path: pathlib.Path, scope: str = "") -> None:
    """Assigns the weights of a checkpoint; what is left out is logged.

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


def read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a directory with `weights.safetensors`; InputError when it is unreadable."""
    try:
        return load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path / WEIGHTS} cannot be read: {error}") from error


def assign_start(
    variables: Iterable[Any],
    arrays: Mapping[str, np.ndarray],
    path: pathlib.Path,
    new_weights: tuple[str, ...],
) -> dict[str, Any]:
    """Assigns all but the named weights; what it loaded and what not is logged and returned.

    Args:
        variables: Keras variables; every one must be in the file with its shape, or be named.
        arrays: what `read_weights` gave. Heads among them that no variable asks for are left
            out; an array of the encoder that is not asked for is an error.
        path: for messages.
        new_weights: names of variables, or of layers, that keep their values.

    Returns:
        `loaded` (how many), the names that are `new`, and those of `arrays` that are `unused`.

    Raises:
        InputError: weights that do not fit, or a name that no variable has.
    """
    named = named_weights(variables)

    def is_new(name: str) -> bool:
        return any(name == new or name.startswith(f"{new}/") for new in new_weights)

    fresh = [name for name in named if is_new(name)]
    for new in new_weights:
        if not any(name == new or name.startswith(f"{new}/") for name in named):
            raise InputError(f"new_weights names {new!r}, but the model has no such weights")
    wanted = {name: variable for name, variable in named.items() if name not in fresh}
    unused = [n for n in arrays if n not in wanted and (is_new(n) or not n.startswith("encoder/"))]
    try:
        assign(wanted, {n: array for n, array in arrays.items() if n not in unused}, path)
    except InputError as error:
        raise InputError(f"{error}\nname weights that shall start anew: --new_weights") from error
    logging.info(
        "%s: %d weights loaded; new: %s; unused: %s",
        path, len(wanted), ", ".join(fresh) or "none", ", ".join(unused) or "none",
    )  # fmt: skip
    return {"loaded": len(wanted), "new": fresh, "unused": unused}


def untrained_encoder(path: str | pathlib.Path, seed: int | None) -> tuple[Encoder, Tokenizer]:
    """The untrained twin of a checkpoint: its architecture and vocabulary, initial weights.

    Args:
        path: as for `load_encoder`.
        seed: decides the weights.

    Raises:
        InputError: as for `load_encoder`.
    """
    path = resolve(path)
    config = EncoderConfig.from_json(path / ENCODER)
    tokenizer = Tokenizer(path / VOCABULARY, config.do_lower_case)
    if tokenizer.vocabulary_hash != config.vocabulary_hash:
        raise InputError(
            f"{path / VOCABULARY} has the hash {tokenizer.vocabulary_hash[:12]}, the weights "
            f"belong to {config.vocabulary_hash[:12]}: restore the vocabulary of the checkpoint"
        )
    return Encoder(config, seed=seed), tokenizer
