"""Compares one encoder with several others on the same tokens, in one pass over the data."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.analysis import activation_cache, measures, subjects, taps, words
from undivided_tf.analysis.cka import MIN_EXAMPLES
from undivided_tf.analysis.config import CkaConfig
from undivided_tf.analysis.extraction import Activations
from undivided_tf.analysis.minibatch_cka import MinibatchCka, Minibatches
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks.tasks import Rows
from undivided_tf.errors import InputError

TapPairs = MinibatchCka | measures.WholeSample
_MAX_BYTES = 4 << 30  # Limit for the Gram matrices of a whole sample.


class Sample:
    """Activations of several encoders at the tokens, or words, of some rows.

    Attributes:
        dropped: tokens of minibatches too small for an estimate.
        unseen_words: words that at least one encoder does not see completely.

    Args:
        encoders: `first`, `second`, and others, by name, to compare with the first.
        rows: texts.
        config: unit, measure and sizes.

    Raises:
        InputError: encoders of different vocabularies if tokens are compared, or pairs of texts if
            words are compared.
    """

    def __init__(self, encoders: Mapping[str, Subject], rows: Rows, config: CkaConfig):
        self.encoders, self.rows, self.config = dict(encoders), rows, config
        self.names = {
            name: list(subject.encoder.config.pattern.tap_names)
            for name, subject in self.encoders.items()
        }
        self.dropped = self.unseen_words = 0
        self.measure = measures.MEASURES.get(config.measure)
        self._whole = self.measure is not None or config.estimator != "minibatch"
        if config.unit == "pieces":
            for other in self.encoders.values():
                subjects.require_same_vocabulary(self.encoders["first"], other)
        elif rows.second is not None:
            raise InputError("unit words is for tasks of single texts; this one has pairs")

    def compare(self) -> dict[str, TapPairs]:
        """Compares the encoders; computes each activation once.

        Returns:
            A `MinibatchCka` or `WholeSample` by name. The name of an encoder: the first encoder
            against it. `within_second`: the second against itself. If the config asks for them,
            `shuffled`: the first against the second at other tokens; `without_high_norm`: the
            first against the second without the tokens of highest norm.

        Raises:
            InputError: as `taps.token_activations`, fewer than four tokens, or a whole sample of
                more tokens than fit into memory.
        """
        config = self.config
        partners = {name: ("first", name) for name in self.encoders}
        partners["within_second"] = ("second", "second")
        if "shuffled" in config.references:
            partners["shuffled"] = ("first", "second")
        if config.high_norm_share:
            partners["without_high_norm"] = ("first", "second")
        pairs = {name: self._pairs(*pair) for name, pair in partners.items()}
        makers = {name: self._maker(name) for name in self.encoders}
        shuffler = np.random.default_rng((config.seed, 1))
        for batch in self._minibatches():
            n = _length(batch["first"])
            if n < MIN_EXAMPLES:
                self.dropped += n
                continue
            values = {name: makers[name](activations) for name, activations in batch.items()}
            for name, partner in partners.items():
                first, second = (values[encoder] for encoder in partner)
                if name == "shuffled":
                    second = second.take(shuffler.permutation(n))
                elif name == "without_high_norm":
                    kept = ordinary(batch["first"], batch["second"], config.high_norm_share)
                    if len(kept) < MIN_EXAMPLES:
                        continue
                    first, second = first.take(kept), second.take(kept)
                pairs[name].add(first, second)
        if self.dropped:
            logging.warning(
                "%d tokens in minibatches of fewer than %d left out", self.dropped, MIN_EXAMPLES
            )
        return pairs

    def estimator(self, minibatches: int) -> str:
        """Describes the estimator."""
        config = self.config
        tokens = "without special tokens" if config.unit == "pieces" else "of whole words"
        if self.measure:
            return f"{self.measure.label} of the whole sample; {tokens}"
        kernel = config.kernel
        if kernel == "rbf":
            kernel = f"RBF ({config.rbf_threshold:g} of the median distance)"
        if self._whole:
            return f"{config.estimator} {kernel} CKA of the whole sample; {tokens}"
        return (
            f"debiased {kernel} CKA: unbiased HSIC averaged over {minibatches} minibatches, "
            f"then the ratio; {tokens}"
        )

    def _pairs(self, first: str, second: str) -> TapPairs:
        names = self.names[first], self.names[second]
        if self.measure:
            return measures.WholeSample(self.measure, *names)
        return MinibatchCka(
            *names,
            debiased=self.config.estimator != "biased",
            replicates=0 if self._whole else self.config.bootstrap_replicates,
            seed=self.config.seed,
        )

    def _maker(self, encoder: str) -> Callable[[Activations], Any]:
        """Function that prepares activations of an encoder for `TapPairs.add`."""
        config, names = self.config, self.names[encoder]
        if self.measure:
            return lambda activations: measures.Examples(self.measure, names, activations)
        return Minibatches(
            names, config.kernel, config.rbf_threshold, diagonal=config.estimator == "biased"
        )

    def _minibatches(self) -> Iterator[dict[str, Activations]]:
        """Activations of each encoder, at the same tokens; all at once for a whole sample."""
        streams = self._words() if self.config.unit == "words" else self._pieces()
        batches = (
            dict(zip(streams, parts, strict=True)) for parts in zip(*streams.values(), strict=True)
        )
        if not self._whole:
            yield from batches
            return
        kept: dict[str, list[Activations]] = {name: [] for name in streams}
        for batch in batches:
            for name, activations in batch.items():
                kept[name].append(activations)
        whole = {
            name: {tap: np.concatenate([part[tap] for part in parts]) for tap in parts[0]}
            for name, parts in kept.items()
        }
        n, count = _length(whole["first"]), sum(map(len, self.names.values()))
        if self.config.kernel == "rbf" and 8 * count * n**2 > _MAX_BYTES:
            raise InputError(
                f"{count} Gram matrices of {n} x {n} tokens take more than 4 GiB: take "
                "--estimator=minibatch, or fewer examples"
            )
        yield whole

    def _pieces(self) -> dict[str, Iterator[Activations]]:
        config = self.config
        draw = {
            "tokens_per_example": config.tokens_per_example,
            "batch_size": config.batch_size,
            "max_seq_length": config.max_seq_length,
            "seed": config.seed,
        }
        return {
            name: self._cached(
                subject,
                draw,
                lambda s=subject: taps.token_activations(s.encoder, s.tokenizer, self.rows, **draw),
            )
            for name, subject in self.encoders.items()
        }

    def _words(self) -> dict[str, Iterator[Activations]]:
        config = self.config
        sentences = [words.split(text) for text in self.rows.first]
        allowed = words.seen_by_all(
            [subject.tokenizer for subject in self.encoders.values()],
            sentences,
            config.max_seq_length,
        )
        self.unseen_words = int(sum((~mask).sum() for mask in allowed))
        if self.unseen_words:
            logging.info("%d words are not seen whole by all encoders", self.unseen_words)
        places = taps.draw_words(allowed, config.tokens_per_example, config.seed)
        sizes = {"batch_size": config.batch_size, "max_seq_length": config.max_seq_length}
        draw = {**sizes, "words": [chosen.tolist() for chosen in places]}
        return {
            name: self._cached(
                subject,
                draw,
                lambda s=subject: taps.word_activations(
                    s.encoder, s.tokenizer, sentences, places, **sizes
                ),
            )
            for name, subject in self.encoders.items()
        }

    def _cached(
        self,
        subject: Subject,
        draw: dict[str, Any],
        make: Callable[[], Iterator[Activations]],
    ) -> Iterator[Activations]:
        if not self.config.cache_dir:
            return make()
        key = {
            "encoder": activation_cache.encoder_hash(subject.encoder),
            "tokenizer": [subject.tokenizer.vocabulary_hash, subject.tokenizer.do_lower_case],
            "rows": activation_cache.rows_hash(self.rows),
            "unit": self.config.unit,
            **draw,
        }
        return activation_cache.cached(self.config.cache_dir, key, make)


def _length(activations: Activations) -> int:
    return len(next(iter(activations.values())))


def ordinary(first: Activations, second: Activations, share: float) -> np.ndarray:
    """Indices of all tokens except those of highest norm.

    A token's norm is compared with the median of each tap of both encoders; the largest ratio
    counts.

    Args:
        first: `(tokens, hidden)` by tap.
        second: activations of another encoder at the same tokens.
        share: share of the tokens to leave out; at least one token.
    """
    highest = np.zeros(_length(first))
    for activations in (first, second):
        for x in activations.values():
            norms = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
            highest = np.maximum(highest, norms / (np.median(norms) or 1))
    left_out = -(-int(1e6 * share) * len(highest) // 10**6)
    return np.sort(np.argsort(highest, kind="stable")[: len(highest) - left_out])
