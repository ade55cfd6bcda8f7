"""What is asked of a trained encoder; needs no TensorFlow."""

import dataclasses
from typing import Any

from undivided_tf.config import (
    POOLINGS,
    SPLITS,
    TASK_HELP,
    Config,
    option,
    require_positive,
    require_share,
    seed_option,
)
from undivided_tf.errors import InputError

MEASURES = ("cka", "svcca", "pwcca", "procrustes", "rsa")
KERNELS = ("linear", "rbf")
ESTIMATORS = ("minibatch", "debiased", "biased")
UNITS = ("pieces", "words")
REFERENCES = ("shuffled", "other_sample", "untrained", "other_seed")


@dataclasses.dataclass(frozen=True)
class CkaConfig(Config):
    """CKA of every tap of one encoder against every tap of another, on the same examples."""

    workdir: str = option("", "Directory for results and figures.")
    first_checkpoint: str = option(
        "", "Pre-training workdir, or one of its checkpoints.", input="checkpoint"
    )
    second_checkpoint: str = option(
        "", "The other; empty: the untrained twin of the first.", input="checkpoint"
    )
    other_seed_checkpoint: str = option(
        "",
        "Reference: the pattern of the first, pre-trained with another seed. Between the two "
        "lies what a new pre-training changes by itself.",
        input="checkpoint",
    )
    task: str = option("wiki_topic", "Task whose texts are the examples.", input="task")
    split: str = option("test", "Split of the task.", SPLITS)
    num_examples: int = option(512, "Examples.")
    unit: str = option(
        "pieces",
        "What a row is: a word piece, or a word (the mean of its pieces), which encoders of "
        "different vocabularies have in common.",
        UNITS,
    )
    tokens_per_example: int = option(8, "Rows sampled from each example, padding excluded.")
    batch_size: int = option(32, "Examples a minibatch; its tokens enter one HSIC estimate.")
    max_seq_length: int = option(128, "Word pieces an example.")
    measure: str = option("cka", "Measure of similarity; procrustes is a distance.", MEASURES)
    kernel: str = option("linear", "Kernel of CKA.", KERNELS)
    rbf_threshold: float = option(0.5, "Bandwidth of rbf as a share of the median distance.")
    estimator: str = option(
        "minibatch",
        "Of CKA: debiased and averaged over minibatches, or from the whole sample at once. The "
        "other measures take the whole sample.",
        ESTIMATORS,
    )
    references: tuple[str, ...] = option(
        ("shuffled", "other_sample", "untrained"),
        "Reference lines: second encoder at shuffled examples, both at another sample, first "
        "against the untrained twin of the second.",
    )
    bootstrap_replicates: int = option(
        400, "Of the bootstrap over minibatches, for 95 % intervals; 0: none."
    )
    high_norm_share: float = option(
        0.01,
        "Share of the tokens, those of highest norm, without which all is computed once more; 0: "
        "not computed.",
    )
    cache_dir: str = option("", "Directory that keeps activations for other runs; empty: none.")
    seed: int = seed_option("Decides examples, tokens, shuffling and untrained weights.")

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(
            self, "num_examples", "tokens_per_example", "batch_size", "max_seq_length",
            "rbf_threshold",
        )  # fmt: skip
        require_share(self, "high_norm_share")
        for reference in self.references:
            if reference not in REFERENCES[:-1]:
                raise InputError(
                    f"references has {reference!r}; known: {', '.join(REFERENCES[:-1])} "
                    "(other_seed comes with other_seed_checkpoint)"
                )
        if self.bootstrap_replicates < 0:
            raise InputError(
                f"bootstrap_replicates must be from 0, got {self.bootstrap_replicates}"
            )
        if self.measure != "cka" and (self.kernel, self.estimator) != ("linear", "minibatch"):
            raise InputError(f"kernel and estimator belong to cka, the measure is {self.measure}")


