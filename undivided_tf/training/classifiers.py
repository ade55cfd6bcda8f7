"""Fine-tuned models on disk: weights, and the label names that their logits belong to."""

import pathlib
from typing import Any

import numpy as np
from absl import logging

from undivided_tf import files
from undivided_tf.errors import InputError
from undivided_tf.models.classifier import Classifier
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import checkpoints
from undivided_tf.training.weights import assign_start, load_weights, read_weights

CLASSIFIER = "classifier.json"
HEAD = "classifier_head"


def save_classifier(
    directory: pathlib.Path,
    classifier: Classifier,
    tokenizer: Tokenizer,
    *,
    task: str,
    max_seq_length: int,
) -> None:
    """Writes a fine-tuned model, whole or not at all.

    Args:
        directory: to be made.
        classifier: with its label names.
        tokenizer: the encoder's.
        task: name of the task it was trained on.
        max_seq_length: of that training.
    """
    with files.atomic_path(directory) as partial:
        partial.mkdir()
        config = classifier.encoder.config
        checkpoints.save_model(partial, classifier.weights, config, tokenizer)
        about = {
            "task": task,
            "labels": list(classifier.labels),
            "pooling": classifier.pooling,
            "max_seq_length": max_seq_length,
        }
        files.write_json(partial / CLASSIFIER, about)


def read_about(directory: str | pathlib.Path) -> dict[str, Any]:
    """What classifier.json says: `task`, `labels`, `pooling`, `max_seq_length`.

    Raises:
        InputError: there is no fine-tuned model.
    """
    path = pathlib.Path(directory) / CLASSIFIER
    if not path.exists():
        raise InputError(f"there is no fine-tuned model in {directory}: {CLASSIFIER} is missing")
    return files.read_json(path)


def load_classifier(directory: str | pathlib.Path) -> tuple[Classifier, Tokenizer]:
    """Loads a fine-tuned model with the names of its labels.

    Args:
        directory: `WORKDIR/model_SEED` of a fine-tuning run.

    Returns:
        The classifier (`classifier.labels` in the order of the logits, none for a regression)
        and its tokenizer.

    Raises:
        InputError: no fine-tuned model there, or files that do not fit together.
    """
    directory = pathlib.Path(directory)
    about = read_about(directory)
    encoder, tokenizer = checkpoints.untrained_encoder(directory, seed=None)
    classifier = Classifier(encoder, about["labels"], about["pooling"])
    load_weights(classifier.weights, directory)
    return classifier, tokenizer


def load_start(
    classifier: Classifier, checkpoint: str | pathlib.Path, new_weights: tuple[str, ...]
) -> dict[str, Any]:
    """Loads what fine-tuning starts from: a pre-trained encoder, or a fine-tuned model of ours.

    A head that is loaded is mapped by the names of its labels, whatever their order is.

    Args:
        classifier: receives the weights.
        checkpoint: see `checkpoints.resolve`.
        new_weights: names of weights, or of layers, that keep their initial values.

    Returns:
        `loaded` (how many weights), the names that are `new`, and those of the checkpoint that are
        `unused`.

    Raises:
        InputError: a weight is missing or misshaped and not named in `new_weights`, or is named
            there and unknown; a head of other labels or another pooling.
    """
    path = checkpoints.resolve(checkpoint)
    arrays = read_weights(path)
    if HEAD not in new_weights and (path / CLASSIFIER).exists():
        about = read_about(path)
        theirs, ours = about["labels"], list(classifier.labels)
        if sorted(theirs) != sorted(ours) or about["pooling"] != classifier.pooling:
            raise InputError(
                f"the head in {path} has the labels {', '.join(theirs) or 'of a regression'} and "
                f"pooling {about['pooling']}, the task {', '.join(ours) or 'is a regression'} and "
                f"pooling {classifier.pooling}: start with a new head, --new_weights={HEAD}"
            )
        if theirs != ours:
            order = [theirs.index(label) for label in ours]
            logging.info("the labels of %s are mapped by name: %s", path, order)
            for name in (name for name in arrays if name.startswith(f"{HEAD}/")):
                arrays[name] = np.ascontiguousarray(arrays[name][..., order])
    return assign_start(classifier.weights, arrays, path, new_weights)
