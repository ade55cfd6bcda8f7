"""Released weights in and out: Hugging Face, Google, KerasHub and our own."""

from undivided_tf.convert.converter import convert, load

__all__ = ["convert", "load"]
