"""Released weights in and out: Hugging Face, Google, KerasHub and our own."""

import lazy_loader

# Late: the configs beside these functions need no TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "converter": ["convert", "load"],
    },
)
