"""`BertMaskedLM` of KerasHub, trained by Keras's `fit`."""

import keras
import keras_hub
import learning
import numpy as np
import tensorflow as tf


def main() -> None:
    """Trains until the budget is spent."""
    job, folder = learning.read_job()
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=job["vocab_size"],
        num_layers=6,
        num_heads=2,
        hidden_dim=128,
        intermediate_dim=512,
        max_sequence_length=64,
    )
    model = keras_hub.models.BertMaskedLM(backbone)  # Compiles itself as its users have it.
    if "learning_rate" in job:
        steps = job["steps"]
        rate = keras.optimizers.schedules.PolynomialDecay(
            job["learning_rate"], steps - steps // 10, 0.0
        )
        model.compile(
            optimizer=keras.optimizers.AdamW(_WarmUp(rate, job["learning_rate"], steps // 10)),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    rows = np.load(folder / "rows.npy")
    special = range(5)  # [PAD], [UNK], [CLS], [SEP] and [MASK] begin a vocabulary of ours.
    mask = keras_hub.layers.MaskedLMMaskGenerator(
        vocabulary_size=job["vocab_size"],
        mask_selection_rate=0.3,
        mask_token_id=job["mask_id"],
        mask_selection_length=round(0.3 * rows.shape[1]),
        unselectable_token_ids=list(special),
    )

    def masked(ids):
        masking = mask(ids)
        inputs = {
            "token_ids": masking["token_ids"],
            "mask_positions": masking["mask_positions"],
            "segment_ids": tf.zeros_like(ids),
            "padding_mask": tf.cast(ids != 0, tf.int32),
        }
        return inputs, masking["mask_ids"], masking["mask_weights"]

    batches = tf.data.Dataset.from_tensor_slices(rows).repeat().batch(16, drop_remainder=True)
    batch = learning.held_out(folder)
    inputs = {name: batch[name] for name in ("token_ids", "segment_ids", "padding_mask")} | {
        "mask_positions": batch["masked_positions"]
    }

    def score() -> float:
        logits = tf.constant(model.predict(inputs, batch_size=64, verbose=0))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["masked_ids"], logits)
        return (
            float(tf.reduce_sum(losses * batch["masked_weights"]))
            / batch["masked_weights"].sum().item()
        )

    watch = learning.Watch(job, score, 16 * rows.shape[1])

    class Clock(keras.callbacks.Callback):
        """Scores, and ends the training when its time is over."""

        def on_train_batch_end(self, number, logs=None):
            """Called by Keras."""
            self.model.stop_training = not watch.step_done(number + 1)

    model.fit(
        batches.map(masked).prefetch(2),
        steps_per_epoch=job["steps"],
        verbose=0,
        callbacks=[Clock()],
    )


class _WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A line from 0 to the peak, then `decay`."""

    def __init__(self, decay, peak, steps):
        self.decay, self.peak, self.steps = decay, peak, steps

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        return tf.where(
            step < self.steps, self.peak * step / self.steps, self.decay(step - self.steps)
        )


if __name__ == "__main__":
    main()
