"""Checkpoints: directories of safetensors, written atomically and loaded strictly.

WORKDIR/checkpoints/step_00002000/
    weights.safetensors    encoder and heads, by the names of their variables
    training.safetensors   optimizer and dropout states (pre-training only)
    state.json             the step, and further values that a resumed run needs
    encoder.json           EncoderConfig
    vocab.txt              the vocabulary that the ids belong to
    ema/                   weights, encoder and vocabulary once more: the moving average
    checksums.json         SHA-256 of each of them
"""

import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging
from safetensors import SafetensorError
from safetensors.numpy import load_file

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.weights import WEIGHTS, assign, load_weights, named_weights, save_arrays
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer

TRAINING, STATE, ENCODER, VOCABULARY = (
    "training.safetensors",
    "state.json",
    "encoder.json",
    "vocab.txt",
)
CHECKSUMS = "checksums.json"
# The inputs of a run that starts from a checkpoint are weights, vocabulary, encoder and head: files
# with these suffixes, except the state for resumption and the records of earlier work.
_INPUT_SUFFIXES = (".safetensors", ".txt", ".json")
_NO_INPUTS = (TRAINING, STATE, CHECKSUMS, "surgery.json", "conversion.json")


def _numbered(variables: Iterable[Any]) -> dict[str, Any]:
    """Names variables by their index, for variables whose paths are not stable."""
    return {f"{i:05d}": variable for i, variable in enumerate(variables)}


def save_model(
    directory: pathlib.Path, variables: Iterable[Any], config: EncoderConfig, tokenizer: Tokenizer
) -> None:
    """Writes weights, architecture and vocabulary into an unfinished directory.

    Args:
        directory: an existing directory, usually a path of `files.atomic_path`.
        variables: Keras variables of the encoder and its heads.
        config: architecture of the encoder.
        tokenizer: tokenizer of the encoder.
    """
    save_arrays(named_weights(variables), directory / WEIGHTS)
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
        state: JSON values for state.json. `step` is the number of optimizer steps done; an optional
            `best` holds the `step` of the best checkpoint.
        model: Keras model with an `encoder`; its weights are saved.
        training_variables: further variables, in a fixed order: optimizer, dropout states.
        tokenizer: tokenizer of the encoder.
        keep: number of newest checkpoints to keep, from 1.
        averages: moving averages of the model's trainable weights, in their order; saved as a
            separate model in the folder `ema`.

    Returns:
        The directory of the checkpoint.

    Raises:
        OSError: the disk is full or the directory is not writable; older checkpoints stay.
    """
    path = pathlib.Path(workdir) / "checkpoints" / _name(state["step"])
    with files.atomic_path(path) as partial:
        partial.mkdir()
        save_model(partial, model.weights, model.encoder.config, tokenizer)
        save_arrays(_numbered(training_variables), partial / TRAINING)
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
    """Saves the averages as a separate model in the folder `ema` of `directory`."""
    directory.mkdir()
    save_arrays(averages, directory / WEIGHTS)
    for name in (ENCODER, VOCABULARY):
        shutil.copy(model / name, directory / name)
    seal(directory)


def seal(directory: pathlib.Path) -> None:
    """Writes the checksums of the files of a checkpoint, and replaces older ones."""
    members = [p for p in sorted(directory.iterdir()) if p.is_file() and p.name != CHECKSUMS]
    checksums = {path.name: files.sha256_of_file(path) for path in members}
    files.write_json(directory / CHECKSUMS, checksums)


def _verify(directory: pathlib.Path) -> None:
    """Raises ValueError or OSError if a file differs from its checksum.

    Checkpoints are written atomically, so one without checksums was written by an older release. It
    is loaded without this check, since refusing it could lose days of training.
    """
    if not (directory / CHECKSUMS).exists():
        logging.warning(
            "checkpoint %s has no %s: it is of an older release and is read unchecked",
            directory,
            CHECKSUMS,
        )
        return
    for name, checksum in files.read_json(directory / CHECKSUMS).items():
        if files.sha256_of_file(directory / name) != checksum:
            raise ValueError(f"{name} has changed since it was written")


def _name(step: int | None) -> str:
    return "" if step is None else f"step_{step:08d}"


def newest(workdir: str | pathlib.Path) -> pathlib.Path | None:
    """The directory of a run's newest checkpoint; None if there is none."""
    return max(_all(workdir), default=None)


