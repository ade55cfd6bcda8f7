"""Surgery on a trained encoder: blocks cut, shared, resized or added, and which cuts cost least."""

import lazy_loader

# Late: the configs beside these functions need no TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "operations": ["Report", "cut", "encoder_blocks", "operate"],
        "order": ["Order", "cut_order"],
    },
)
