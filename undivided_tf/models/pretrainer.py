"""Masked-language-model pre-training of an encoder."""

import keras
from keras import ops

from undivided_tf.layers.initializers import derive_seed, truncated_normal
from undivided_tf.layers.masked_lm_head import MaskedLMHead
from undivided_tf.layers.positions import at_positions


class Pretrainer(keras.Model):
    """An encoder with the masked-language-model head and, optionally, next-sentence prediction.

    Args:
        encoder: Encoder. Trained together with the heads.
        next_sentence: bool. Whether to add the next-sentence head on the pooled output.

    References:
        Devlin et al. 2018, arXiv 1810.04805, section 3.1.
    """

    def __init__(self, encoder, next_sentence=False, name="pretrainer", **kwargs):
        super().__init__(name=name, **kwargs)
        config, seed = encoder.config, encoder.seed
        self.encoder = encoder
        self.masked_lm_head = MaskedLMHead(
            config.vocab_size,
            hidden_activation=config.hidden_activation,
            layer_norm_eps=config.layer_norm_eps,
            initializer_range=config.initializer_range,
            seed=derive_seed(seed, "masked_lm_head"),
            dtype=encoder.dtype_policy,
            name="masked_lm_head",
        )
        self.masked_lm_head.build((None, None, config.hidden_size))
        self.next_sentence_head = None
        if next_sentence:
            self.next_sentence_head = keras.layers.Dense(
                2,
                kernel_initializer=truncated_normal(
                    config.initializer_range, seed, "next_sentence_head"
                ),
                name="next_sentence_head",
            )
            self.next_sentence_head.build((None, config.hidden_size))
        self.built = True

    def call(self, inputs, training=None, return_taps=False):
        """Scores the masked positions.

        Args:
            inputs: dict of int tensors: those of the encoder, (batch, length), and
                `masked_positions` (batch, predictions).
            training: bool. Whether dropout is on.
            return_taps: bool. Whether to return all taps. All positions are then computed, not only
                the masked ones.

        Returns:
            Dict of float32 tensors: `masked_lm_logits` (batch, predictions, vocabulary) and, with
            the next-sentence head, `next_sentence_logits` (batch, 2). With `return_taps` also
            `taps`, see `Encoder.call`.
        """
        positions = inputs["masked_positions"]
        if self.next_sentence_head:  # The pooler reads the first token.
            positions = ops.pad(positions, ((0, 0), (1, 0)))
        if return_taps:
            encoded = self.encoder(inputs, training=training, return_taps=True)
            masked = at_positions(encoded["sequence_output"], positions)
        else:
            encoded = self.encoder(inputs, training=training, positions=positions)
            masked = encoded["sequence_output"]
        outputs = {
            "masked_lm_logits": self.masked_lm_head(
                masked[:, 1:] if self.next_sentence_head else masked,
                None,
                self.encoder.embeddings.word_embeddings.embeddings,
            )
        }
        if return_taps:
            outputs["taps"] = encoded["taps"]
        if self.next_sentence_head:
            logits = self.next_sentence_head(encoded["pooled_output"])
            outputs["next_sentence_logits"] = ops.cast(logits, "float32")
        return outputs


def cross_entropies(logits, labels):
    """Cross-entropies in nats, and whether the first largest logit is the label (1.0 or 0.0).

    Args:
        logits: float32 tensor (..., classes).
        labels: int tensor (...).

    Returns:
        Two float32 tensors (...).

    """
    # Comparing indices selects the label, and XLA fuses this into the sums. A gather, its gradient
    # and an argmax would each take a pass over all logits.
    places = ops.arange(logits.shape[-1], dtype="int32")
    labels = ops.cast(labels, "int32")[..., None]
    is_label = ops.equal(places, labels)
    chosen = ops.sum(ops.where(is_label, logits, 0.0), axis=-1)
    losses = ops.logsumexp(logits, axis=-1) - chosen
    level = logits - ops.stop_gradient(chosen)[..., None]
    ahead = (level > 0) | ((level == 0) & (places < labels))
    correct = ops.equal(ops.sum(ops.cast(ahead, "int32"), axis=-1), 0)
    return losses, ops.cast(correct, "float32")


def masked_lm_sums(logits, masked_ids, masked_weights):
    """Sums over the masked tokens; the caller divides them by the weight of the global batch.

    Args:
        logits: float32 tensor (batch, predictions, vocabulary).
        masked_ids: int tensor (batch, predictions), the true word pieces.
        masked_weights: float32 tensor (batch, predictions), 0 for unused slots.

    Returns:
        Dict of float32 scalars: `loss` (sum of cross-entropies in nats), `correct`, `weight`.
    """
    losses, correct = cross_entropies(logits, masked_ids)
    return {
        "loss": ops.sum(losses * masked_weights),
        "correct": ops.sum(correct * masked_weights),
        "weight": ops.sum(masked_weights),
    }


def next_sentence_sums(logits, labels, masked_weights):
    """Sums over the pairs of segments of a batch.

    Args:
        logits: float32 tensor (batch, 2).
        labels: int tensor (batch,).
        masked_weights: float32 tensor (batch, predictions). A row without a masked token is padding
            of the batch and does not count.

    Returns:
        Dict of float32 scalars: `next_sentence_loss` (sum of cross-entropies in nats),
        `next_sentence_correct`, `sequences`.

    References:
        Next sentence: Devlin et al. 2018, arXiv 1810.04805, task 2. Sentence order: Lan et al.
        2019, arXiv 1909.11942, section 3.1.
    """
    counts = ops.max(masked_weights, axis=1)
    losses, correct = cross_entropies(logits, labels)
    return {
        "next_sentence_loss": ops.sum(losses * counts),
        "next_sentence_correct": ops.sum(correct * counts),
        "sequences": ops.sum(counts),
    }
