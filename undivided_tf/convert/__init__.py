"""Released weights in and out: Hugging Face folders, and our own checkpoints."""

from undivided_tf.convert.converter import convert, load

__all__ = ["convert", "load"]
