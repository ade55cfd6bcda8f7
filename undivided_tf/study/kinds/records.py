"""Records: the text that all encoders of a study are pre-trained on."""

from collections.abc import Iterator, Mapping

from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Finding
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import START_SECONDS, Cell, Kind, Speed
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.results import StudyResults


class Records(Kind):
    """One cell, which every pre-training needs."""

    name = section = "records"
    title = "Records"
    call = "undivided_tf.data.corpus.records:create_records"
    home = "output_dir"

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        yield cell(config)

    def seconds(self, cell: Cell, speed: Speed) -> float:
        return 2 * START_SECONDS

    def methods(self, study: StudyResults) -> Iterator[Finding]:
        config = study.config.records
        vocabulary = f"{formatting.count(config.vocab_size)} pieces, trained on the corpus"
        if config.vocab_file:
            vocabulary = "given as a file"
        casing = "lower-cased" if config.do_lower_case else "cased"
        yield Finding(
            self.title,
            f"A WordPiece vocabulary ({vocabulary}, {casing}) and records of "
            f"{config.max_seq_length} pieces. "
            f"{formatting.percent(config.validation_fraction)} % of the documents are held out.",
        )


def cell(config: StudyConfig) -> Cell:
    """The records of a study."""
    return Cell(Records(), {}, config.records)
