"""Records: a corpus as rows of word pieces in TFRecord shards, written once and read for ever.

A records directory holds `train-00000-of-00008.tfrecord` ..., one validation file, `vocab.txt`,
`metadata.json` and the `config.json` that it was made with.

A record is a `tf.train.Example` (see `data/examples.py`). Its features are byte strings of
little-endian int32 values:

- `token_ids`, `max_seq_length` values: `[CLS] pieces [SEP]`, padded with [PAD]. Records of single
  texts have this feature only.
- Records of pairs, `[CLS] A [SEP] B [SEP]`, have two more, of one value each:
  `first_segment_length`, the number of tokens up to the first [SEP] with it (`segment_ids` are 0
  there and 1 behind), and `next_sentence_label`: 0 when B follows A in the text; 1 when B is from
  another document (`packing` `next_sentence`) or stands before A (`sentence_order`).

`metadata.json` names the packing (`"packing": "full"` where it is absent). `streams` gives dicts
of `token_ids` `(max_seq_length,)` and, for pairs, `segment_ids` `(max_seq_length,)` and
`next_sentence_label` `()`. A reader that knows `token_ids` alone reads all records as single
texts, so the format version is still 1.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from undivided_tf import files, progress
from undivided_tf.config import EncoderConfig, claim_workdir
from undivided_tf.data import corpora, packing
from undivided_tf.data.documents import Document
from undivided_tf.errors import InputError
from undivided_tf.pretraining_recipes import PAIR_PACKINGS, RecordsConfig
from undivided_tf.tokenization import Tokenizer, train_vocabulary

FORMAT_VERSION = 1
METADATA, VOCABULARY = "metadata.json", "vocab.txt"
# Text is tokenised in portions of about so many bytes, which bounds memory.
PORTION_BYTES = 1 << 20


def create_records(config: RecordsConfig) -> dict[str, Any]:
    """Turns a corpus into records; the same config finds them done and returns at once.

    `packing.ShardWriter` tells how documents become rows and rows find their shard. A document
    is held out when the hash of its text falls below `validation_fraction`, at least one
    always; its text does not train the vocabulary either. The directory appears whole or not
    at all; a killed run starts anew. Memory is bounded by the longest document, and by the
    number of distinct words while a vocabulary is trained.

    Args:
        config: see `RecordsConfig`.

    Returns:
        What `metadata.json` holds.

    Raises:
        InputError: the corpus is empty, not UTF-8 or too small to hold a document out; the
            vocabulary is at fault; `output_dir` holds something else.
    """
    output_dir = _check_output_dir(config)
    if (output_dir / METADATA).exists():
        return read_metadata(output_dir)
    sources, threshold = _survey(config)
    tokenizer = _tokenizer(config, threshold)
    with files.atomic_path(output_dir) as partial:
        partial.mkdir()
        names = [
            f"train-{i:05d}-of-{config.num_shards:05d}.tfrecord" for i in range(config.num_shards)
        ]
        shape = (tokenizer, config.max_seq_length, config.random_seed)
        train = packing.ShardWriter(partial, names, *shape)
        validation = packing.ShardWriter(partial, ["validation-00000-of-00001.tfrecord"], *shape)
        total = sum(source["bytes"] for source in sources)
        with progress.bar(total, "tokenise and pack", "bytes") as bar:
            for portion in _portions(corpora.read_documents(config.input_files)):
                kept, held_out = [], []
                for document in portion:
                    (held_out if document.position < threshold else kept).append(document)
                train.add(kept)
                validation.add(held_out)
                bar.update(sum(document.size for document in portion))
        splits = {"train": train.close(), "validation": validation.close()}
        for split, facts in splits.items():
            if not facts["tokens"]:
                raise InputError(f"the {split} documents of the corpus hold no word piece")
        metadata = {
            "format_version": FORMAT_VERSION,
            "vocabulary_hash": tokenizer.vocabulary_hash,
            "vocab_size": tokenizer.vocab_size,
            "do_lower_case": tokenizer.do_lower_case,
            "max_seq_length": config.max_seq_length,
            "random_seed": config.random_seed,
            **splits,
            **_unigram_facts(train.counts, validation.counts, tokenizer),
            "sources": sources,
        }
        tokenizer.save(partial / VOCABULARY)
        _portable(config).to_json(partial / "config.json")
        files.write_json(partial / METADATA, metadata)
    return metadata


def _portable(config: RecordsConfig) -> RecordsConfig:
    """The config without its place, so that a records directory may be moved."""
    return config.replace(output_dir="")


def _check_output_dir(config: RecordsConfig) -> pathlib.Path:
    if not config.output_dir:
        raise InputError("a directory for the records is needed: --output_dir=DIR")
    path = pathlib.Path(config.output_dir)
    if (path / "config.json").exists():
        claim_workdir(path, _portable(config))
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} holds something else than records; choose another --output_dir")
    return path


def _survey(config: RecordsConfig) -> tuple[list[dict[str, Any]], float]:
    """Reads the corpus once, to find its faults before the work starts.

    Returns:
        For each source its counts and the SHA-256 of its paragraphs, one a line, with a blank
        line behind each document (for a text file in that very form `sha256sum` agrees); and
        the position below which a document is held out.
    """
    described, lowest, highest = [], 1.0, 0.0
    for source in corpora.sources(config.input_files):
        facts = {"documents": 0, "paragraphs": 0, "bytes": 0}
        digest = hashlib.sha256()
        for document in source.read():
            digest.update(document.text.encode() + b"\n\n")
            facts["documents"] += 1
            facts["paragraphs"] += len(document.paragraphs)
            facts["bytes"] += document.size
            lowest, highest = min(lowest, document.position), max(highest, document.position)
        described.append(
            {"name": source.name, **facts, "sha256": digest.hexdigest(), **source.about}
        )
    documents = sum(facts["documents"] for facts in described)
    if not documents:
        raise InputError(f"the corpus is empty: no text in {', '.join(config.input_files)}")
    threshold = max(config.validation_fraction, float(np.nextafter(lowest, 1)))
    if highest < threshold:
        raise InputError(
            f"the corpus has {documents} document(s), and validation_fraction "
            f"{config.validation_fraction} holds them all out; give more (a blank line ends a "
            "document) or a smaller fraction"
        )
    return described, threshold


def _tokenizer(config: RecordsConfig, threshold: float) -> Tokenizer:
    vocabulary: str | list[str] = config.vocab_file
    if not vocabulary:
        texts = (
            paragraph
            for document in corpora.read_documents(config.input_files)
            if document.position >= threshold
            for paragraph in document.paragraphs
        )
        vocabulary = train_vocabulary(texts, config.vocab_size, config.do_lower_case)
    return Tokenizer(vocabulary, config.do_lower_case)


def _portions(documents: Iterable[Document]) -> Iterator[list[Document]]:
    portion, size = [], 0
    for document in documents:
        portion.append(document)
        size += document.size
        if size >= PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _unigram_facts(
    train: np.ndarray, validation: np.ndarray, tokenizer: Tokenizer
) -> dict[str, float]:
    """What guessing by frequency alone would lose, in nats a word piece; specials never count."""
    ordinary = ~tokenizer.is_special
    unknown = (train + validation)[tokenizer.unk_id] / (train + validation).sum()
    train, validation = train[ordinary], validation[ordinary]
    seen = train[train > 0] / train.sum()
    # Add-one smoothing: a held-out piece that training lacks costs much, but not infinitely.
    smoothed = (train + 1) / (train + 1).sum()
    return {
        "unknown_share": float(unknown),
        "unigram_entropy": float(-(seen * np.log(seen)).sum()),
        "validation_unigram_cross_entropy": float(
            -(validation * np.log(smoothed)).sum() / max(validation.sum(), 1)
        ),
    }


def read_metadata(records_dir: str | os.PathLike) -> dict[str, Any]:
    """Reads `metadata.json` and checks that every record file is there and of full size.

    Raises:
        InputError: no records there, of another format version, or a file is damaged.
    """
    folder = pathlib.Path(records_dir)
    try:
        metadata = files.read_json(folder / METADATA)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no records ({METADATA} is absent); make them with "
            "create_pretraining_data"
        ) from error
    except ValueError as error:
        raise InputError(f"{folder / METADATA} is not JSON: {error}") from error
    if metadata.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{folder / METADATA}: format version {metadata.get('format_version')}, this program "
            f"reads {FORMAT_VERSION}; make the records again"
        )
    for split in ("train", "validation"):
        for file in metadata[split]["files"]:
            path = folder / file["name"]
            size = path.stat().st_size if path.exists() else 0
            if size != file["bytes"]:
                raise InputError(
                    f"{path}: {size} bytes instead of {file['bytes']}: cut short or changed; "
                    "make the records again"
                )
    return metadata


def has_pairs(metadata: dict[str, Any]) -> bool:
    """Whether records of this metadata hold pairs of segments with a label."""
    return metadata.get("packing", "full") in PAIR_PACKINGS


def check_records(records_dir: str | os.PathLike, encoder: EncoderConfig) -> dict[str, Any]:
    """Refuses records that do not go with an encoder.

    Args:
        records_dir: what `create_records` wrote.
        encoder: its `vocabulary_hash` is compared unless it is empty (not known).

    Returns:
        The metadata.

    Raises:
        InputError: names every differing value, that of the records and that of the encoder.
    """
    metadata = read_metadata(records_dir)
    names = ["vocab_size", "do_lower_case"] + ["vocabulary_hash"] * bool(encoder.vocabulary_hash)
    wrong = [
        f"{name}: {metadata[name]} in the records, {getattr(encoder, name)} in the encoder"
        for name in names
        if metadata[name] != getattr(encoder, name)
    ]
    if metadata["max_seq_length"] > encoder.max_position_embeddings:
        wrong.append(
            f"max_seq_length: {metadata['max_seq_length']} in the records, but "
            f"max_position_embeddings is {encoder.max_position_embeddings} in the encoder"
        )
    if wrong:
        raise InputError(f"{records_dir} does not fit the encoder:\n  " + "\n  ".join(wrong))
    return metadata


def read_tokenizer(records_dir: str | os.PathLike) -> Tokenizer:
    """The tokenizer that made the records.

    Raises:
        InputError: `vocab.txt` is not the one that `metadata.json` names.
    """
    metadata = read_metadata(records_dir)
    path = pathlib.Path(records_dir) / VOCABULARY
    tokenizer = Tokenizer(path, metadata["do_lower_case"])
    if tokenizer.vocabulary_hash != metadata["vocabulary_hash"]:
        raise InputError(
            f"{path}: vocabulary hash {tokenizer.vocabulary_hash}, but the records were made "
            f"with {metadata['vocabulary_hash']}"
        )
    return tokenizer
