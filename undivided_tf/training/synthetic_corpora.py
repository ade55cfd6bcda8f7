"""Two synthetic corpora: facts to store in parameters, and values to copy from the context.

- **Facts.** A fact is a random key of three symbols and a random value: `[CLS] k k k [MASK] [SEP]`.
  Training shows each fact several times. Nothing but the fact tells a value from its key, so an
  encoder that predicts the value has stored it in its parameters.
- **Copying.** `[CLS] a b c ... [SEP] [MASK] [MASK] [MASK] ... [SEP]`: random values, then the same
  values once more, masked. Each sequence is new, so nothing can be stored: the values must be
  copied from their places in the context.

References:
    Allen-Zhu and Li 2024, arXiv 2404.05405 (bits of knowledge per parameter, by exposures).
    Olsson et al. 2022, arXiv 2209.11895 (copying in context).
"""

import numpy as np

from undivided_tf.training.config import LENGTH_OF_FACT, SPECIAL_IDS, MechanismConfig

CLS, SEP, MASK = 2, 3, 4
Batch = dict[str, np.ndarray]


def facts(config: MechanismConfig, num_facts: int, seed: int) -> Batch:
    """Rows of facts with their values masked.

    Args:
        config: gives the numbers of symbols and values.
        num_facts: number of facts; each has its own key.
        seed: decides keys and values.

    Returns:
        A batch like those of `masking.mask_tokens`, `(num_facts, 6)`.
    """
    generator = np.random.default_rng((seed, num_facts))
    base = config.num_symbols
    keys = generator.choice(base**3, num_facts, replace=False)
    values = _first_value(config) + generator.integers(config.num_values, size=num_facts)
    digits = np.stack([keys // base**2, keys // base % base, keys % base], axis=1)
    rows = np.full((num_facts, LENGTH_OF_FACT), SEP, np.int32)
    rows[:, 0], rows[:, 1:4], rows[:, 4] = CLS, SPECIAL_IDS + digits, MASK
    return _batch(rows, np.full((num_facts, 1), 4), values[:, np.newaxis])


def sequences(config: MechanismConfig, count: int, generator: np.random.Generator) -> Batch:
    """New sequences in which all values come twice, the second time masked.

    Args:
        config: gives the numbers of copied and of possible values.
        count: number of sequences.
        generator: decides the values.

    Returns:
        A batch like those of `masking.mask_tokens`, `(count, 3 + 2 num_copied)`.
    """
    copied = config.num_copied
    values = _first_value(config) + generator.integers(config.num_values, size=(count, copied))
    rows = np.full((count, 3 + 2 * copied), SEP, np.int32)
    rows[:, 0], rows[:, 1 : 1 + copied] = CLS, values
    masked = np.arange(2 + copied, 2 + 2 * copied)
    rows[:, masked] = MASK
    return _batch(rows, np.tile(masked, (count, 1)), values)


def _first_value(config: MechanismConfig) -> int:
    return SPECIAL_IDS + config.num_symbols


def _batch(rows: np.ndarray, positions: np.ndarray, answers: np.ndarray) -> Batch:
    return {
        "token_ids": rows,
        "segment_ids": np.zeros_like(rows),
        "padding_mask": np.ones_like(rows),
        "masked_positions": positions.astype(np.int32),
        "masked_ids": answers.astype(np.int32),
        "masked_weights": np.ones(answers.shape, np.float32),
    }
