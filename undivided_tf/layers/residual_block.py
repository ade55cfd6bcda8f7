"""Base class of both kinds of block: residual, dropout and LayerNorm around an update."""

import keras

from undivided_tf.layers.dropout import Dropout
from undivided_tf.layers.initializers import derive_seed, truncated_normal


class ResidualBlock(keras.layers.Layer):
    """A residual around an update of every token.

    Post-norm (BERT): `norm(x + dropout(update(x)))`; pre-norm: `x + dropout(update(norm(x)))`. A
    subclass defines `contribution`, which is the update with its dropout.

    Args:
        hidden_dropout_prob: float. Dropout on the update.
        layer_norm_eps: float. Added to the variance in LayerNorm.
        initializer_range: float. Deviation of the truncated normal initialiser.
        norm_first: bool. Pre-norm instead of post-norm.
        use_layer_norm: bool. If false, `norm` is the identity and has no weights.
        recompute: bool. In training, compute the inner activations again for the gradient instead
            of keeping them.
        seed: int or None. Decides initial values and dropout.

    References:
        Vaswani et al. 2017, arXiv 1706.03762, section 3.1; Devlin et al. 2018, arXiv 1810.04805.
        Pre-norm: Xiong et al. 2020, arXiv 2002.04745. Blocks without LayerNorm are our reading of
        TrimBERT (Sridhar, Sarah, Sundaresan 2022, arXiv 2202.12411), whose abstract alone is known
        to us: half of the LayerNorms removed.
    """

    def __init__(
        self,
        hidden_dropout_prob=0.1,
        layer_norm_eps=1e-12,
        initializer_range=0.02,
        norm_first=False,
        use_layer_norm=True,
        recompute=False,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_dropout_prob = hidden_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.norm_first = norm_first
        self.use_layer_norm = use_layer_norm
        self.recompute = recompute
        self.seed = seed

    def build(self, input_shape):
        """Builds the dropout and LayerNorm; `input_shape` is (batch, length, hidden)."""
        self.output_dropout = self._dropout(self.hidden_dropout_prob, "output_dropout")
        arguments = {"dtype": self.dtype_policy, "name": "layer_norm"}
        self.layer_norm = (
            keras.layers.LayerNormalization(epsilon=self.layer_norm_eps, **arguments)
            if self.use_layer_norm
            else keras.layers.Identity(**arguments)
        )
        self.layer_norm.build(input_shape)
        self.built = True

    def _dense(self, units, input_shape, name):
        """Makes and builds a dense layer."""
        layer = keras.layers.Dense(
            units,
            kernel_initializer=truncated_normal(self.initializer_range, self.seed, name),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build(input_shape)
        return layer

    def _dropout(self, rate, name):
        return Dropout(rate, seed=derive_seed(self.seed, name), dtype=self.dtype_policy, name=name)

    def _inputs(self, hidden):
        """The input of the update: `hidden`, normalised with pre-norm."""
        return self.layer_norm(hidden) if self.norm_first else hidden

    def _add(self, hidden, update):
        """Adds the residual; applies LayerNorm with post-norm."""
        return hidden + update if self.norm_first else self.layer_norm(hidden + update)

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "hidden_dropout_prob": self.hidden_dropout_prob,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            "norm_first": self.norm_first,
            "use_layer_norm": self.use_layer_norm,
            "recompute": self.recompute,
            "seed": self.seed,
        }
