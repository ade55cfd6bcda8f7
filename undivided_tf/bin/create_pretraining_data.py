"""Makes pre-training records from text: vocabulary, packed rows, metadata."""

from undivided_tf.bin import config_flags
from undivided_tf.data.corpus.config import RecordsConfig


def main(config: RecordsConfig) -> None:
    """Makes the records and prints their contents."""
    # Imported here, since TensorFlow takes seconds and --help does not need it.
    from undivided_tf.data.corpus.records import create_records

    metadata = create_records(config)
    print(f"{'':<12}{'documents':>12}{'word pieces':>14}{'rows':>12}{'files':>8}")
    for split in ("train", "validation"):
        facts = metadata[split]
        print(
            f"{split:<12}{facts['documents']:>12,}{facts['tokens']:>14,}{facts['rows']:>12,}"
            f"{len(facts['files']):>8}"
        )
    print(
        f"vocabulary {metadata['vocab_size']:,} ({metadata['vocabulary_hash'][:8]}), "
        f"rows of {metadata['max_seq_length']}, unknown {metadata['unknown_share']:.4%}, "
        f"unigram entropy {metadata['unigram_entropy']:.3f} nats a word piece"
    )
    left_out = metadata["left_out"]
    if any(left_out.values()):
        print(
            f"left out: {left_out['exact_duplicates']:,} exact and "
            f"{left_out['near_duplicates']:,} near duplicates "
            f"({left_out['duplicate_bytes']:,} bytes), {left_out['cut_tokens']:,} word pieces cut"
        )
    print(f"written to {config.output_dir}")


parse, run = config_flags.program(RecordsConfig(), main)


if __name__ == "__main__":
    run()
