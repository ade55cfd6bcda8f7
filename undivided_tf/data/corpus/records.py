"""Records: a corpus as rows of word pieces in TFRecord shards, written once.

A records directory holds `train-00000-of-00008.tfrecord` ..., one validation file, `vocab.txt`,
`metadata.json`, `counts.npz`, and `config.json` and `inputs.json` of the run that made it. A record
is a `tf.train.Example` (see `data/examples.py`). Its features are byte strings of
little-endian int32 values:

- `token_ids`, `max_seq_length` values: `[CLS] pieces [SEP]`, padded with [PAD]. Records of single
  texts have this feature only.
- Records of pairs, `[CLS] A [SEP] B [SEP]`, have two more, of one value each:
  `first_segment_length`, the number of tokens up to and including the first [SEP] (`segment_ids`
  are 0 there and 1 after it), and `next_sentence_label`: 0 if B follows A in the text; 1 if B is
  from another document (`packing` `next_sentence`) or precedes A (`sentence_order`).

`metadata.json` names the packing (if absent, `"packing": "full"`) and the counts of each split.
`left_out` counts the parts of the corpus that are in no record. `streams` yields dicts of
`token_ids` `(max_seq_length,)` and, for pairs, `segment_ids` `(max_seq_length,)` and
`next_sentence_label` `()`. A reader that knows only `token_ids` reads all records as single texts,
so the format version is still 1.

`counts.npz` holds the counts of each word piece and each adjacent pair in the training rows
(`counts.read_counts`). Records of older releases have no such file; it is made when it is first
needed.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from undivided_tf.config import EncoderConfig
from undivided_tf.data.corpus import chunks, corpora, ngrams, runners, shards, survey
from undivided_tf.data.corpus.chunks import Vocabulary
from undivided_tf.data.corpus.config import PAIR_PACKINGS, RecordsConfig
from undivided_tf.data.corpus.corpora import Portion
from undivided_tf.data.corpus.survey import Survey
from undivided_tf.errors import InputError
from undivided_tf.support import files, progress
from undivided_tf.tokenization import Tokenizer, pieces_with_capitals
from undivided_tf.workdir import note_finished, open_scratch, open_workdir, results_directory

FORMAT_VERSION = 1
METADATA, VOCABULARY = "metadata.json", "vocab.txt"
# Approximate limit of the text for training a vocabulary; a random part of a larger corpus is used.
VOCABULARY_BYTES = 1 << 30


def create_records(config: RecordsConfig) -> dict[str, Any]:
    """Turns a corpus into records; returns at once if the same config has finished before.

    The corpus is read twice, and once more to train a vocabulary. The first reading finds faults,
    counts and duplicates (`survey`). The second tokenises and packs it, each chunk independently
    (`chunks`). Then the rows of all chunks are written to their shards (`shards`). A document is
    held out if the hash of its text is below `validation_fraction`; at least one is held out.
    Held-out text is not used to train the vocabulary.

    The records have the same bytes under every runner (`runners`). The directory is written
    atomically. A killed run leaves its finished work beside it in `.NAME.work`, and the same call
    resumes from there. Memory does not grow with the corpus, but with its longest document and,
    while a vocabulary is trained, with the number of distinct words.

    Args:
        config: see `RecordsConfig`.

    Returns:
        The content of `metadata.json`.

    Raises:
        InputError: the corpus is empty, damaged (names file and line) or too small to hold a
            document out; the vocabulary is invalid; or `output_dir` holds something else.
    """
    output_dir = _check_output_dir(config)
    work = pathlib.Path(os.path.abspath(output_dir))
    work = work.with_name(f".{work.name}.work")
    if (output_dir / METADATA).exists():
        files.remove(work)
        metadata = read_metadata(output_dir)
        note_finished(output_dir / METADATA)
        return metadata
    runners.check(config)
    sources = corpora.sources(config.input_files, config.text_field)
    given = None
    if config.vocab_file:
        given = Vocabulary.of(config.vocab_file, config.do_lower_case)
        _warn_of_capitals(chunks.load_tokenizer(given))  # Reports faults before the work.
    # Workers and paths may change; the result does not depend on them.
    state = {"config": _portable(config).to_dict(), "sources": [list(source) for source in sources]}
    open_scratch(work, {**state, "vocabulary": given and given.digest})
    try:
        metadata = _create(work, config, corpora.portions(sources), given)
    except InputError:  # The user will correct the input, so the unfinished work is useless.
        files.remove(work)
        raise
    files.replace(work / "records", output_dir)
    files.remove(work)
    return metadata


def _warn_of_capitals(tokenizer: Tokenizer) -> None:
    capital, number = pieces_with_capitals(tokenizer.vocabulary)
    if tokenizer.do_lower_case and capital and len(capital) >= number / 100:
        logging.warning(
            "%d of %d word pieces have capitals, such as %r, but --do_lower_case removes capitals "
            "from the text; give --nodo_lower_case for a cased vocabulary",
            len(capital),
            number,
            capital[0],
        )


def _create(
    work: pathlib.Path,
    config: RecordsConfig,
    portions: Sequence[Portion],
    given: Vocabulary | None,
) -> dict[str, Any]:
    """Fills `work/records`; the caller moves it into place."""
    sizes = [source.text_size for portion in portions for source in portion.sources]
    job = survey.SurveyPortion(str(work), config.deduplicate)
    total = None if None in sizes else sum(sizes)
    runners.run(config, job, portions, "read the corpus", total)
    surveyed = survey.conclude(work, portions, config)
    vocabulary = given or _trained_vocabulary(work, config, portions, surveyed)
    tokenizer = chunks.load_tokenizer(vocabulary)
    runners.run(
        config,
        chunks.PackChunk(str(work), vocabulary, config),
        portions,
        "tokenise and pack",
        surveyed.kept_bytes,
        chunks.CutPortion(str(work), surveyed),
    )
    totals = shards.totals(work, tokenizer.vocab_size)
    for split, facts in totals.items():
        if not facts["counts"].any():
            raise InputError(f"the {split} documents of the corpus contain no word piece")
        if not facts["shard_rows"].any():
            raise InputError(
                f"the {split} documents of the corpus make no pair of segments for --packing="
                f"{config.packing}; give more or longer ones"
            )
    packed = sum(facts["documents"] for facts in totals.values())
    if packed != surveyed.kept_documents:
        raise InputError(
            f"the corpus had {surveyed.kept_documents} documents when it was read first and "
            f"{packed} when it was packed; do not change its files, and start again"
        )
    records = work / "records"
    rows = sum(int(facts["shard_rows"].sum()) for facts in totals.values())
    # Copying is too little work to start another cluster.
    copying = _portable(config) if config.runner == "dask" else config
    runners.run(
        copying,
        shards.WriteShard(str(work), config),
        shards.shards(config),
        "write shards",
        rows * chunks.layout(config).dtype.itemsize,
    )
    _count(work, copying, tokenizer)
    cut = sum(facts["cut"] for facts in totals.values())
    if cut:
        logging.info("%d word pieces are in no record: they did not fit into a pair", cut)
    metadata = {
        "format_version": FORMAT_VERSION,
        "vocabulary_hash": tokenizer.vocabulary_hash,
        "vocab_size": tokenizer.vocab_size,
        "do_lower_case": tokenizer.do_lower_case,
        "max_seq_length": config.max_seq_length,
        "packing": config.packing,
        "random_seed": config.random_seed,
        **shards.describe(records, config, totals, tokenizer),
        "left_out": {**surveyed.duplicates, "cut_tokens": cut},
        "sources": surveyed.sources,
    }
    tokenizer.save(records / VOCABULARY)
    open_workdir(records, _portable(config))
    files.write_json(records / METADATA, metadata)
    return metadata


def _count(work: pathlib.Path, config: RecordsConfig, tokenizer: Tokenizer) -> None:
    """Writes `counts.npz` of the finished record files."""
    names = [shard.name for shard in shards.shards(config) if shard.split == "train"]
    layout = (config.max_seq_length, config.packing in PAIR_PACKINGS)
    size = tokenizer.vocab_size
    job = ngrams.CountShard(str(work), layout, size, tokenizer.pad_id)
    bytes_of_shards = sum((work / "records" / name).stat().st_size for name in names)
    runners.run(config, job, names, "count word pieces", bytes_of_shards)
    parts = (ngrams.load(work / "counts" / f"{name}.npz").bigrams for name in names)
    counts = ngrams.summarise(ngrams.total(parts, size), tokenizer.is_special)
    ngrams.write(work / "records" / ngrams.FILE, counts)


def _portable(config: RecordsConfig) -> RecordsConfig:
    """The config without paths and workers, which do not change the records."""
    return config.replace(
        output_dir="", runner="in_process", num_processes=0, scheduler="", pipeline_options=()
    )


def _check_output_dir(config: RecordsConfig) -> pathlib.Path:
    if not config.output_dir:
        raise InputError("a directory for the records is needed: --output_dir=DIR")
    path = pathlib.Path(config.output_dir)
    if (path / "config.json").exists():
        open_workdir(path, _portable(config))
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} contains other files than records; choose another --output_dir")
    return results_directory(path, "output_dir")


def _trained_vocabulary(
    work: pathlib.Path, config: RecordsConfig, portions: Sequence[Portion], surveyed: Survey
) -> Vocabulary:
    """Trains a vocabulary on the documents that are not held out, unless it is trained already."""
    path = work / VOCABULARY
    if not path.exists():
        # Imported here, since most runs use a vocabulary without training it.
        from undivided_tf.data.corpus.vocabulary_training import train_vocabulary

        # Positions are random, so the documents below a limit are a random part.
        share = min(1.0, VOCABULARY_BYTES / surveyed.kept_bytes)
        limit = surveyed.threshold + share * (1 - surveyed.threshold)

        def texts() -> Iterator[str]:
            for portion in portions:
                for document, size, place in survey.kept_documents(work, portion, surveyed):
                    if surveyed.threshold <= place < limit:
                        yield from document.paragraphs
                    bar.update(size)

        with progress.bar(surveyed.kept_bytes, "count words", "bytes") as bar:
            pieces = train_vocabulary(texts(), config.vocab_size, config.do_lower_case)
        files.write_text(path, "".join(f"{piece}\n" for piece in pieces))
    return Vocabulary.of(path, config.do_lower_case)


def read_metadata(records_dir: str | os.PathLike) -> dict[str, Any]:
    """Reads `metadata.json` and checks the presence and size of every record file.

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
    if metadata.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{folder / METADATA}: format version {metadata.get('format_version')}, this program "
            f"reads {FORMAT_VERSION}; make the records again"
        )
    for split in chunks.SPLITS:
        for file in metadata[split]["files"]:
            path = folder / file["name"]
            size = path.stat().st_size if path.exists() else 0
            if size != file["bytes"]:
                raise InputError(
                    f"{path}: {size} bytes instead of {file['bytes']}: truncated or changed; "
                    "make the records again"
                )
    return metadata


