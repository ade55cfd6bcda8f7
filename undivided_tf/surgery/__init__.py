"""Surgery on a trained encoder: blocks cut, shared, resized or added, and which cuts cost least."""

from undivided_tf.surgery.operations import Report, cut, encoder_blocks, operate
from undivided_tf.surgery.order import Order, cut_order

__all__ = ["Order", "Report", "cut", "cut_order", "encoder_blocks", "operate"]
