"""Config of making records from text; needs no TensorFlow."""

import dataclasses

from undivided_tf.config import Config, option, seed_option
from undivided_tf.errors import InputError

PAIR_PACKINGS = ("next_sentence", "sentence_order")
PACKINGS = ("full", *PAIR_PACKINGS, "document")
DEDUPLICATIONS = ("none", "exact", "near")
BEAM_RUNNERS = ("DirectRunner", "DaskRunner", "FlinkRunner", "SparkRunner", "DataflowRunner")
RUNNERS = ("in_process", "dask", *BEAM_RUNNERS)


@dataclasses.dataclass(frozen=True)
class RecordsConfig(Config):
    """How text becomes packed token records."""

    input_files: tuple[str, ...] = option(
        ("sample",),
        "Corpus: files or globs, tfds:NAME, or `sample`, the embedded corpus. Files are text (one "
        "paragraph a line, a blank line ends a document), JSON lines (.jsonl, .ndjson, .json), "
        "either of them with .gz behind, or .parquet.",
        input="corpus",
    )
    text_field: str = option("text", "Field, or column, with the text of a document.")
    deduplicate: str = option(
        "none",
        "Leave out documents whose text was there before: exact, or near for those, too, "
        "that share four fifths of their runs of five words (MinHash).",
        one_of=DEDUPLICATIONS,
    )
    output_dir: str = option("", "Directory for the records, vocab.txt and metadata.json.")
    vocab_file: str = option(
        "", "Vocabulary, one word piece a line; empty: train one.", input="file"
    )
    vocab_size: int = option(8000, "Size of the vocabulary that is trained.", above=0)
    do_lower_case: bool = option(True, "Lower-case the text and strip accents.")
    max_seq_length: int = option(128, "Word pieces a record, [CLS] and [SEP] included.", at_least=8)
    packing: str = option(
        "full",
        "What a record holds: full: as much text as goes in, [SEP] between documents; "
        "next_sentence: two segments, the second from another document half the time; "
        "sentence_order: two, half the time in the wrong order; document: text of one document.",
        one_of=PACKINGS,
    )
    short_seq_prob: float = option(
        0.1,
        "Share of the documents whose pairs of segments get a random, shorter length.",
        at_least=0,
        below=1,
    )
    num_shards: int = option(8, "Training record files; reading holds one in memory.", above=0)
    validation_fraction: float = option(
        0.02,
        "Share of the documents held out from training; at least one document.",
        at_least=0,
        below=1,
    )
    random_seed: int = seed_option("Decides pairs, and which shard each record goes to.")
    runner: str = option(
        "in_process",
        "Who works; the records are the same: this process, a Dask cluster, or a "
        "runner of Apache Beam (extra `beam`). All workers must see the input and output folders.",
        one_of=RUNNERS,
    )
    num_processes: int = option(
        0, "Worker processes of the Dask cluster on this machine; 0: one a core.", at_least=0
    )
    scheduler: str = option(
        "",
        "Address of a standing Dask scheduler, such as tcp://HOST:8786; empty: a cluster on "
        "this machine.",
    )
    pipeline_options: tuple[str, ...] = option(
        (), "Options of Apache Beam, such as --direct_num_workers=2."
    )

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        if self.scheduler and self.runner != "dask":
            raise InputError(f"scheduler is for the runner dask, not for {self.runner}")
        if self.pipeline_options and self.runner not in BEAM_RUNNERS:
            raise InputError(
                f"pipeline_options are for the runners {', '.join(BEAM_RUNNERS)}, not for "
                f"{self.runner}"
            )
