"""Descriptions of heads in foreign formats, completed by the files of `models.heads`."""

import pathlib

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.models.heads import CLASSIFICATION, REGRESSION, ClassifierHead, SpanHead
from undivided_tf.training.config import SquadConfig


def classifier(
    folder: pathlib.Path, declared: ClassifierHead, *, has_names: bool = True
) -> ClassifierHead:
    """The head of a sequence classifier.

    Args:
        folder: of the model; it may contain a classifier.json.
        declared: the head as described by the format.
        has_names: whether the format names the labels.

    Raises:
        InputError: classifier.json describes another head.
    """
    ours = ClassifierHead.read(folder)
    if ours is None:
        return declared
    if not has_names and ours.outputs == declared.outputs:
        declared = declared.replace(labels=ours.labels)
    for name in ("kind", "labels", "pooling"):
        here, there = getattr(ours, name), getattr(declared, name)
        if here != there:
            raise InputError(
                f"{folder / ours.FILE}: {name} is {here!r}, but the weights and configs beside it "
                f"say {there!r}; if those are right, remove the file"
            )
    return ours


def spans(folder: pathlib.Path, config: EncoderConfig) -> SpanHead:
    """The head of a span predictor.

    Other formats do not describe the windows, so the defaults are used, as far as they fit.
    """
    usual = SquadConfig()
    return SpanHead.read(folder) or SpanHead(
        max_seq_length=min(usual.max_seq_length, config.max_position_embeddings),
        doc_stride=usual.doc_stride,
        max_query_length=usual.max_query_length,
    )


def undescribed(outputs: int, config: EncoderConfig) -> ClassifierHead:
    """The head of which only the number of outputs is known; one output is a regression."""
    is_score = outputs == 1
    return ClassifierHead(
        kind=REGRESSION if is_score else CLASSIFICATION,
        labels=() if is_score else default_labels(outputs),
        max_seq_length=config.max_position_embeddings,
    )


def default_labels(outputs: int) -> tuple[str, ...]:
    """The names that Hugging Face gives to unnamed labels."""
    return tuple(f"LABEL_{i}" for i in range(outputs))