def input_files(records_dir: str) -> dict[str, pathlib.Path]:
    """The file that identifies a set of records: it has the hashes of the shards."""
    return {METADATA: pathlib.Path(records_dir) / METADATA}


def has_pairs(metadata: dict[str, Any]) -> bool:
    """Whether records of this metadata hold pairs of segments with a label."""
    return metadata.get("packing", "full") in PAIR_PACKINGS


def check_records(records_dir: str | os.PathLike, encoder: EncoderConfig) -> dict[str, Any]:
    """Raises an error if records do not fit an encoder.

    Args:
        records_dir: output of `create_records`.
        encoder: its `vocabulary_hash` is compared unless it is empty (not known).

    Returns:
        The metadata.

    Raises:
        InputError: values differ (names each value of the records and of the encoder), or the
            records hold pairs and the encoder has one segment.
    """
    metadata = read_metadata(records_dir)
    names = ["vocab_size", "do_lower_case"] + ["vocabulary_hash"] * bool(encoder.vocabulary_hash)
    if (
        metadata["vocabulary_hash"] == encoder.vocabulary_hash
        and metadata["vocab_size"] < encoder.vocab_size
    ):
        names.remove("vocab_size")  # Released weights may have more rows.
    wrong = [
        f"{name}: {metadata[name]} in the records, {getattr(encoder, name)} in the encoder"
        for name in names
        if metadata[name] != getattr(encoder, name)
    ]
    if has_pairs(metadata):
        encoder.require_segments(2)
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
        InputError: `vocab.txt` does not have the hash in `metadata.json`.
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
