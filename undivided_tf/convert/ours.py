"""Checkpoints of our own as a source and a result of conversions."""

import pathlib

from undivided_tf import files
from undivided_tf.benchmark_recipes import SquadConfig
from undivided_tf.config import EncoderConfig
from undivided_tf.convert import names
from undivided_tf.convert.source import Foreign, Source, match
from undivided_tf.convert.tensor_files import SafetensorsReader, read_object, write_tensors
from undivided_tf.convert.vocabularies import log_casing
from undivided_tf.training import checkpoints, classifiers
from undivided_tf.training.span_finetuning import SPAN_PREDICTOR, WINDOW_FIELDS
from undivided_tf.training.weights import WEIGHTS


def recognise(folder: pathlib.Path) -> bool:
    """Whether the folder is a checkpoint or a pre-training workdir of ours."""
    return (folder / WEIGHTS).exists() or (folder / "checkpoints").is_dir()


def open_source(folder: pathlib.Path, do_lower_case: bool | None = None) -> Source:
    """Opens a checkpoint, or the newest one of a workdir.

    Args:
        folder: the checkpoint or workdir.
        do_lower_case: the casing; None: that of encoder.json.

    Raises:
        InputError: a bad file, or parts that do not fit together.
    """
    folder = checkpoints.resolve(folder)
    config = EncoderConfig.from_json(folder / checkpoints.ENCODER)
    where = folder / checkpoints.ENCODER
    config = config.replace(do_lower_case=log_casing(config.do_lower_case, do_lower_case, where))
    tokenizer = checkpoints.read_tokenizer(folder, config)
    labels, pooling = (), "first"
    if (folder / classifiers.CLASSIFIER).exists():
        about = read_object(folder / classifiers.CLASSIFIER)
        labels, pooling = tuple(about["labels"]), about["pooling"]
    told = folder / SPAN_PREDICTOR
    windows = read_object(told) if told.exists() else {}
    reader = SafetensorsReader([folder / WEIGHTS])
    heads = names.head_tensors(config, reader.shapes, len(labels))
    needed = [*names.encoder_tensors(config), *heads]
    tensors, coverage = match(
        folder,
        needed,
        lambda tensor: Foreign(tensor.path, tensor.shape),
        reader,
        is_encoder=lambda name: name.startswith("encoder/"),
    )
    return Source("undivided", config, tokenizer, tensors, coverage, labels, pooling, windows)


def write(directory: pathlib.Path, source: Source) -> None:
    """Writes what `load_encoder`, `load_classifier` and `load_span_predictor` read."""
    directory.mkdir()
    write_tensors(
        directory / WEIGHTS,
        ((path, shape, read) for path, (shape, read) in source.tensors.items()),
    )
    source.config.to_json(directory / checkpoints.ENCODER)
    source.tokenizer.save(directory / checkpoints.VOCABULARY)
    if source.labels:
        about = {
            "task": "",
            "labels": list(source.labels),
            "pooling": source.pooling,
            "max_seq_length": source.config.max_position_embeddings,
        }
        files.write_json(directory / classifiers.CLASSIFIER, about)
    if "span_head/kernel" in source.tensors:
        # Other formats do not say how windows were made: as by default, where they fit.
        usual = SquadConfig()
        length = min(usual.max_seq_length, source.config.max_position_embeddings)
        about = {name: getattr(usual, name) for name in WINDOW_FIELDS}
        about = {**about, "max_seq_length": length, **source.windows}
        files.write_json(directory / SPAN_PREDICTOR, about)
