"""Our SavedModel: from texts to vectors in one call."""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As docs/surgery.md says of servers.

import serving
import tensorflow as tf
import tensorflow_text  # noqa: F401 (the tokenizer's operations)


def main() -> None:
    """Loads the export, then serves."""
    job, folder = serving.read_job()
    signature = tf.saved_model.load(str(folder / job["export"] / "1")).signatures["embed"]
    serving.serve(
        {"tensorflow": tf.__version__, "export": job["export"]},
        lambda texts: signature(text=tf.constant(texts))["mean"].numpy(),
        job["vocab_size"],
    )


if __name__ == "__main__":
    main()
