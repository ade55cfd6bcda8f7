"""Chunks: the parts of a corpus that are packed on their own, and how they become shards.

A chunk is about a mebibyte of documents of one split that follow each other in one portion.
How a corpus falls into chunks, what a chunk becomes and which shard each row goes to depend on
the corpus and the config alone, so the records have the same bytes whoever works, and a chunk
that was packed before a crash is packed for good.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf

from undivided_tf.data.corpus import packing, pairs
from undivided_tf.data.corpus.config import PAIR_PACKINGS, RecordsConfig
from undivided_tf.data.corpus.corpora import Portion
from undivided_tf.data.corpus.survey import Survey, kept_documents
from undivided_tf.data.examples import LABEL, TOKEN_IDS, Layout
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer

SPLITS = ("train", "validation")
# Text of a chunk. Its tokens and rows are some ten times that in memory.
CHUNK_BYTES = 1 << 20
PACKERS = {
    "full": packing.full,
    "document": packing.document,
    "next_sentence": pairs.next_sentence,
    "sentence_order": pairs.sentence_order,
}


class Chunk(NamedTuple):
    """Documents that are packed together.

    Attributes:
        split: one of `SPLITS`.
        portion, number: its place in the corpus.
        documents: paragraphs of each.
        size: bytes of text.
    """

    split: str
    portion: int
    number: int
    documents: tuple[tuple[str, ...], ...]
    size: int

    @property
    def name(self) -> str:
        """Sorted by it, the chunks of a split are in the order of the corpus."""
        return f"{self.split}-{self.portion:06d}-{self.number:06d}"


@dataclasses.dataclass(frozen=True)
class CutPortion:
    """Cuts the documents of a portion into chunks, each split for itself.

    What is left at the end, when it is less than half a chunk or a single document, is added
    to the chunk before.

    Args:
        folder: work folder with what the survey wrote.
        survey: its result.
    """

    folder: str
    survey: Survey

    def __call__(self, portion: Portion) -> Iterator[Chunk]:
        """Streams the chunks; two of each split are in memory."""
        cutters = {split: _Cutter(Chunk(split, portion.number, 0, (), 0)) for split in SPLITS}
        for document, text, place in kept_documents(self.folder, portion, self.survey):
            split = SPLITS[place < self.survey.threshold]
            yield from cutters[split].add(document.paragraphs, len(text))
        for cutter in cutters.values():
            yield from cutter.rest()


class _Cutter:
    """Cuts the documents of one split.

    Args:
        chunk: the first one, still empty.
    """

    def __init__(self, chunk: Chunk):
        self._chunk, self._documents = chunk, []
        self._before: Chunk | None = None

    def add(self, document: tuple[str, ...], size: int) -> Iterator[Chunk]:
        """Takes a document; gives the chunk before the one that it fills."""
        self._documents.append(document)
        self._chunk = self._chunk._replace(size=self._chunk.size + size)
        if self._chunk.size >= CHUNK_BYTES and len(self._documents) > 1:
            if self._before:
                yield self._before
            self._before = self._chunk._replace(documents=tuple(self._documents))
            number = self._chunk.number + 1
            self._chunk = self._chunk._replace(number=number, documents=(), size=0)
            self._documents = []

    def rest(self) -> Iterator[Chunk]:
        """The last chunks."""
        before, rest = self._before, self._chunk._replace(documents=tuple(self._documents))
        if before and (rest.size < CHUNK_BYTES // 2 or len(rest.documents) < 2):
            documents = before.documents + rest.documents
            yield before._replace(documents=documents, size=before.size + rest.size)
        else:
            yield from (chunk for chunk in (before, rest) if chunk and chunk.documents)


class Vocabulary(NamedTuple):
    """A vocabulary file that all workers see.

    Attributes:
        path: of the file.
        do_lower_case: see `Tokenizer`.
        digest: SHA-256 of the text of the file.
    """

    path: str
    do_lower_case: bool
    digest: str

    @classmethod
    def of(cls, path: str | os.PathLike, do_lower_case: bool) -> Self:
        """Reads the digest."""
        return cls(str(path), do_lower_case, files.sha256(files.read_text(path)))


@functools.lru_cache(2)
def load_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer, which takes a while to make, hence once a process."""
    return Tokenizer(vocabulary.path, vocabulary.do_lower_case)


@functools.lru_cache(2)
def _tokenize(vocabulary: Vocabulary) -> Callable[[tf.Tensor], tf.RaggedTensor]:
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(load_tokenizer(vocabulary).tokenize, signature, autograph=False)


def layout(config: RecordsConfig) -> Layout:
    """How the records of a config stand in their files."""
    return _layout(config.max_seq_length, config.packing in PAIR_PACKINGS)


_layout = functools.lru_cache(2)(Layout)


@dataclasses.dataclass(frozen=True)
class PackChunk:
    """Job: tokenises a chunk, packs it and writes its rows, in the order of their shards.

    Args:
        folder: work folder that all workers see.
        vocabulary: cuts the text.
        config: see `RecordsConfig`.
    """

    folder: str
    vocabulary: Vocabulary
    config: RecordsConfig

    def __call__(self, chunk: Chunk) -> Iterator[int]:
        """Yields the bytes of text that were done; a chunk that is finished stays as it is."""
        config = self.config
        path = pathlib.Path(self.folder) / "chunks" / f"{chunk.name}.npz"
        if not path.exists():
            tokenizer = load_tokenizer(self.vocabulary)
            paragraphs = [paragraph for document in chunk.documents for paragraph in document]
            ragged = _tokenize(self.vocabulary)(tf.constant(paragraphs))
            ends = ragged.row_splits.numpy()[1:]
            last = np.cumsum([len(document) for document in chunk.documents]) - 1
            pieces = packing.Pieces(ragged.flat_values.numpy(), ends, ends[last])
            place = (SPLITS.index(chunk.split), chunk.portion, chunk.number)
            rng = np.random.default_rng([config.random_seed, *place])
            rows = PACKERS[config.packing](pieces, tokenizer, config, rng)
            count = len(rows.fields[TOKEN_IDS])
            shards = 1 if chunk.split == "validation" else config.num_shards
            shard = rng.integers(shards, size=count)
            order = np.argsort(shard, kind="stable")
            records = layout(config).records(**{name: v[order] for name, v in rows.fields.items()})
            seen = np.bincount(pieces.ids, minlength=tokenizer.vocab_size)
            with files.atomic_path(path.with_suffix(".tfrecord"), shared=True) as partial:
                records.tofile(partial)
            # Last, since it says that the chunk is whole.
            with files.atomic_path(path, shared=True) as partial, open(partial, "wb") as file:
                np.savez(
                    file,
                    shard_rows=np.bincount(shard, minlength=shards),
                    ids=np.flatnonzero(seen),
                    counts=seen[seen > 0],
                    documents=len(chunk.documents),
                    paragraphs=len(paragraphs),
                    bytes=chunk.size,
                    cut=rows.cut,
                    labels=np.bincount(rows.fields.get(LABEL, np.zeros(0, int)), minlength=2),
                )
        yield chunk.size
