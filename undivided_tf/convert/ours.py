"""Reads and writes checkpoints of this package for conversions."""

import pathlib

from undivided_tf.config import EncoderConfig
from undivided_tf.convert import names
from undivided_tf.convert.checkpoint import Checkpoint, Foreign, match
from undivided_tf.convert.tensor_files import SafetensorsReader, write_tensors
from undivided_tf.convert.vocabularies import log_casing
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.heads import ClassifierHead, SpanHead
from undivided_tf.models.weights import WEIGHTS


def recognise(folder: pathlib.Path) -> bool:
    """Whether the folder is a checkpoint or a pre-training workdir of this package."""
    return (folder / WEIGHTS).exists() or (folder / "checkpoints").is_dir()


def open_checkpoint(folder: pathlib.Path, do_lower_case: bool | None = None) -> Checkpoint:
    """Opens a checkpoint, or the newest one of a workdir.

    Args:
        folder: the checkpoint or workdir.
        do_lower_case: the casing; None: that of encoder.json.

    Raises:
        InputError: an invalid file, or parts that do not fit together.
    """
    folder = checkpoints.resolve(folder)
    config = EncoderConfig.from_json(folder / checkpoints.ENCODER)
    where = folder / checkpoints.ENCODER
    config = config.replace(do_lower_case=log_casing(config.do_lower_case, do_lower_case, where))
    tokenizer = checkpoints.read_tokenizer(folder, config)
    reader = SafetensorsReader([folder / WEIGHTS])
    classifier, spans = ClassifierHead.read(folder), SpanHead.read(folder)
    paths = set(reader.shapes)
    for file, head, path in (
        (ClassifierHead.FILE, classifier, "classifier_head/kernel"),
        (SpanHead.FILE, spans, "span_head/kernel"),
    ):
        if head:
            paths.add(path)
        elif path in paths:
            raise InputError(
                f"{folder} has the weights of a fine-tuned head ({path}), but no {file}, which "
                "describes it: give the model that the finished run wrote"
            )
    heads = names.head_tensors(config, paths, classifier)
    needed = [*names.encoder_tensors(config), *heads]
    tensors, coverage = match(
        folder,
        needed,
        lambda tensor: Foreign(tensor.path, tensor.shape),
        reader,
        is_encoder=lambda name: name.startswith("encoder/"),
    )
    return Checkpoint("undivided", config, tokenizer, tensors, coverage, classifier, spans)


def write(directory: pathlib.Path, source: Checkpoint) -> list[str]:
    """Writes a checkpoint for `load_encoder`, `load_classifier` and `load_span_predictor`.

    Returns:
        Names of left-out parts: an empty list.
    """
    directory.mkdir()
    write_tensors(
        directory / WEIGHTS,
        ((path, tensor.shape, tensor.read) for path, tensor in source.tensors.items()),
    )
    source.config.to_json(directory / checkpoints.ENCODER)
    source.tokenizer.save(directory / checkpoints.VOCABULARY)
    for head in (source.classifier, source.spans):
        if head:
            head.write(directory)
    return []