def _all(workdir: str | pathlib.Path) -> list[pathlib.Path]:
    """All checkpoints of a run, oldest first."""
    return sorted((pathlib.Path(workdir) / "checkpoints").glob("step_*"))


def restore_latest(
    workdir: str | pathlib.Path, model: Any, training_variables: Iterable[Any]
) -> dict[str, Any] | None:
    """Restores the newest readable checkpoint of a run.

    A checkpoint that cannot be read is named in a warning, and the one before it is used.

    Args:
        workdir: the run's directory.
        model: as for `save`.
        training_variables: as for `save`, in the same order.

    Returns:
        The content of state.json; None if the run has no checkpoint yet.

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
                "checkpoint %s cannot be read (%s); USING THE ONE BEFORE IT: the steps "
                "since then are trained again",
                path,
                error,
            )
            continue
        assign(named_weights(model.weights), weights, path)
        assign(_numbered(training_variables), training, path)
        return state
    if candidates:
        raise InputError(
            f"none of the {len(candidates)} checkpoints in {candidates[-1].parent} can be read; "
            "remove that directory to start again"
        )
    return None


def resolve(path: str | pathlib.Path) -> pathlib.Path:
    """The directory with the weights: `path` itself, or the newest checkpoint of the run at `path`.

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


def input_files(path: str) -> dict[str, pathlib.Path]:
    """The files of a checkpoint that a run reads when it starts from it, by name.

    Raises:
        InputError: there is no checkpoint.
    """
    members = sorted(resolve(path).iterdir())
    return {p.name: p for p in members if p.suffix in _INPUT_SUFFIXES and p.name not in _NO_INPUTS}


def architecture_files(path: str) -> dict[str, pathlib.Path]:
    """Like `input_files`, without the weights."""
    return {name: file for name, file in input_files(path).items() if name != WEIGHTS}


def load_encoder(path: str | pathlib.Path, seed: int | None = None) -> tuple[Encoder, Tokenizer]:
    """Loads the encoder of a checkpoint; weights of heads are skipped and logged.

    Args:
        path: a pre-training workdir, or one of its checkpoints.
        seed: of the encoder's dropout.

    Returns:
        The encoder with its weights, and its tokenizer.

    Raises:
        InputError: no checkpoint at `path`, an unreadable file, a weight that is missing or has
            another shape, or a vocabulary that does not belong to the weights.
    """
    path = resolve(path)
    encoder, tokenizer = untrained_encoder(path, seed)
    load_weights(encoder.weights, path, scope=encoder.name)
    return encoder, tokenizer


def untrained_encoder(path: str | pathlib.Path, seed: int | None) -> tuple[Encoder, Tokenizer]:
    """The untrained twin of a checkpoint: same architecture and vocabulary, initial weights.

    Args:
        path: as for `load_encoder`.
        seed: of the weights.

    Raises:
        InputError: as for `load_encoder`.
    """
    path = resolve(path)
    config = EncoderConfig.from_json(path / ENCODER)
    return Encoder(config, seed=seed), read_tokenizer(path, config)


def read_tokenizer(path: pathlib.Path, config: EncoderConfig) -> Tokenizer:
    """The tokenizer of a checkpoint.

    Args:
        path: directory of the checkpoint.
        config: of its encoder.

    Raises:
        InputError: the vocabulary does not belong to the weights.
    """
    tokenizer = Tokenizer(path / VOCABULARY, config.do_lower_case)
    if tokenizer.vocabulary_hash != config.vocabulary_hash:
        raise InputError(
            f"{path / VOCABULARY} has the hash {tokenizer.vocabulary_hash[:12]}, the weights "
            f"belong to {config.vocabulary_hash[:12]}: restore the vocabulary of the checkpoint"
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{path / VOCABULARY} has {tokenizer.vocab_size} word pieces, but {ENCODER} describes "
            f"{config.vocab_size} embedding rows: restore the files of the checkpoint"
        )
    return tokenizer
