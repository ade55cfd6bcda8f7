import keras
import numpy as np
import pytest
from conftest import tiny_config

from undivided_tf.models.encoder import Encoder
from undivided_tf.training import optimizers


def closed_form(step, peak, warmup, steps):
    """The learning rate of step 0, 1, ... by cases."""
    if step >= steps:
        return 0.0
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / (steps - warmup)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 5), (1, 5), (3, 10), (10, 10), (4, 5)])
def test_learning_rate_at_every_step(warmup, steps):
    schedule = optimizers.WarmupLinearDecay(0.3, warmup, steps)
    got = [float(schedule(step)) for step in range(steps + 3)]
    expected = [closed_form(step, 0.3, warmup, steps) for step in range(steps + 3)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert min(got[:steps]) > 0 and got[steps:] == [0.0] * 3
    assert max(got) == pytest.approx(0.3)  # No schedule misses the peak.
    again = optimizers.WarmupLinearDecay.from_config(schedule.get_config())
    assert float(again(2)) == got[2]


def test_steps_equal_numpy():
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(3, 2)), random.normal(size=2)
    variables = [
        keras.Variable(kernel.astype("f"), name="kernel"),
        keras.Variable(bias.astype("f"), name="bias"),
    ]
    peak, decay, beta_1, beta_2, epsilon = 0.1, 0.2, 0.8, 0.95, 1e-3
    optimizer = optimizers.adamw(
        variables, learning_rate=peak, num_warmup_steps=2, num_train_steps=6,
        weight_decay_rate=decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon,
    )  # fmt: skip
    values = [kernel.copy(), bias.copy()]
    first, second = [np.zeros((3, 2)), np.zeros(2)], [np.zeros((3, 2)), np.zeros(2)]
    for step in range(5):
        gradients = [random.normal(size=value.shape) * 10.0**-step for value in values]
        optimizer.apply([g.astype("f") for g in gradients], variables)
        rate = closed_form(step, peak, 2, 6)
        for i, gradient in enumerate(gradients):
            first[i] = beta_1 * first[i] + (1 - beta_1) * gradient
            second[i] = beta_2 * second[i] + (1 - beta_2) * gradient**2
            # Kingma and Ba, the efficient form at the end of their section 2.
            correction = np.sqrt(1 - beta_2 ** (step + 1)) / (1 - beta_1 ** (step + 1))
            direction = correction * first[i] / (np.sqrt(second[i]) + epsilon)
            # Loshchilov and Hutter, algorithm 2: the decay sees the weight before the step.
            values[i] -= rate * (direction + (decay * values[i] if i == 0 else 0))
        for value, variable in zip(values, variables, strict=True):
            np.testing.assert_allclose(variable, value, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_layer_norm_and_biases_are_not_decayed(norm_first):
    encoder = Encoder(tiny_config(norm_first=norm_first), seed=1)
    variables = encoder.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape, "f"))
    optimizer = optimizers.adamw(
        variables, learning_rate=0.5, num_warmup_steps=0, num_train_steps=10,
        weight_decay_rate=0.1,
    )  # fmt: skip
    optimizer.apply([np.zeros(v.shape, "f") for v in variables], variables)
    spared = {v.path for v in variables if np.all(np.asarray(v) == 1)}
    decayed = {v.path for v in variables if np.allclose(v, 0.95, rtol=1e-6)}
    assert spared | decayed == {v.path for v in variables}
    assert spared == {
        path for path in spared | decayed if path.endswith(("/gamma", "/beta", "/bias"))
    }
    assert any(path.endswith("gamma") for path in spared)
    assert any("word_embeddings" in path for path in decayed)


def test_gradients_are_clipped_to_their_global_norm():
    kernels = [keras.Variable(np.zeros(2, "f")), keras.Variable(np.zeros(2, "f"))]
    optimizer = optimizers.adamw(
        kernels, learning_rate=1.0, num_warmup_steps=0, num_train_steps=10,
        weight_decay_rate=0.0, epsilon=1e3, beta_1=0.0, beta_2=0.0, max_gradient_norm=1.0,
    )  # fmt: skip
    # With such an epsilon Adam's step is the gradient / epsilon, so that its size shows.
    optimizer.apply([np.array([3.0, 0.0], "f"), np.array([0.0, 4.0], "f")], kernels)
    np.testing.assert_allclose(-1e3 * np.array(kernels), [[0.6, 0.0], [0.0, 0.8]], rtol=5e-3)
