"""Saves and loads fine-tuned models: weights and the description of the head."""

import pathlib
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.heads import ClassifierHead, SpanHead
from undivided_tf.models.weights import assign_initial_weights, load_weights, read_weights
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer

HEAD = "classifier_head"


def save_classifier(
    directory: pathlib.Path,
    classifier: Classifier,
    tokenizer: Tokenizer,
    *,
    task: str,
    max_seq_length: int,
    input: str = "",
    score_range: tuple[float, ...] = (),
) -> None:
    """Writes a fine-tuned model atomically.

    Args:
        directory: directory to make.
        classifier: the model, with its label names.
        tokenizer: tokenizer of the encoder.
        task: name of the task of the fine-tuning.
        max_seq_length: word pieces per example in the fine-tuning.
        input: `single` or `pair`, the kind of a row of the task; empty: unknown.
        score_range: lowest and highest score of a regression task; empty: unknown.
    """
    head = ClassifierHead(
        kind=classifier.kind,
        labels=classifier.labels,
        pooling=classifier.pooling,
        input=input,
        max_seq_length=max_seq_length,
        task=task,
        score_range=score_range,
    )
    with files.atomic_path(directory) as partial:
        partial.mkdir()
        config = classifier.encoder.config
        checkpoints.save_model(partial, classifier.weights, config, tokenizer)
        head.write(partial)


def read_head(directory: str | pathlib.Path) -> ClassifierHead:
    """Reads classifier.json of a fine-tuned model.

    Raises:
        InputError: there is no such model, or the file is invalid.
    """
    head = ClassifierHead.read(directory)
    if head is None:
        hint = ""
        if SpanHead.read(directory):
            hint = ": it is a span predictor; use run_squad --predict_file or export_model"
        raise InputError(
            f"there is no fine-tuned classifier or regression in {directory} "
            f"({ClassifierHead.FILE} is missing){hint}"
        )
    return head


def load_classifier(directory: str | pathlib.Path) -> tuple[Classifier, Tokenizer]:
    """Loads a fine-tuned model with the names of its labels.

    Args:
        directory: `WORKDIR/model_SEED` of a fine-tuning run.

    Returns:
        The classifier (`classifier.labels` in the order of the logits) and its tokenizer; see also
        `read_head`.

    Raises:
        InputError: no fine-tuned model at `directory`, or files that contradict each other.
    """
    directory = pathlib.Path(directory)
    head = read_head(directory)
    encoder, tokenizer = checkpoints.untrained_encoder(directory, seed=None)
    classifier = Classifier.from_head(encoder, head)
    load_weights(classifier.weights, directory)
    return classifier, tokenizer


def load_initial_weights(
    classifier: Classifier,
    checkpoint: str | pathlib.Path,
    new_weights: tuple[str, ...],
    task: ClassifierHead,
) -> dict[str, Any]:
    """Loads the weights of a pre-trained encoder or a fine-tuned model into a classifier.

    The outputs of a loaded head are matched by the names of the labels, in any order.

    Args:
        classifier: the model to fine-tune.
        checkpoint: see `checkpoints.resolve`.
        new_weights: names of weights, or of layers, that keep their initial values.
        task: the head that `classifier` has for its task.

    Returns:
        `loaded` (number of weights), `new` (names) and `unused` (names in the checkpoint).

    Raises:
        InputError: a weight is missing or of another shape and not in `new_weights`; a name there
            is unknown; or the loaded head has other labels, pooling or inputs.
    """
    path = checkpoints.resolve(checkpoint)
    arrays = read_weights(path)
    head = None if HEAD in new_weights else ClassifierHead.read(path)
    if head:
        try:
            order = head.columns_for(task)
            if head.pooling != task.pooling:
                raise InputError(
                    f"the head was trained with pooling {head.pooling}, not {task.pooling}"
                )
        except InputError as error:
            raise InputError(
                f"{path}: {error}: start with a new head, --new_weights={HEAD}"
            ) from error
        if order != list(range(head.outputs)):
            logging.info("the labels of %s are mapped by name: %s", path, order)
            for name in (name for name in arrays if name.startswith(f"{HEAD}/")):
                arrays[name] = np.ascontiguousarray(arrays[name][..., order])
    return assign_initial_weights(classifier.weights, arrays, path, new_weights)
