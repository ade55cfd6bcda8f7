"""Export of trained models: SavedModel for raw strings, LiteRT and ONNX for token ids."""

import lazy_loader

# Imported at the first use, since the configs in this package need no TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "exporter": ["export"],
    },
)