@dataclasses.dataclass(frozen=True)
class ProbingConfig(Config):
    """Linear probes on every tap of an encoder, beside what their scores must be read against."""

    workdir: str = option("", "Directory for results and figures.")
    init_checkpoint: str = option(
        "", "Pre-training workdir, or one of its checkpoints.", input="checkpoint"
    )
    task: str = option(
        "wiki_topic",
        "ud:TASK:FOLDER of a treebank (pos, relation, head_distance, arc, length, depth, tense, "
        "subject_number, object_number, word_content, bigram_shift), trec:qc.zip, "
        f"subjectivity:subjectivity.zip, or: {TASK_HELP}",
        input="probing_task",
    )
    max_train_rows: int = option(2000, "Use at most so many training rows, or words; 0: all.")
    max_test_rows: int = option(1000, "Use at most so many test rows, or words; 0: all.")
    max_seq_length: int = option(128, "Word pieces an example.")
    batch_size: int = option(64, "Examples a forward pass.")
    pooling: str = option("mean", "Sentence vector of a tap: first, mean, max.", POOLINGS)
    inverse_l2: tuple[float, ...] = option(
        (0.001, 0.01, 0.1, 1.0),
        "Inverse strengths of the L2 penalty (scikit-learn's C). Of several the one with the "
        "highest validation accuracy is taken at each tap, of equals the strongest penalty.",
    )
    control_task: bool = option(
        True, "Random labels by word type too, and selectivity: accuracy less that on them."
    )
    codelength: bool = option(True, "Online codelength too, and compression.")
    scalar_mix: bool = option(True, "A probe on a learnt mean of all taps too.")
    num_seeds: int = option(
        3, "Repetitions with seeds seed, seed + 1, ...: rows, control labels, untrained weights."
    )
    seed: int = seed_option("The first of them.")

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`inverse_l2` was one number."""
        if isinstance(values.get("inverse_l2"), int | float):
            plain = {"control_task": False, "codelength": False, "scalar_mix": False}
            return {"num_seeds": 1, **plain, **values, "inverse_l2": [values["inverse_l2"]]}
        return values

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(self, "batch_size", "max_seq_length", "num_seeds")
        for value in self.inverse_l2 or (0.0,):
            if value <= 0:
                raise InputError(f"inverse_l2 must be above 0, got {value}")


@dataclasses.dataclass(frozen=True)
class DiagnosticsConfig(Config):
    """Rank collapse, contributions, linearity, attention and read-out of every block."""

    workdir: str = option("", "Directory for results and figures.")
    init_checkpoint: str = option(
        "", "Pre-training workdir, or one of its checkpoints.", input="checkpoint"
    )
    second_checkpoint: str = option(
        "", "Another encoder, whose heads are matched; empty: none.", input="checkpoint"
    )
    task: str = option("wiki_topic", "Task whose texts are the examples.", input="task")
    split: str = option("test", "Split of the task.", SPLITS)
    num_examples: int = option(256, "Texts.")
    num_attention_examples: int = option(64, "Of these, the texts whose attention is read.")
    max_seq_length: int = option(128, "Word pieces a text.")
    batch_size: int = option(32, "Texts a forward pass.")
    top: int = option(10, "k of the top-k accuracy of the masked-language-model head on each tap.")
    seed: int = seed_option("Decides texts, masked pieces and untrained weights.")

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(
            self, "num_examples", "num_attention_examples", "max_seq_length", "batch_size", "top"
        )


@dataclasses.dataclass(frozen=True)
class BlimpConfig(Config):
    """Which of two sentences that differ in a point of grammar an encoder finds likelier."""

    workdir: str = option("", "Directory for results and figures.")
    init_checkpoint: str = option(
        "", "Pre-training workdir, or one of its checkpoints, with the masked-language-model head.",
        input="checkpoint",
    )  # fmt: skip
    data: str = option("BLiMP.zip", "The archive of alexwarstadt/blimp.", input="file")
    max_pairs: int = option(100, "Pairs of each paradigm; 0: all 1000.")
    max_seq_length: int = option(64, "Word pieces a sentence; longer pairs are left out.")
    batch_size: int = option(256, "Masked copies of sentences a forward pass.")
    seed: int = seed_option("Decides the pairs.")

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(self, "max_seq_length", "batch_size")


@dataclasses.dataclass(frozen=True)
class StructuralConfig(Config):
    """Structural probe: are the trees of sentences distances in a linear view of every tap?"""

    workdir: str = option("", "Directory for results and figures.")
    init_checkpoint: str = option(
        "", "Pre-training workdir, or one of its checkpoints.", input="checkpoint"
    )
    treebank: str = option(
        "", "Folder with *-ud-train.conllu, -dev and -test, or packed (.gz).", input="treebank"
    )
    probe_rank: int = option(64, "Dimensions of the view; at most the hidden size.")
    max_train_sentences: int = option(2000, "Use at most so many; 0: all. Held in memory.")
    max_test_sentences: int = option(1000, "Use at most so many to validate, and to test; 0: all.")
    max_seq_length: int = option(128, "Word pieces a sentence; those that are cut are left out.")
    batch_size: int = option(32, "Sentences a step, and a forward pass.")
    num_epochs: int = option(20, "Passes over the training sentences; the best is kept.")
    learning_rate: float = option(1e-3, "Of Adam.")
    seed: int = seed_option("Decides sentences, order, first values and untrained weights.")

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(
            self, "probe_rank", "max_seq_length", "batch_size", "num_epochs", "learning_rate"
        )
