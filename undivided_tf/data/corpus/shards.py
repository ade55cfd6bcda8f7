"""Shards: record files with the rows of all chunks in order, and their totals."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from undivided_tf.data.corpus.chunks import SPLITS, layout
from undivided_tf.data.corpus.config import PAIR_PACKINGS, RecordsConfig
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer

# Numbers of a chunk that are added up over a split.
SUMS = ("documents", "paragraphs", "bytes", "cut", "labels")


class Shard(NamedTuple):
    """A record file.

    Attributes:
        split: one of `SPLITS`.
        number: index in the split, from 0.
        name: name of the file.
    """

    split: str
    number: int
    name: str


def shards(config: RecordsConfig) -> list[Shard]:
    """The record files of a config; the validation split always has one file."""
    listed = []
    for split, count in zip(SPLITS, (config.num_shards, 1), strict=True):
        names = [f"{split}-{i:05d}-of-{count:05d}.tfrecord" for i in range(count)]
        listed += [Shard(split, number, name) for number, name in enumerate(names)]
    return listed


@dataclasses.dataclass(frozen=True)
class WriteShard:
    """Job: writes a shard atomically, unless it exists.

    Args:
        folder: work folder with the chunks and the files of `totals`.
        config: see `RecordsConfig`.
    """

    folder: str
    config: RecordsConfig

    def __call__(self, shard: Shard) -> Iterator[int]:
        """Yields the bytes that were processed."""
        folder = pathlib.Path(self.folder)
        path = folder / "records" / shard.name
        if path.exists():
            yield path.stat().st_size
            return
        width = layout(self.config).dtype.itemsize
        rows = np.load(folder / f"rows-{shard.split}.npy", mmap_mode="r")
        chunks = sorted((folder / "chunks").glob(f"{shard.split}-*.tfrecord"))
        with files.atomic_path(path, shared=True) as partial, open(partial, "wb") as file:
            for chunk, counts in zip(chunks, rows, strict=True):
                size = int(counts[shard.number]) * width
                with open(chunk, "rb") as source:
                    source.seek(int(counts[: shard.number].sum()) * width)
                    part = source.read(size)
                if len(part) != size:
                    raise RuntimeError(f"{chunk} is truncated; remove {folder} and start again")
                file.write(part)
                yield size


def totals(folder: pathlib.Path, vocab_size: int) -> dict[str, dict[str, Any]]:
    """Adds up the results of `chunks.PackChunk`, and writes which chunk has which rows.

    Args:
        folder: work folder.
        vocab_size: size of the vocabulary.

    Returns:
        For each split the sums of `SUMS`, the `counts` of its word pieces, int64
        `(vocab_size,)`, and the rows of each shard.
    """
    by_split = {}
    for split in SPLITS:
        sums: dict[str, Any] = dict.fromkeys(SUMS, 0)
        counts = np.zeros(vocab_size, np.int64)
        rows = []
        for path in sorted((folder / "chunks").glob(f"{split}-*.npz")):
            with np.load(path) as facts:
                counts[facts["ids"]] += facts["counts"]
                rows.append(facts["shard_rows"])
                for name in SUMS:
                    sums[name] = sums[name] + facts[name]
        with files.atomic_path(folder / f"rows-{split}.npy") as partial:
            with open(partial, "wb") as file:
                np.save(file, np.array(rows))
        sums = {name: np.asarray(value).tolist() for name, value in sums.items()}
        by_split[split] = {**sums, "counts": counts, "shard_rows": np.sum(rows, axis=0)}
    return by_split


def describe(
    records: pathlib.Path,
    config: RecordsConfig,
    by_split: dict[str, dict[str, Any]],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """The entries of `metadata.json` about the splits and their word pieces.

    Args:
        records: folder with the record files.
        config: see `RecordsConfig`.
        by_split: result of `totals`.
        tokenizer: tokenizer of the records.
    """
    described: dict[str, Any] = {}
    for split, facts in by_split.items():
        split_shards = [shard for shard in shards(config) if shard.split == split]
        rows = facts["shard_rows"].tolist()
        described[split] = {
            **{name: facts[name] for name in ("documents", "paragraphs", "bytes")},
            "tokens": int(facts["counts"].sum()),
            "rows": sum(rows),
            **({"labels": facts["labels"]} if config.packing in PAIR_PACKINGS else {}),
            "files": [
                {
                    "name": shard.name,
                    "rows": count,
                    "bytes": (records / shard.name).stat().st_size,
                    "sha256": files.sha256_of_file(records / shard.name),
                }
                for shard, count in zip(split_shards, rows, strict=True)
            ],
        }
    counts = (by_split[split]["counts"] for split in SPLITS)
    return {**described, **_unigram_facts(*counts, tokenizer)}


def _unigram_facts(
    train: np.ndarray, validation: np.ndarray, tokenizer: Tokenizer
) -> dict[str, float]:
    """Loss of predicting by frequency alone, in nats per word piece, without special pieces."""
    ordinary = ~tokenizer.is_special
    unknown = (train + validation)[tokenizer.unk_id] / (train + validation).sum()
    train, validation = train[ordinary], validation[ordinary]
    seen = train[train > 0] / train.sum()
    # Add-one smoothing, so that a held-out piece that is not in training has a finite loss.
    smoothed = (train + 1) / (train + 1).sum()
    return {
        "unknown_share": float(unknown),
        "unigram_entropy": float(-(seen * np.log(seen)).sum()),
        "validation_unigram_cross_entropy": float(
            -(validation * np.log(smoothed)).sum() / max(validation.sum(), 1)
        ),
    }
