"""An encoder under study, together with what every result has to say about it."""

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
        encoder: Encoder.
        tokenizer: the Tokenizer whose ids it was trained on.
        seed: of its pre-training, or of its weights when untrained; None when unknown.
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
        """What a result says about the encoder: pattern, seed, trained."""
        return {"pattern": self.pattern, "seed": self.seed, "trained": self.trained}

    def untrained_twin(self, seed: int) -> "Subject":
        """The same architecture and vocabulary with random weights: what training has not made.

        Args:
            seed: decides the weights. They differ from those with which a pre-training of the
                same seed starts: a trained encoder stays like its own start, which would make
                the baseline look better than an independent one.
        """
        encoder = Encoder(self.encoder.config, seed=derive_seed(seed, "untrained twin"))
        return Subject(encoder, self.tokenizer, seed, trained=False)


def load(checkpoint: str) -> Subject:
    """Loads the encoder of a checkpoint.

    Args:
        checkpoint: a pre-training workdir, or one of its checkpoints.

    Raises:
        InputError: no readable checkpoint there.
    """
    encoder, tokenizer = checkpoints.load_encoder(checkpoint)
    return Subject(encoder, tokenizer, _pretraining_seed(pathlib.Path(checkpoint)))


def require_same_vocabulary(first: Subject, second: Subject) -> None:
    """Raises InputError when two encoders cut text in different ways, so that rows do not match."""
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
    """The seed in the config of the run that wrote a checkpoint; None when it has none."""
    for run in (checkpoint, *checkpoint.absolute().parents[:2]):
        if (run / "checkpoints").is_dir() and (run / "config.json").exists():
            return files.read_json(run / "config.json").get("seed")
    return None
