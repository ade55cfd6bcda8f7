"""Memory of a pre-training step by parts; needs no TensorFlow.

The memory of XLA was measured by its buffer assignment, the rest by the resident memory of fresh
processes. `python benchmarks/memory.py` repeats the measurement and shows the error of the
estimate. A step with XLA no longer keeps the random bits of dropout and the unmasked places of the
last blocks. The estimate still counts them, since the sum agrees with peaks of whole processes.
"""

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.training.config import PretrainingConfig

_FLOAT32_BYTES = 4

# Memory of tracing, XLA's compiler and the compiled code: a constant, and a term per block.
_RUNTIME_BYTES = 300 * 2**20
_RUNTIME_BYTES_OF_A_BLOCK = 30 * 2**20

# Arrays of the intermediate size in the backward pass of an intermediate block, which computes the
# activation again. GELU: the product, two factors of its derivative, the result. The tanh form has
# one fewer, ReLU two fewer. Of these arrays a block keeps only the product.
_INNER_ARRAYS = {"gelu": 4, "gelu_tanh": 3, "relu": 2}

# Arrays of the hidden size that a block keeps if its inner part is recomputed: the context, the sum
# and its norm.
_KEPT_RECOMPUTING = {"attention": 3, "intermediate": 2}


def _kept(config: EncoderConfig, kind: str, length: int) -> int:
    """Elements that a block keeps per row until its backward pass.

    An attention block keeps query, key, value, context, the sum and its norm, and the random bits
    of the dropout (7 n H), and for each head the probabilities, their random bits and their values
    after dropout (3 n n). An intermediate block keeps the sum, its norm, the random bits (3 n H)
    and the first product (n I). Without dropout there are no random bits and no values after it.
    With `query_key_norm` query and key before their norm are kept, too; rotation keeps nothing.
    """
    stream = length * config.hidden_size
    bits = stream if config.hidden_dropout_prob else 0
    if kind == "attention":
        arrays = 3 if config.attention_probs_dropout_prob else 1
        before_norm = 2 * stream if config.query_key_norm else 0
        return 6 * stream + before_norm + bits + arrays * config.num_attention_heads * length**2
    return 2 * stream + bits + length * config.intermediate_size


def _temporary(config: EncoderConfig, kind: str, length: int) -> int:
    """Temporary elements of a block's backward pass: gradients, and what is computed again."""
    stream = length * config.hidden_size
    if kind == "attention":
        return 2 * stream + 2 * config.num_attention_heads * length**2
    # The activation's arrays without the kept product, and one gradient of their size.
    return stream + _INNER_ARRAYS[config.hidden_activation] * length * config.intermediate_size


def activation_elements(
    config: EncoderConfig, length: int, predictions: int, recompute: bool = False
) -> int:
    """Largest number of elements of one row in memory, without gradients of weights.

    This is the sum of all kept elements, plus the larger of the head's need and the temporary need
    of a block's backward pass. The head has three arrays of predictions x vocabulary: exponentials
    of the logits, and the two parts of their gradient.

    Args:
        config: the encoder.
        length: word pieces per row.
        predictions: masked positions per row.
        recompute: whether the inner parts of blocks are recomputed.
    """
    hidden, stream = config.hidden_size, length * config.hidden_size
    embeddings = (3 if config.hidden_dropout_prob else 2) * stream
    head = 3 * predictions * config.vocab_size + 5 * predictions * hidden + stream
    kinds = [block.kind for block in config.pattern]
    if recompute:
        kept = sum(_KEPT_RECOMPUTING[kind] for kind in kinds) * stream
        temporary = [_kept(config, k, length) + _temporary(config, k, length) for k in set(kinds)]
    else:
        kept = sum(_kept(config, kind, length) for kind in kinds)
        temporary = [_temporary(config, kind, length) for kind in set(kinds)]
    return embeddings + kept + max([head, *temporary])


def training_memory_bytes(
    config: EncoderConfig,
    length: int,
    predictions: int,
    rows: int,
    *,
    recompute: bool = False,
    accumulation: int = 1,
    average: bool = False,
    optimizer: str = "adamw",
) -> dict[str, int]:
    """Estimated bytes for a pre-training step in float32 on one device, beyond TensorFlow itself.

    Half precision needs less. The `runtime` part is in the memory of the process, not of a GPU.

    Args:
        config: the encoder.
        length: word pieces per row.
        predictions: masked positions per row.
        rows: rows that the device computes at a time.
        recompute: see `activation_elements`.
        accumulation: parts of the batch; several parts need another array for the sum of gradients.
        average: whether a moving average of the weights is kept.
        optimizer: Muon keeps one moment of the kernels; other optimizers keep two of every weight.

    Returns:
        `parameters` (weights, gradients, moments, and what the options above add),
        `activations`, `runtime` and their sum `total`.
    """
    weights = accounting.count_parameters(config) + accounting.masked_lm_head_parameters(config)
    copies = 4 + (accumulation > 1) + average
    one_moment = accounting.hidden_kernel_parameters(config) if optimizer == "muon" else 0
    sizes = {
        "parameters": _FLOAT32_BYTES * (copies * weights - one_moment),
        "activations": _FLOAT32_BYTES
        * rows
        * activation_elements(config, length, predictions, recompute),
        "runtime": _RUNTIME_BYTES + len(config.pattern) * _RUNTIME_BYTES_OF_A_BLOCK,
    }
    return {**sizes, "total": sum(sizes.values())}


def of_run(
    run: PretrainingConfig, encoder: EncoderConfig, length: int, predictions: int, rows: int
) -> dict[str, int]:
    """`training_memory_bytes` with the options of a run.

    Args:
        run: gives the options of recomputation, accumulation and averaging.
        encoder: with the vocabulary of the records.
        length: word pieces per row.
        predictions: masked positions per row.
        rows: rows that a device computes at a time.
    """
    return training_memory_bytes(
        encoder,
        length,
        predictions,
        rows,
        recompute=run.recompute,
        accumulation=run.gradient_accumulation_steps,
        average=run.ema_momentum > 0,
        optimizer=run.optimizer,
    )
