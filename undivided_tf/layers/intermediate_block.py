"""The intermediate block."""

import keras

from undivided_tf.layers.dropout import Dropout
from undivided_tf.layers.initializers import derive_seed, truncated_normal
from undivided_tf.layers.recompute import recomputed


def activation(name):
    """The function of that name: `gelu` is exact, `gelu_tanh` Google's approximation."""
    if name == "gelu_tanh":
        return lambda x: keras.activations.gelu(x, approximate=True)
    return keras.activations.get(name)


@keras.saving.register_keras_serializable(package="undivided_tf")
class IntermediateBlock(keras.layers.Layer):
    """Dense, activation, dense, dropout, residual and LayerNorm: the block in question.

    Post-norm (BERT): `norm(x + dropout(W2 f(W1 x)))`; pre-norm: `x + dropout(W2 f(W1 norm(x)))`.

    Args:
        intermediate_size: int. Width between the two dense layers.
        hidden_activation: str. `gelu`, `gelu_tanh` or `relu`.
        hidden_dropout_prob: float. Dropout on the output of the second dense layer.
        layer_norm_eps: float. Added to the variance in LayerNorm.
        initializer_range: float. Deviation of the truncated normal initialiser.
        norm_first: bool. Pre-norm instead of post-norm.
        use_layer_norm: bool. Without it `norm` is the identity and has no weights.
        recompute: bool. When training, compute the first product and its activation once more for
            the gradient instead of keeping them.
        seed: int or None. Decides initial values and dropout.

    References:
        Vaswani et al. 2017, arXiv 1706.03762, equation 2; Devlin et al. 2018, arXiv 1810.04805.
    """

    def __init__(
        self,
        intermediate_size,
        hidden_activation="gelu",
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
        self.intermediate_size = intermediate_size
        self.hidden_activation = hidden_activation
        self.hidden_dropout_prob = hidden_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.norm_first = norm_first
        self.use_layer_norm = use_layer_norm
        self.recompute = recompute
        self.seed = seed
        self.intermediate_dense = self.output_dense = None

    def share(self, other):
        """Takes the dense layers of another block, which is built, for its own; before `build`."""
        self.intermediate_dense, self.output_dense = other.intermediate_dense, other.output_dense

    def build(self, input_shape):
        """Builds all sublayers; `input_shape` is (batch, length, hidden)."""
        inner_shape = (*input_shape[:-1], self.intermediate_size)

        def dense(units, shape, name):
            layer = keras.layers.Dense(
                units,
                kernel_initializer=truncated_normal(self.initializer_range, self.seed, name),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build(shape)
            return layer

        if self.intermediate_dense is None:
            self.intermediate_dense = dense(self.intermediate_size, input_shape, "intermediate")
            self.output_dense = dense(input_shape[-1], inner_shape, "output")
        self.output_dropout = Dropout(
            self.hidden_dropout_prob,
            seed=derive_seed(self.seed, "output_dropout"),
            dtype=self.dtype_policy,
            name="output_dropout",
        )
        norm = {"dtype": self.dtype_policy, "name": "layer_norm"}
        self.layer_norm = (
            keras.layers.LayerNormalization(epsilon=self.layer_norm_eps, **norm)
            if self.use_layer_norm
            else keras.layers.Identity(**norm)
        )
        self.layer_norm.build(input_shape)
        self.built = True

    def call(self, hidden, training=None):
        """Transforms every token by itself.

        Args:
            hidden: float tensor (batch, length, hidden).
            training: bool. Whether dropout is on.

        Returns:
            Float tensor (batch, length, hidden).
        """
        update = self.contribution(hidden, training)
        return hidden + update if self.norm_first else self.layer_norm(hidden + update)

    def contribution(self, hidden, training=None):
        """What the block adds to `hidden`; arguments and result as of `call`."""
        inputs = self.layer_norm(hidden) if self.norm_first else hidden

        def transform(inputs):
            product = self.intermediate_dense(inputs)
            return self.output_dense(activation(self.hidden_activation)(product))

        # Nothing needs the second product once more, so that the compiler leaves it out.
        again = self.recompute and training
        update = recomputed(transform, [], inputs) if again else transform(inputs)
        return self.output_dropout(update, training=training)

    def compute_output_shape(self, hidden_shape):
        """The shape of the input."""
        return hidden_shape

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "intermediate_size": self.intermediate_size,
            "hidden_activation": self.hidden_activation,
            "hidden_dropout_prob": self.hidden_dropout_prob,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            "norm_first": self.norm_first,
            "use_layer_norm": self.use_layer_norm,
            "recompute": self.recompute,
            "seed": self.seed,
        }
