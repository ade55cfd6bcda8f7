"""The first reading of a corpus: faults, counts, duplicates and held-out documents.

Needs no TensorFlow.
"""

import dataclasses
import hashlib
import pathlib
import shutil
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from undivided_tf.data.corpus import deduplication
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.data.corpus.corpora import Portion
from undivided_tf.data.corpus.documents import Document, position
from undivided_tf.errors import InputError
from undivided_tf.support import files

# First and second eight bytes of the SHA-256 of a document's text, and its bytes.
_FACTS = "<u8"
_COLUMNS = 3
_ROWS_AT_A_TIME = 1 << 16


class Survey(NamedTuple):
    """Results of the first reading.

    Attributes:
        sources: for each source its counts and the SHA-256 of its paragraphs, one per line, with a
            blank line after each document: what `sha256sum` gives for a text file in this form.
        documents: number of documents of each portion, before any is left out.
        kept_documents, kept_bytes: number and bytes of the documents that are not left out.
        duplicates: number of left-out documents, by kind, and their bytes.
        threshold: documents with a position below it are held out.
    """

    sources: list[dict[str, Any]]
    documents: list[int]
    kept_documents: int
    kept_bytes: int
    duplicates: dict[str, int]
    threshold: float


@dataclasses.dataclass(frozen=True)
class SurveyPortion:
    """Job: reads a portion and writes its facts, unless it is finished.

    Args:
        folder: work folder that all workers see.
        deduplicate: see `RecordsConfig`.
    """

    folder: str
    deduplicate: str

    def __call__(self, portion: Portion) -> Iterator[int]:
        """Yields the bytes of text that were processed."""
        path = _path(self.folder, portion.number)
        if path.exists():
            yield sum(source["bytes"] for source in files.read_json(path)["sources"])
            return
        sources, lowest, highest = [], 1.0, 0.0
        with (
            files.atomic_path(path.with_suffix(".facts"), shared=True) as facts_path,
            files.atomic_path(path.with_suffix(".signatures"), shared=True) as signatures_path,
            open(facts_path, "wb") as facts_file,
            open(signatures_path, "wb") as signatures_file,
        ):
            for source in portion.sources:
                facts = {"documents": 0, "paragraphs": 0, "bytes": 0}
                source_hash = hashlib.sha256()
                for document in source.read():
                    text = document.text
                    data = text.encode()
                    source_hash.update(data + b"\n\n")
                    facts["documents"] += 1
                    facts["paragraphs"] += len(document.paragraphs)
                    facts["bytes"] += len(data)
                    digest = hashlib.sha256(data).digest()
                    place = position(digest)
                    lowest, highest = min(lowest, place), max(highest, place)
                    if self.deduplicate != "none":
                        # Big-endian halves, as `position` reads them.
                        halves = struct.unpack(">2Q", digest[:16])
                        facts_file.write(struct.pack("<3Q", *halves, len(data)))
                    if self.deduplicate == "near":
                        signature = deduplication.signature(deduplication.shingles(text))
                        signatures_file.write(signature.astype("<u4").tobytes())
                    yield len(data)
                facts |= {"sha256": source_hash.hexdigest(), **source.about}
                sources.append({"name": source.name, **facts})
        with files.atomic_path(path, shared=True) as partial:
            facts = {"sources": sources, "lowest": lowest, "highest": highest}
            files.write_json(partial, facts)


def _path(folder: str | pathlib.Path, portion: int) -> pathlib.Path:
    return pathlib.Path(folder) / "survey" / f"{portion:06d}.json"


