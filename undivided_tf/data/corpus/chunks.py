"""Chunks: parts of a corpus that are packed independently, and their packing.

A chunk is about one mebibyte of consecutive documents of one split in one portion. The division
into chunks, the rows of a chunk and the shard of each row depend on the corpus and the config
alone. So the records have the same bytes under any runner, and a chunk that was packed before a
crash need not be packed again.
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
# Bytes of text of a chunk. Its tokens and rows take some ten times as much memory.
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
        portion, number: its position in the corpus.
        documents: the paragraphs of each document.
        size: bytes of text.
    """

    split: str
    portion: int
    number: int
    documents: tuple[tuple[str, ...], ...]
    size: int

    @property
    def name(self) -> str:
        """File name; sorting by it keeps the chunks of a split in the order of the corpus."""
        return f"{self.split}-{self.portion:06d}-{self.number:06d}"


@dataclasses.dataclass(frozen=True)
class CutPortion:
    """Cuts the documents of a portion into chunks, separately for each split.

    If the rest at the end is less than half a chunk or a single document, it is added to the chunk
    before.

    Args:
        folder: work folder with the files of the survey.
        survey: result of the survey.
    """

    folder: str
    survey: Survey

    def __call__(self, portion: Portion) -> Iterator[Chunk]:
        """Streams the chunks; two chunks per split are in memory."""
        cutters = {split: _Cutter(Chunk(split, portion.number, 0, (), 0)) for split in SPLITS}
        for document, size, place in kept_documents(self.folder, portion, self.survey):
            split = SPLITS[place < self.survey.threshold]
            yield from cutters[split].add(document.paragraphs, size)
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
        """Adds a document; yields the previous chunk if the document fills the current one."""
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
        path: path of the file.
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
    """The tokenizer; made once per process, since this is slow."""
    return Tokenizer(vocabulary.path, vocabulary.do_lower_case)


@functools.lru_cache(2)
def _tokenize(vocabulary: Vocabulary) -> Callable[[tf.Tensor], tf.RaggedTensor]:
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(load_tokenizer(vocabulary).tokenize, signature, autograph=False)


def layout(config: RecordsConfig) -> Layout:
    """The layout of the records of a config."""
    return _layout(config.max_seq_length, config.packing in PAIR_PACKINGS)


_layout = functools.lru_cache(2)(Layout)


@dataclasses.dataclass(frozen=True)
class PackChunk:
    """Job: tokenises and packs a chunk and writes its rows in the order of their shards.

    Args:
        folder: work folder that all workers see.
        vocabulary: vocabulary of the tokenizer.
        config: see `RecordsConfig`.
    """

    folder: str
    vocabulary: Vocabulary
    config: RecordsConfig

    def __call__(self, chunk: Chunk) -> Iterator[int]:
        """Yields the bytes of text that were processed; skips a finished chunk."""
        path = pathlib.Path(self.folder) / "chunks" / f"{chunk.name}.npz"
        if not path.exists():
            self._pack(chunk, path)
        yield chunk.size

    def _pack(self, chunk: Chunk, path: pathlib.Path) -> None:
        config, tokenizer = self.config, load_tokenizer(self.vocabulary)
        pieces = self._pieces(chunk)
        place = (SPLITS.index(chunk.split), chunk.portion, chunk.number)
        rng = np.random.default_rng([config.random_seed, *place])
        rows = PACKERS[config.packing](pieces, tokenizer, config, rng)
        shards = 1 if chunk.split == "validation" else config.num_shards
        shard = rng.integers(shards, size=len(rows.fields[TOKEN_IDS]))
        order = np.argsort(shard, kind="stable")
        fields = {name: values[order] for name, values in rows.fields.items()}
        with files.atomic_path(path.with_suffix(".tfrecord"), shared=True) as partial:
            layout(config).records(**fields).tofile(partial)
        counts = np.bincount(pieces.ids, minlength=tokenizer.vocab_size)
        # Written last: this file marks the chunk as finished.
        with files.atomic_path(path, shared=True) as partial, open(partial, "wb") as file:
            np.savez(
                file,
                shard_rows=np.bincount(shard, minlength=shards),
                ids=np.flatnonzero(counts),
                counts=counts[counts > 0],
                documents=len(chunk.documents),
                paragraphs=len(pieces.paragraph_ends),
                bytes=chunk.size,
                cut=rows.cut,
                labels=np.bincount(rows.fields.get(LABEL, np.zeros(0, int)), minlength=2),
            )

    def _pieces(self, chunk: Chunk) -> packing.Pieces:
        """Tokenises the paragraphs of a chunk."""
        paragraphs = [paragraph for document in chunk.documents for paragraph in document]
        ragged = _tokenize(self.vocabulary)(tf.constant(paragraphs))
        ends = ragged.row_splits.numpy()[1:]
        last = np.cumsum([len(document) for document in chunk.documents]) - 1
        return packing.Pieces(ragged.flat_values.numpy(), ends, ends[last])
