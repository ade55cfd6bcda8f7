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
        "",
        "Second checkpoint; empty: the untrained twin of the first.",
        input="checkpoint",
    )
    other_seed_checkpoint: str = option(
        "",
        "Reference: the first pattern, pre-trained with another seed. It shows how much another "
        "pre-training changes by itself.",
        input="checkpoint",
    )
    task: str = option("wiki_topic", "Task whose texts are the examples.", input="task")
    split: str = option("test", "Split of the task.", one_of=SPLITS)
    num_examples: int = option(512, "Number of examples.", above=0)
    unit: str = option(
        "pieces",
        "Unit of comparison: a word piece, or a word (the mean of its pieces), which encoders of "
        "different vocabularies have in common.",
        one_of=UNITS,
    )
    tokens_per_example: int = option(
        8, "Tokens, or words, sampled from each example without padding.", above=0
    )
    batch_size: int = option(
        32, "Examples per minibatch; its tokens enter one estimate of HSIC.", above=0
    )
    max_seq_length: int = option(128, "Word pieces per example.", above=0)
    measure: str = option(
        "cka", "Measure of similarity; procrustes is a distance.", one_of=MEASURES
    )
    kernel: str = option("linear", "Kernel of CKA.", one_of=KERNELS)
    rbf_threshold: float = option(
        0.5, "Bandwidth of the rbf kernel as a share of the median distance.", above=0
    )
    estimator: str = option(
        "minibatch",
        "Estimator of CKA: debiased and averaged over minibatches, or debiased or biased from the "
        "whole sample at once. The other measures use the whole sample.",
        one_of=ESTIMATORS,
    )
    references: tuple[str, ...] = option(
        ("shuffled", "other_sample", "untrained"),
        "References: the second encoder at shuffled examples, both encoders on another sample, the "
        "first against the untrained twin of the second. other_seed_checkpoint adds another seed.",
        one_of=REFERENCES[:-1],
    )
    bootstrap_replicates: int = option(
        400, "Bootstrap replicates over minibatches, for 95 % intervals; 0: none.", at_least=0
    )
    high_norm_share: float = option(
        0.01,
        "Share of the tokens, those of highest norm, that a second computation leaves out; 0: no "
        "second computation.",
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
        "Task of words: ud:TASK:FOLDER of a treebank (pos, relation, head_distance, arc). Task of "
        "texts: " + SENTENCE_TASK_HELP,
        input="probing_task",
    )
    max_train_rows: int = option(
        2000, "Largest number of training rows, or words; 0: all.", at_least=0
    )
    max_test_rows: int = option(1000, "Largest number of test rows, or words; 0: all.", at_least=0)
    max_seq_length: int = option(128, "Word pieces per example.", above=0)
    batch_size: int = option(64, "Examples per forward pass.", above=0)
    pooling: str = option("mean", "Sentence vector of a tap: first, mean, max.", one_of=POOLINGS)
    inverse_l2: tuple[float, ...] = option(
        (0.001, 0.01, 0.1, 1.0),
        "Inverse strengths of the L2 penalty (scikit-learn's C). Each tap uses the one with the "
        "highest validation accuracy; among equals, the strongest penalty.",
        above=0,
        min_items=1,
    )
    control_task: bool = option(
        True,
        "Also probe a control task of random labels by word type. Selectivity is the accuracy "
        "minus that of the control task.",
    )
    codelength: bool = option(True, "Also compute the online codelength, as compression.")
    scalar_mix: bool = option(True, "Also probe a learnt weighted mean of all taps.")
    num_seeds: int = option(
        3,
        "Repetitions with the seeds seed, seed + 1, ...; each has its own rows, control labels and "
        "untrained weights.",
        above=0,
    )
    seed: int = seed_option("The first of the seeds.")

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accepts older configs, in which `inverse_l2` was one number."""
        if isinstance(values.get("inverse_l2"), int | float):
            plain = {"control_task": False, "codelength": False, "scalar_mix": False}
            return {"num_seeds": 1, **plain, **values, "inverse_l2": [values["inverse_l2"]]}
        return values


@dataclasses.dataclass(frozen=True)
class DiagnosticsConfig(Config):
    """Rank collapse, contribution, linearity, attention and read-out of every block."""

    workdir: str = option("", "Directory for results and figures.")
    init_checkpoint: str = option(
        "", "Pre-training workdir, or one of its checkpoints.", input="checkpoint"
    )
    second_checkpoint: str = option(
        "",
        "Another encoder, whose heads are matched with those of the first; empty: none.",
        input="checkpoint",
    )
    task: str = option("wiki_topic", "Task whose texts are the examples.", input="task")
    split: str = option("test", "Split of the task.", one_of=SPLITS)
    num_examples: int = option(256, "Number of texts.", above=0)
    num_attention_examples: int = option(
        64, "Number of these texts whose attention is analysed.", above=0
    )
    max_seq_length: int = option(128, "Word pieces per text.", above=0)
    batch_size: int = option(32, "Texts per forward pass.", above=0)
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
    max_pairs: int = option(100, "Largest number of pairs of a paradigm; 0: all 1000.", at_least=0)
    max_seq_length: int = option(
        64, "Word pieces per sentence; pairs with a longer sentence are left out.", above=0
    )
    batch_size: int = option(256, "Masked copies of sentences per forward pass.", above=0)
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
        "Shares of the word pieces to predict; two or more, rising.",
        above=0,
        below=1,
        min_items=2,
    )
    masked_pieces: int = option(
        200_000,
        "Smallest number of pieces to predict, over all rates. If the held-out rows have fewer, "
        "they are used again with other masks.",
        above=0,
    )
    batch_size: int = option(64, "Rows per forward pass.", above=0)
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
    """Structural probe: does a linear view of a tap hold the trees of sentences as distances?"""

    workdir: str = option("", "Directory for results and figures.")
    init_checkpoint: str = option(
        "", "Pre-training workdir, or one of its checkpoints.", input="checkpoint"
    )
    treebank: str = option(
        "",
        "Folder with *-ud-train.conllu, -dev and -test, optionally compressed (.gz).",
        input="treebank",
    )
    probe_rank: int = option(64, "Dimensions of the linear view; at most the hidden size.", above=0)
    max_train_sentences: int = option(
        2000,
        "Largest number of training sentences, which are held in memory; 0: all.",
        at_least=0,
    )
    max_test_sentences: int = option(
        1000,
        "Largest number of sentences of the validation split, and of the test split; 0: all.",
        at_least=0,
    )
    max_seq_length: int = option(
        128, "Word pieces per sentence; longer sentences are left out.", above=0
    )
    batch_size: int = option(32, "Sentences per training step, and per forward pass.", above=0)
    num_epochs: int = option(
        20, "Passes over the training sentences; the best epoch of each tap is kept.", above=0
    )
    learning_rate: float = option(1e-3, "Learning rate of Adam.", above=0)
    seed: int = seed_option("Decides sentences, order, initial values and untrained weights.")