def conclude(folder: pathlib.Path, portions: Sequence[Portion], config: RecordsConfig) -> Survey:
    """Combines the files of `SurveyPortion`; decides which documents are left out or held out.

    Raises:
        InputError: the corpus is empty, or too small to hold a document out.
    """
    surveyed = [files.read_json(_path(folder, portion.number)) for portion in portions]
    sources = [source for portion in surveyed for source in portion["sources"]]
    documents = [sum(s["documents"] for s in portion["sources"]) for portion in surveyed]
    count = sum(documents)
    if not count:
        raise InputError(f"the corpus is empty: no text in {', '.join(config.input_files)}")
    kept, size = count, sum(source["bytes"] for source in sources)
    lowest = min(portion["lowest"] for portion in surveyed)
    highest = max(portion["highest"] for portion in surveyed)
    duplicates = dict.fromkeys(("exact_duplicates", "near_duplicates", "duplicate_bytes"), 0)
    if config.deduplicate != "none":
        facts = _joined(folder, portions, "facts", _FACTS, _COLUMNS)
        signatures = None
        if config.deduplicate == "near":
            signatures = _joined(folder, portions, "signatures", "<u4", deduplication.PERMUTATIONS)
        verdicts = deduplication.mark(folder, facts[:, :2], signatures)
        verdicts.flush()
        counts, sizes, lowest, highest = _tally(facts, verdicts)
        kept, exact, near = counts
        size = sizes[deduplication.KEPT]
        duplicates = dict(zip(duplicates, (exact, near, sum(sizes) - size), strict=True))
        logging.info(
            "left out %d exact and %d near duplicates, %d bytes; %d documents are left",
            *duplicates.values(),
            kept,
        )
    threshold = max(config.validation_fraction, float(np.nextafter(lowest, 1)))
    if highest < threshold:
        left = f", of which --deduplicate={config.deduplicate} leaves {kept}" * (kept < count)
        raise InputError(
            f"the corpus has {count} document(s){left}, and validation_fraction "
            f"{config.validation_fraction} holds them all out; give more (a blank line ends a "
            "document) or a smaller fraction"
        )
    return Survey(sources, documents, kept, size, duplicates, threshold)


def _joined(
    folder: pathlib.Path, portions: Sequence[Portion], kind: str, dtype: str, width: int
) -> np.ndarray:
    """Numbers of all documents in the order of the corpus: a memory map `(documents, width)`."""
    with open(folder / kind, "wb") as joined:
        for portion in portions:
            with open(_path(folder, portion.number).with_suffix(f".{kind}"), "rb") as part:
                shutil.copyfileobj(part, joined, 1 << 20)
    return np.memmap(folder / kind, dtype, "r").reshape(-1, width)


def _tally(facts: np.ndarray, verdicts: np.ndarray) -> tuple[list[int], list[int], float, float]:
    """Documents and bytes by verdict; the lowest and highest position of a kept document."""
    counts, sizes = np.zeros(3, np.int64), np.zeros(3, np.int64)
    lowest, highest = 1.0, 0.0
    for start in range(0, len(facts), _ROWS_AT_A_TIME):
        part = facts[start : start + _ROWS_AT_A_TIME]
        verdict = verdicts[start : start + _ROWS_AT_A_TIME]
        counts += np.bincount(verdict, minlength=3)
        sizes += np.bincount(verdict, part[:, 2], minlength=3).astype(np.int64)
        # As `position` of the digest.
        places = (part[verdict == deduplication.KEPT, 0] >> np.uint64(12)) / 2**52
        lowest, highest = places.min(initial=lowest), places.max(initial=highest)
    return counts.tolist(), sizes.tolist(), lowest, highest


def kept_documents(
    folder: str | pathlib.Path, portion: Portion, survey: Survey
) -> Iterator[tuple[Document, int, float]]:
    """Streams the documents of a portion that are not left out.

    Yields:
        The document, the bytes of its text in UTF-8 and its position.
    """
    path = pathlib.Path(folder) / deduplication.VERDICTS
    verdicts = None
    if path.exists():
        start = sum(survey.documents[: portion.number])
        shape = (survey.documents[portion.number],)
        verdicts = np.memmap(path, np.uint8, "r", start, shape) if shape[0] else ()
    for number, document in enumerate(portion.read()):
        if verdicts is not None and (
            number >= len(verdicts) or verdicts[number] != deduplication.KEPT
        ):
            continue
        data = document.text.encode()
        yield document, len(data), position(hashlib.sha256(data).digest())
