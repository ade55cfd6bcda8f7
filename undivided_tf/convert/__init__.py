"""Conversion of checkpoints between Hugging Face, Google, KerasHub and this package."""

import lazy_loader

# Imported at the first use, since the configs in this package need no TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "converter": ["convert", "load"],
    },
)
