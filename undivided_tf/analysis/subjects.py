"""Encoders under study, with the facts that every result reports."""

import dataclasses
import pathlib
from typing import Any

from undivided_tf.errors import InputError
from undivided_tf.layers.initializers import derive_seed
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """An encoder under study.

    Attributes:
        encoder: the encoder.
        tokenizer: the tokenizer whose ids it was trained on.
        seed: seed of its pre-training, or of its weights if untrained; None if unknown.
        trained: False for random weights.
    """

    encoder: Encoder
    tokenizer: Tokenizer
    seed: int | None
    trained: bool = True

    @property
    def pattern(self) -> str:
        """Canonical block pattern."""
        return self.encoder.config.block_pattern

    def describe(self) -> dict[str, Any]:
        """The facts of the encoder for a result: pattern, seed, trained."""
        return {"pattern": self.pattern, "seed": self.seed, "trained": self.trained}

    def untrained_twin(self, seed: int) -> "Subject":
        """The same architecture and vocabulary with random weights.

        Args:
            seed: seed of the weights. They differ from the initial values of a pre-training with
                the same seed. A trained encoder stays similar to its own initial values, which
                would therefore give too high a baseline.
        """
        encoder = Encoder(self.encoder.config, seed=derive_seed(seed, "untrained twin"))
        return Subject(encoder, self.tokenizer, seed, trained=False)


def load(checkpoint: str) -> Subject:
    """Loads the encoder of a checkpoint.

    Args:
        checkpoint: a pre-training workdir, or one of its checkpoints.

    Raises:
        InputError: no readable checkpoint.
    """
    encoder, tokenizer = checkpoints.load_encoder(checkpoint)
    return Subject(encoder, tokenizer, _pretraining_seed(pathlib.Path(checkpoint)))


def require_same_vocabulary(first: Subject, second: Subject) -> None:
    """Raises InputError if two encoders tokenise differently, so that their tokens do not match."""
    for name in ("vocabulary_hash", "do_lower_case"):
        values = [getattr(subject.tokenizer, name) for subject in (first, second)]
        if values[0] != values[1]:
            raise InputError(
                f"the encoders {first.pattern} and {second.pattern} have different tokenizers "
                f"({name} {values[0]} and {values[1]}), so their activations belong to different "
                "word pieces; compare encoders that were trained on records of one vocabulary, or "
                "words instead of pieces (--unit=words)"
            )


def _pretraining_seed(checkpoint: pathlib.Path) -> int | None:
    """The seed in the config of the run that wrote a checkpoint; None if there is none."""
    for run in (checkpoint, *checkpoint.absolute().parents[:2]):
        if (run / "checkpoints").is_dir() and (run / "config.json").exists():
            return files.read_json(run / "config.json").get("seed")
    return None
