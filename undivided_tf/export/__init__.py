"""Trained models for serving: SavedModel from raw strings, LiteRT and ONNX from ids."""

from undivided_tf.export.exporter import export

__all__ = ["export"]
