"""Config of pre-training records; needs no TensorFlow."""

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
    """Conversion of text to records of word pieces."""

    input_files: tuple[str, ...] = option(
        ("sample",),
        "Corpus: files or globs, tfds:NAME, task:NAME (the texts of the training rows of a task, "
        "without labels), or `sample`, the embedded corpus. Files are text (one paragraph per "
        "line, a blank line ends a document) or JSON lines (.jsonl, .ndjson, .json), both also "
        "compressed (.gz), or .parquet.",
        input="corpus",
    )
    text_field: str = option("text", "Field or column with the text of a document.")
    deduplicate: str = option(
        "none",
        "Documents to leave out: exact: copies of an earlier document; near: also documents that "
        "share four fifths of their runs of five words with an earlier one (MinHash).",
        one_of=DEDUPLICATIONS,
    )
    output_dir: str = option("", "Directory for the records, vocab.txt and metadata.json.")
    vocab_file: str = option(
        "", "Vocabulary, one word piece per line; empty: train one.", input="file"
    )
    vocab_size: int = option(8000, "Size of a trained vocabulary.", above=0)
    do_lower_case: bool = option(True, "Lower-case the text and strip accents.")
    max_seq_length: int = option(
        128, "Word pieces per record, [CLS] and [SEP] included.", at_least=8
    )
    packing: str = option(
        "full",
        "Content of a record: full: as much text as fits, with [SEP] between documents; "
        "next_sentence: two segments, in half of the records from different documents; "
        "sentence_order: two segments, in half of the records swapped; document: text of one "
        "document.",
        one_of=PACKINGS,
    )
    short_seq_prob: float = option(
        0.1,
        "Share of the documents whose pairs of segments have a random length below the largest.",
        at_least=0,
        below=1,
    )
    num_shards: int = option(
        8, "Number of training files; a training run holds one at a time in memory.", above=0
    )
    validation_fraction: float = option(
        0.02,
        "Share of the documents held out from training; at least one document.",
        at_least=0,
        below=1,
    )
    random_seed: int = seed_option("Decides the pairs, and the shard of each record.")
    runner: str = option(
        "in_process",
        "Where the work runs: in this process, on a Dask cluster, or on a runner of Apache Beam "
        "(extra `beam`). The records are the same everywhere. All workers must see the input and "
        "output folders.",
        one_of=RUNNERS,
    )
    num_processes: int = option(
        0, "Worker processes of the Dask cluster on this machine; 0: one per core.", at_least=0
    )
    scheduler: str = option(
        "",
        "Address of an existing Dask scheduler, such as tcp://HOST:8786; empty: start a cluster on "
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
