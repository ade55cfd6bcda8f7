"""Configs of analyses; needs no TensorFlow."""

import dataclasses
from typing import Any

from undivided_tf.config import (
    POOLINGS,
    SENTENCE_TASK_HELP,
    SPLITS,
    Config,
    option,
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
    split: str = option("test", "Split of the task.", one_of=SPLITS)
    num_examples: int = option(512, "Examples.", above=0)
    unit: str = option(
        "pieces",
        "What a row is: a word piece, or a word (the mean of its pieces), which encoders of "
        "different vocabularies have in common.",
        one_of=UNITS,
    )
    tokens_per_example: int = option(
        8, "Rows sampled from each example, padding excluded.", above=0
    )
    batch_size: int = option(
        32, "Examples a minibatch; its tokens enter one HSIC estimate.", above=0
    )
    max_seq_length: int = option(128, "Word pieces an example.", above=0)
    measure: str = option(
        "cka", "Measure of similarity; procrustes is a distance.", one_of=MEASURES
    )
    kernel: str = option("linear", "Kernel of CKA.", one_of=KERNELS)
    rbf_threshold: float = option(
        0.5, "Bandwidth of rbf as a share of the median distance.", above=0
    )
    estimator: str = option(
        "minibatch",
        "Of CKA: debiased and averaged over minibatches, or from the whole sample at once. The "
        "other measures take the whole sample.",
        one_of=ESTIMATORS,
    )
    references: tuple[str, ...] = option(
        ("shuffled", "other_sample", "untrained"),
        "Reference lines: second encoder at shuffled examples, both at another sample, first "
        "against the untrained twin of the second. That of another seed comes with "
        "other_seed_checkpoint.",
        one_of=REFERENCES[:-1],
    )
    bootstrap_replicates: int = option(
        400, "Of the bootstrap over minibatches, for 95 % intervals; 0: none.", at_least=0
    )
    high_norm_share: float = option(
        0.01,
        "Share of the tokens, those of highest norm, without which all is computed once more; 0: "
        "not computed.",
        at_least=0,
        below=1,
    )
    cache_dir: str = option("", "Directory that keeps activations for other runs; empty: none.")
    seed: int = seed_option("Decides examples, tokens, shuffling and untrained weights.")

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        if self.measure != "cka" and (self.kernel, self.estimator) != ("linear", "minibatch"):
            raise InputError(f"kernel and estimator belong to cka, the measure is {self.measure}")


@dataclasses.dataclass(frozen=True)
class ProbingConfig(Config):
    """Linear probes on every tap of an encoder, with baselines."""

    workdir: str = option("", "Directory for results and figures.")
    init_checkpoint: str = option(
        "", "Pre-training workdir, or one of its checkpoints.", input="checkpoint"
    )
    task: str = option(
        "wiki_topic",
        "Of words: ud:TASK:FOLDER of a treebank (pos, relation, head_distance, arc). Of texts: "
        + SENTENCE_TASK_HELP,
        input="probing_task",
    )
    max_train_rows: int = option(
        2000, "Use at most so many training rows, or words; 0: all.", at_least=0
    )
    max_test_rows: int = option(
        1000, "Use at most so many test rows, or words; 0: all.", at_least=0
    )
    max_seq_length: int = option(128, "Word pieces an example.", above=0)
    batch_size: int = option(64, "Examples a forward pass.", above=0)
    pooling: str = option("mean", "Sentence vector of a tap: first, mean, max.", one_of=POOLINGS)
    inverse_l2: tuple[float, ...] = option(
        (0.001, 0.01, 0.1, 1.0),
        "Inverse strengths of the L2 penalty (scikit-learn's C). Of several the one with the "
        "highest validation accuracy is taken at each tap, of equals the strongest penalty.",
        above=0,
        min_items=1,
    )
    control_task: bool = option(
        True, "Random labels by word type too, and selectivity: accuracy less that on them."
    )
    codelength: bool = option(True, "Online codelength too, and compression.")
    scalar_mix: bool = option(True, "A probe on a learnt mean of all taps too.")
    num_seeds: int = option(
        3,
        "Repetitions with seeds seed, seed + 1, ...: rows, control labels, untrained weights.",
        above=0,
    )
    seed: int = seed_option("The first of them.")

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accepts older configs, in which `inverse_l2` was one number."""
        if isinstance(values.get("inverse_l2"), int | float):
            plain = {"control_task": False, "codelength": False, "scalar_mix": False}
            return {"num_seeds": 1, **plain, **values, "inverse_l2": [values["inverse_l2"]]}
        return values


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
    split: str = option("test", "Split of the task.", one_of=SPLITS)
    num_examples: int = option(256, "Texts.", above=0)
    num_attention_examples: int = option(
        64, "Of these, the texts whose attention is read.", above=0
    )
    max_seq_length: int = option(128, "Word pieces a text.", above=0)
    batch_size: int = option(32, "Texts a forward pass.", above=0)
    top: int = option(
        10, "k of the top-k accuracy of the masked-language-model head on each tap.", above=0
    )
    seed: int = seed_option("Decides texts, masked pieces and untrained weights.")


@dataclasses.dataclass(frozen=True)
class BlimpConfig(Config):
    """Likelihoods of minimal pairs of a grammatical and an ungrammatical sentence."""

    workdir: str = option("", "Directory for results and figures.")
    init_checkpoint: str = option(
        "",
        "Pre-training workdir, or one of its checkpoints, with the masked-language-model head.",
        input="checkpoint",
    )
    data: str = option("BLiMP.zip", "The archive of alexwarstadt/blimp.", input="file")
    max_pairs: int = option(100, "Pairs of each paradigm; 0: all 1000.", at_least=0)
    max_seq_length: int = option(64, "Word pieces a sentence; longer pairs are left out.", above=0)
    batch_size: int = option(256, "Masked copies of sentences a forward pass.", above=0)
    seed: int = seed_option("Decides the pairs.")


@dataclasses.dataclass(frozen=True)
class MaskedLossConfig(Config):
    """Held-out loss at several mask rates, and by class of the masked piece."""

    workdir: str = option("", "Directory for results and figures.")
    init_checkpoint: str = option(
        "",
        "Pre-training workdir, or one of its checkpoints, with the masked-language-model head.",
        input="checkpoint",
    )
    records_dir: str = option(
        "",
        "Records whose held-out rows are masked and whose counts define the classes.",
        input="records",
    )
    mask_rates: tuple[float, ...] = option(
        (0.15, 0.30, 0.50, 0.70),
        "Shares of the word pieces to predict, rising; two or more.",
        above=0,
        below=1,
        min_items=2,
    )
    masked_pieces: int = option(
        200_000,
        "Predict at least so many pieces, over all rates. Where the held-out rows have too few, "
        "they are used again with other masks.",
        above=0,
    )
    batch_size: int = option(64, "Rows a forward pass.", above=0)
    seed: int = seed_option("Decides the masks, which are the same for all encoders.")

    def validate(self) -> None:
        """Raises InputError if the rates do not rise."""
        if sorted(set(self.mask_rates)) != list(self.mask_rates):
            raise InputError(
                "mask_rates must list rates that rise, got "
                + ", ".join(f"{rate:g}" for rate in self.mask_rates)
            )


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
    probe_rank: int = option(64, "Dimensions of the view; at most the hidden size.", above=0)
    max_train_sentences: int = option(
        2000, "Use at most so many; 0: all. Held in memory.", at_least=0
    )
    max_test_sentences: int = option(
        1000, "Use at most so many to validate, and to test; 0: all.", at_least=0
    )
    max_seq_length: int = option(
        128, "Word pieces a sentence; those that are cut are left out.", above=0
    )
    batch_size: int = option(32, "Sentences a step, and a forward pass.", above=0)
    num_epochs: int = option(20, "Passes over the training sentences; the best is kept.", above=0)
    learning_rate: float = option(1e-3, "Of Adam.", above=0)
    seed: int = seed_option("Decides sentences, order, first values and untrained weights.")
