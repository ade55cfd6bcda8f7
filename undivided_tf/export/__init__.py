"""Trained models for serving: SavedModel from raw strings, LiteRT and ONNX from ids."""

import lazy_loader

# Late: the configs beside these functions need no TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "exporter": ["export"],
    },
)
