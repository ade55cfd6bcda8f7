"""The intermediate block."""

import keras

from undivided_tf.layers.recompute import recomputed
from undivided_tf.layers.residual_block import ResidualBlock


def activation(name):
    """The activation function of a name: `gelu` is exact, `gelu_tanh` is Google's approximation."""
    if name == "gelu_tanh":
        return lambda x: keras.activations.gelu(x, approximate=True)
    return keras.activations.get(name)


@keras.saving.register_keras_serializable(package="undivided_tf")
class IntermediateBlock(ResidualBlock):
    """Dense, activation, dense, dropout, residual and LayerNorm.

    The activation is computed again for the gradient, which costs little and saves most of the
    block's memory. With `recompute`, the first product is computed again, too.

    Args:
        intermediate_size: int. Width between the two dense layers.
        hidden_activation: str. `gelu`, `gelu_tanh` or `relu`.
        **kwargs: those of `ResidualBlock`.

    References:
        Vaswani et al. 2017, arXiv 1706.03762, equation 2; Devlin et al. 2018, arXiv 1810.04805.
    """

    def __init__(self, intermediate_size, hidden_activation="gelu", **kwargs):
        super().__init__(**kwargs)
        self.intermediate_size = intermediate_size
        self.hidden_activation = hidden_activation
        self.intermediate_dense = self.output_dense = None

    def share(self, other):
        """Uses the dense layers of another, built block; call it before `build`."""
        self.intermediate_dense, self.output_dense = other.intermediate_dense, other.output_dense

    def build(self, input_shape):
        """Builds all sublayers; `input_shape` is (batch, length, hidden)."""
        if self.intermediate_dense is None:
            inner_shape = (*input_shape[:-1], self.intermediate_size)
            self.intermediate_dense = self._dense(
                self.intermediate_size, input_shape, "intermediate"
            )
            self.output_dense = self._dense(input_shape[-1], inner_shape, "output")
        super().build(input_shape)

    def call(self, hidden, training=None):
        """Transforms every token independently.

        Args:
            hidden: float tensor (batch, length, hidden).
            training: bool. Whether dropout is on.

        Returns:
            Float tensor (batch, length, hidden).
        """
        return self._add(hidden, self.contribution(hidden, training))

    def contribution(self, hidden, training=None):
        """The block's update, before the residual; arguments and result as in `call`."""
        inputs = self._inputs(hidden)
        hidden_activation = activation(self.hidden_activation)

        def second_half(product):
            return self.output_dense(hidden_activation(product))

        # XLA does not compute the product of `output_dense` again: the gradient does not need it.
        if not training:
            update = second_half(self.intermediate_dense(inputs))
        elif self.recompute:
            update = recomputed(lambda x: second_half(self.intermediate_dense(x)), [], inputs)
        else:
            # XLA would keep the input and the result of GELU, and two factors of its derivative.
            update = recomputed(second_half, [], self.intermediate_dense(inputs))
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
        }
