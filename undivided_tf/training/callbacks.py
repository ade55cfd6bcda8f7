"""Keras callbacks."""

import keras


class Progress(keras.callbacks.Callback):
    """Moves a progress bar with every batch.

    Args:
        progress: what `progress.bar` gave.
    """

    def __init__(self, progress):
        super().__init__()
        self.progress = progress

    def on_train_batch_end(self, batch, logs=None):
        """One step more."""
        self.progress.update()
