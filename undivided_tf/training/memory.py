"""Memory of a pre-training step by parts; needs no TensorFlow.

What XLA keeps was read off its buffer assignment, and the rest off the resident memory of fresh
processes; `python benchmarks/memory.py` measures again and shows how far the estimate is off.
The random bits of dropout, and the places of the last blocks that are not masked, are counted
although a step with XLA no longer keeps them: peaks of whole processes agree with the sum.
"""

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.training.config import PretrainingConfig

_FLOAT32_BYTES = 4

# Tracing, XLA's compiler and what it compiled stay in the process: this much by itself, and this
# much more for each block.
_RUNTIME_BYTES = 300 * 2**20
_RUNTIME_BYTES_OF_A_BLOCK = 30 * 2**20

# Arrays of the intermediate size that are kept for the backward pass. GELU: the product, two
# factors of its derivative, the result; its tanh form and ReLU have one and two less.
_KEPT_INNER = {"gelu": 4, "gelu_tanh": 3, "relu": 2}

# Arrays of the hidden size that a block keeps when its inner part is computed once more: the
# context, the sum and its norm.
_KEPT_RECOMPUTING = {"attention": 3, "intermediate": 2}


def _kept(config: EncoderConfig, kind: str, length: int) -> int:
    """Elements that a block keeps of a row of that length until its backward pass.

    An attention block keeps query, key, value, context, the sum and its norm, and the random
    bits of the dropout (7 n H), and of each head the probabilities, their random bits and what
    dropout left of them (3 n n). An intermediate block keeps the sum, its norm, the random bits
    (3 n H) and `_KEPT_INNER` n I. Without dropout there are neither bits nor leavings. With
    `query_key_norm` query and key before their norm are kept, too; rotation keeps nothing.
    """
    stream = length * config.hidden_size
    bits = stream if config.hidden_dropout_prob else 0
    if kind == "attention":
        arrays = 3 if config.attention_probs_dropout_prob else 1
        before_norm = 2 * stream if config.query_key_norm else 0
        return 6 * stream + before_norm + bits + arrays * config.num_attention_heads * length**2
    inner = _KEPT_INNER[config.hidden_activation] * length * config.intermediate_size
    return 2 * stream + bits + inner


def _passing(config: EncoderConfig, kind: str, length: int) -> int:
    """Elements that a block's backward pass needs for a while: gradients of what it kept."""
    stream = length * config.hidden_size
    if kind == "attention":
        return 2 * stream + 2 * config.num_attention_heads * length**2
    return stream + length * config.intermediate_size


def activation_elements(
    config: EncoderConfig, length: int, predictions: int, recompute: bool = False
) -> int:
    """Most elements that one row has in memory at a time, its batch of gradients left out.

    That is what all blocks keep, and the larger of what the head and the backward pass of a
    block need beside it. The head has three arrays of predictions x vocabulary: exponentials of
    the logits, and the two parts of their gradient.

    Args:
        config: the encoder.
        length: word pieces a row.
        predictions: masked positions a row.
        recompute: the inner parts of blocks are computed once more.
    """
    hidden, stream = config.hidden_size, length * config.hidden_size
    embeddings = (3 if config.hidden_dropout_prob else 2) * stream
    head = 3 * predictions * config.vocab_size + 5 * predictions * hidden + stream
    kinds = [block.kind for block in config.pattern]
    if recompute:
        kept = sum(_KEPT_RECOMPUTING[kind] for kind in kinds) * stream
        passing = [_kept(config, k, length) + _passing(config, k, length) for k in set(kinds)]
    else:
        kept = sum(_kept(config, kind, length) for kind in kinds)
        passing = [_passing(config, kind, length) for kind in set(kinds)]
    return embeddings + kept + max([head, *passing])


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

    Half precision needs less, and a GPU does not hold the `runtime`, which is of the process.

    Args:
        config: the encoder.
        length: word pieces a row.
        predictions: masked positions a row.
        rows: that the device computes at a time.
        recompute: see `activation_elements`.
        accumulation: parts of the batch; the gradients of more than one are added up in another
            array.
        average: whether a moving average of the weights is kept.
        optimizer: Muon keeps one moment of the kernels, all others two of every weight.

    Returns:
        `parameters` (weights, gradients, moments, and what the options above add),
        `activations`, `runtime` and their sum `total`.
    """
    weights = accounting.count_parameters(config) + accounting.masked_lm_head_parameters(config)
    copies = 4 + (accumulation > 1) + average
    lacking = accounting.hidden_kernel_parameters(config) if optimizer == "muon" else 0
    sizes = {
        "parameters": _FLOAT32_BYTES * (copies * weights - lacking),
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
        run: says whether blocks are recomputed, gradients accumulated and weights averaged.
        encoder: with the vocabulary of the records.
        length: word pieces a row.
        predictions: masked positions a row.
        rows: that a device computes at a time.
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
