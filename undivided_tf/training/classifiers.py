"""Fine-tuned models on disk: weights, and what their head answers."""

import pathlib
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.heads import ClassifierHead, SpanHead
from undivided_tf.models.weights import assign_start, load_weights, read_weights
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
    """Writes a fine-tuned model, whole or not at all.

    Args:
        directory: to be made.
        classifier: with its label names.
        tokenizer: the encoder's.
        task: name of the task it was trained on.
        max_seq_length: of that training.
        input: `single` or `pair`: what a row of the task is; empty: not known.
        score_range: lowest and highest score of the task of a regression; empty: not known.
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
    """What classifier.json says of a fine-tuned model.

    Raises:
        InputError: there is no such model, or the file is at fault.
    """
    head = ClassifierHead.read(directory)
    if head is None:
        other = ""
        if SpanHead.read(directory):
            other = ": it is a span predictor, which run_squad --predict_file and export_model ask"
        raise InputError(
            f"there is no fine-tuned classifier or regression in {directory} "
            f"({ClassifierHead.FILE} is missing){other}"
        )
    return head


def load_classifier(directory: str | pathlib.Path) -> tuple[Classifier, Tokenizer]:
    """Loads a fine-tuned model with the names of its labels.

    Args:
        directory: `WORKDIR/model_SEED` of a fine-tuning run.

    Returns:
        The classifier (`classifier.labels` in the order of the logits) and its tokenizer;
        `read_head` says the rest.

    Raises:
        InputError: no fine-tuned model there, or files that do not fit together.
    """
    directory = pathlib.Path(directory)
    head = read_head(directory)
    encoder, tokenizer = checkpoints.untrained_encoder(directory, seed=None)
    classifier = Classifier.from_head(encoder, head)
    load_weights(classifier.weights, directory)
    return classifier, tokenizer


def load_start(
    classifier: Classifier,
    checkpoint: str | pathlib.Path,
    new_weights: tuple[str, ...],
    task: ClassifierHead,
) -> dict[str, Any]:
    """Loads what fine-tuning starts from: a pre-trained encoder, or a fine-tuned model of ours.

    A head that is loaded is mapped by the names of its labels, whatever their order is.

    Args:
        classifier: receives the weights.
        checkpoint: see `checkpoints.resolve`.
        new_weights: names of weights, or of layers, that keep their initial values.
        task: the head that `classifier` has for its task.

    Returns:
        `loaded` (how many weights), the names that are `new`, and those of the checkpoint that are
        `unused`.

    Raises:
        InputError: a weight is missing or misshaped and not named in `new_weights`, or is named
            there and unknown; a head of other labels, another pooling or other inputs.
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
    return assign_start(classifier.weights, arrays, path, new_weights)
