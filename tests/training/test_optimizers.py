import math

import keras
import numpy as np
import pytest
from conftest import tiny_config

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.training import optimizers, schedules, update_rules


def closed_form(step, peak, warmup, steps):
    """The learning rate of step 0, 1, ... by cases."""
    if step >= steps:
        return 0.0
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / (steps - warmup)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 5), (1, 5), (3, 10), (10, 10), (4, 5)])
def test_learning_rate_at_every_step(warmup, steps):
    schedule = schedules.WarmupDecay(0.3, warmup, steps)
    got = [float(schedule(step)) for step in range(steps + 3)]
    expected = [closed_form(step, 0.3, warmup, steps) for step in range(steps + 3)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert min(got[:steps]) > 0 and got[steps:] == [0.0] * 3
    assert max(got) == pytest.approx(0.3)  # No schedule misses the peak.
    again = schedules.WarmupDecay.from_config(schedule.get_config())
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
        variables, learning_rate=schedules.WarmupDecay(peak, 2, 6),
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


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"query_key_norm": True}], ids=str)
def test_norms_and_biases_are_not_decayed(options):
    encoder = Encoder(tiny_config(**options), seed=1)
    variables = encoder.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape, "f"))
    optimizer = optimizers.adamw(
        variables, learning_rate=schedules.WarmupDecay(0.5, 0, 10),
        weight_decay_rate=0.1,
    )  # fmt: skip
    optimizer.apply([np.zeros(v.shape, "f") for v in variables], variables)
    spared = {v.path for v in variables if np.all(np.asarray(v) == 1)}
    decayed = {v.path for v in variables if np.allclose(v, 0.95, rtol=1e-6)}
    assert spared | decayed == {v.path for v in variables}
    assert spared == {
        path for path in spared | decayed if path.endswith(("/gamma", "/beta", "/bias", "/scale"))
    }
    assert any(path.endswith("gamma") for path in spared)
    assert any("word_embeddings" in path for path in decayed)


def test_gradients_are_clipped_to_their_global_norm():
    kernels = [keras.Variable(np.zeros(2, "f")), keras.Variable(np.zeros(2, "f"))]
    optimizer = optimizers.adamw(
        kernels, learning_rate=schedules.WarmupDecay(1.0, 0, 10),
        weight_decay_rate=0.0, epsilon=1e3, beta_1=0.0, beta_2=0.0, max_gradient_norm=1.0,
    )  # fmt: skip
    # With such an epsilon Adam's step is the gradient / epsilon, so that its size shows.
    optimizer.apply([np.array([3.0, 0.0], "f"), np.array([0.0, 4.0], "f")], kernels)
    np.testing.assert_allclose(-1e3 * np.array(kernels), [[0.6, 0.0], [0.0, 0.8]], rtol=5e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "one_cycle"])
def test_schedules_by_their_formulas(schedule):
    warmup, steps, peak = 4, 12, 0.3

    def by_hand(step):
        done, left = min((step + 1) / warmup, 1), min((steps - step) / (steps - warmup), 1)
        if schedule == "one_cycle":
            done = 0.04 + 0.96 * np.sin(np.pi * done / 2) ** 2
        if schedule != "linear":
            left = np.sin(np.pi * left / 2) ** 2
        return peak * min(done, left)

    rate = schedules.WarmupDecay(peak, warmup, steps, schedule)
    got = [float(rate(step)) for step in range(steps + 2)]
    np.testing.assert_allclose(got[:steps], [by_hand(s) for s in range(steps)], rtol=1e-5)
    assert got[steps:] == [0.0, 0.0] and max(got) == got[warmup - 1] == pytest.approx(peak)
    assert schedules.WarmupDecay.from_config(rate.get_config()).schedule == schedule


@pytest.mark.parametrize("cooldown", ["linear", "1-sqrt"])
def test_trapezoid_by_its_formula_before_and_after_its_cooldown_moves(cooldown):
    warmup, peak = 3, 0.3
    rate = schedules.Trapezoid(peak, warmup, 20, 15, cooldown)
    for start, steps in ((15, 20), (8, 10), (15, 20)):
        rate.cool_down(start, steps)
        expected = []
        for step in range(steps + 3):
            done = min(max((step - start) / (steps - start), 0), 1)
            fall = 1 - (done if cooldown == "linear" else done**0.5)
            expected.append(peak * min((step + 1) / warmup, 1, fall))
        got = [float(rate(step)) for step in range(steps + 3)]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-9)
        assert got[warmup - 1 : start + 1] == [got[warmup]] * (start + 2 - warmup)
        assert got[steps - 1] > 0 and got[steps:] == [0.0] * 3
    again = schedules.Trapezoid.from_config(rate.get_config())
    assert [float(again(step)) for step in range(20)] == got[:20]


def test_lamb_equals_algorithm_2_in_numpy():
    random = np.random.default_rng(0)
    values = [random.normal(size=(3, 2)), random.normal(size=2), np.zeros(2)]
    names = ["kernel", "bias", "fresh"]
    variables = [
        keras.Variable(value.astype("f"), name=name)
        for name, value in zip(names, values, strict=True)
    ]
    decay, beta_1, beta_2, epsilon = 0.2, 0.8, 0.95, 1e-3
    optimizer = optimizers.lamb(
        variables, learning_rate=schedules.WarmupDecay(0.1, 2, 6),
        weight_decay_rate=decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon,
    )  # fmt: skip
    first, second = [0.0] * 3, [0.0] * 3
    for step in range(5):
        gradients = [random.normal(size=value.shape) for value in values]
        optimizer.apply([g.astype("f") for g in gradients], variables)
        rate = closed_form(step, 0.1, 2, 6)
        for i, gradient in enumerate(gradients):
            first[i] = beta_1 * first[i] + (1 - beta_1) * gradient
            second[i] = beta_2 * second[i] + (1 - beta_2) * gradient**2
            ratio = first[i] / (1 - beta_1 ** (step + 1))
            ratio /= np.sqrt(second[i] / (1 - beta_2 ** (step + 1))) + epsilon
            if names[i] == "bias":  # Neither decayed nor scaled to its own norm.
                values[i] = values[i] - rate * ratio
                continue
            update = ratio + decay * values[i]
            size = np.linalg.norm(values[i])
            trust = size / np.linalg.norm(update) if size else 1.0
            values[i] = values[i] - rate * trust * update
        for value, variable in zip(values, variables, strict=True):
            np.testing.assert_allclose(variable, value, rtol=2e-4, atol=2e-5)
    twin = update_rules.Lamb.from_config(optimizer.get_config())
    assert twin.weight_decay_rate == decay and twin.beta_2 == beta_2


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_average_of_the_weights_equals_numpy(name):
    variables = [keras.Variable(np.ones((2, 2), "f"), name="kernel")]
    optimizer = optimizers.OPTIMIZERS[name](
        variables, learning_rate=schedules.WarmupDecay(0.1, 0, 9),
        weight_decay_rate=0.1, ema_momentum=0.7,
    )  # fmt: skip
    expected = None
    for step in range(4):
        optimizer.apply([np.full((2, 2), step - 1.5, "f")], variables)
        weight = np.array(variables[0].value)
        expected = weight if expected is None else 0.7 * expected + 0.3 * weight
        (average,) = optimizers.averages(optimizer)
        np.testing.assert_allclose(average, expected, rtol=1e-6)
    assert not np.allclose(average, weight, rtol=1e-3)
    plain = optimizers.OPTIMIZERS[name](
        variables, learning_rate=schedules.WarmupDecay(0.1, 0, 9), weight_decay_rate=0.1
    )
    assert optimizers.averages(plain) == []
    assert len(plain.variables) == len(optimizer.variables) - 1


def test_each_variable_steps_and_decays_at_its_own_rate():
    """One step against the formula; the first step of Adam is the sign of the gradient."""
    variables = [keras.Variable(np.full(3, 2.0, "float32"), name=name) for name in "ab"]
    scales = {variables[0].path: 0.25}
    optimizer = optimizers.adamw(
        variables, learning_rate=schedules.WarmupDecay(0.1, 0, 10**9),
        weight_decay_rate=0.5, epsilon=1e-12, scales=scales,
    )  # fmt: skip
    optimizer.apply([np.ones(3, "float32")] * 2, variables)
    for variable, rate in zip(variables, (0.025, 0.1), strict=True):
        np.testing.assert_allclose(variable, 2.0 - 2.0 * 0.5 * rate - rate, rtol=1e-5)


def test_layerwise_scales_fall_from_the_head_to_the_embeddings():
    config = EncoderConfig(
        vocab_size=20, hidden_size=8, num_attention_heads=2, intermediate_size=16,
        block_pattern="(AI)*2", max_position_embeddings=8,
    )  # fmt: skip
    classifier = Classifier(Encoder(config), ["no", "yes"])
    scales = optimizers.layerwise_scales(classifier, 0.5)
    found = {}
    for variable in classifier.trainable_variables:
        layer = variable.path.split("/")[1]
        found.setdefault(layer, set()).add(scales.get(variable.path, 1.0))
    assert found == {
        "embeddings": {0.125},
        "block_00_attention": {0.25}, "block_00_intermediate": {0.25},
        "block_01_attention": {0.5}, "block_01_intermediate": {0.5},
        "pooler": {1.0}, "kernel": {1.0}, "bias": {1.0},
    }  # fmt: skip


def newton_schulz(matrix):
    """Five iterations of Jordan's quintic, one matrix at a time, in float64."""
    x = matrix / (np.linalg.norm(matrix) + 1e-7)
    for _ in range(5):
        gram = x.T @ x
        x = 3.4445 * x + x @ (-4.7750 * gram + 2.0315 * gram @ gram)
    return x


@pytest.mark.parametrize("largest_stack", [2**22, 100, 1])
def test_muon_equals_numpy_one_variable_at_a_time(monkeypatch, largest_stack):
    """Square, wide and tall kernels, of which some share a stack, and what AdamW moves."""
    monkeypatch.setattr(update_rules, "_LARGEST_STACK", largest_stack)
    random = np.random.default_rng(0)
    config = tiny_config(block_pattern="AI", vocab_size=20)
    variables = Pretrainer(Encoder(config, seed=1)).trainable_variables
    values = {variable.path: random.normal(size=variable.shape) for variable in variables}
    for variable in variables:
        variable.assign(values[variable.path])
    kernels = {variable.path for variable in optimizers.hidden_kernels(variables)}
    decay, beta_1, beta_2, momentum, ratio = 0.2, 0.8, 0.95, 0.9, 0.3
    scales = {path: 0.5 for path in values if "block_00_attention" in path or "embeddings/" in path}
    optimizer = optimizers.muon(
        variables, learning_rate=schedules.WarmupDecay(0.1, 2, 6), scales=scales,
        weight_decay_rate=decay, beta_1=beta_1, beta_2=beta_2, momentum=momentum,
        adam_learning_rate_ratio=ratio,
    )  # fmt: skip
    first, second = dict.fromkeys(values, 0.0), dict.fromkeys(values, 0.0)
    for step in range(5):
        gradients = {path: random.normal(size=value.shape) for path, value in values.items()}
        optimizer.apply([g.astype("f") for g in gradients.values()], variables)
        for path, gradient in gradients.items():
            rate = closed_form(step, 0.1, 2, 6) * scales.get(path, 1.0)
            if path in kernels:
                first[path] = momentum * first[path] + gradient
                update = newton_schulz(gradient + momentum * first[path])
                update *= 0.2 * max(gradient.shape) ** 0.5
            else:
                rate *= ratio
                first[path] = beta_1 * first[path] + (1 - beta_1) * gradient
                second[path] = beta_2 * second[path] + (1 - beta_2) * gradient**2
                update = first[path] / (1 - beta_1 ** (step + 1))
                update /= np.sqrt(second[path] / (1 - beta_2 ** (step + 1))) + 1e-6
            if not path.endswith(("/gamma", "/beta", "bias")):
                update = update + decay * values[path]
            values[path] = values[path] - rate * update
        for value, variable in zip(values.values(), variables, strict=True):
            np.testing.assert_allclose(variable, value, rtol=2e-4, atol=2e-5)
    twin = update_rules.Muon.from_config(optimizer.get_config())
    assert twin.orthogonalized == optimizer.orthogonalized and twin.adam_lr_ratio == ratio


def test_muon_moves_the_kernels_of_blocks_and_transform_and_adamw_all_else():
    config = tiny_config(block_pattern="AIA", vocab_size=20)
    model = Pretrainer(Encoder(config, seed=1), next_sentence=True)
    variables = model.trainable_variables
    attention = ["query", "key", "value", "output"]
    expected = {
        *(f"encoder/block_00_attention/{name}/kernel" for name in attention),
        *(f"encoder/block_00_intermediate/{name}/kernel" for name in ("intermediate", "output")),
        *(f"encoder/block_01_attention/{name}/kernel" for name in attention),
        "masked_lm_head/transform/kernel",
    }
    kernels = optimizers.hidden_kernels(variables)
    assert {variable.path for variable in kernels} == expected
    assert sum(math.prod(v.shape) for v in kernels) == accounting.hidden_kernel_parameters(config)
    optimizer = optimizers.muon(
        variables, learning_rate=schedules.WarmupDecay(0.1, 0, 9), weight_decay_rate=0.1
    )
    has_second_moment = {
        variable.path
        for variable, second in zip(variables, optimizer.adam_velocities, strict=True)
        if second is not None
    }
    assert has_second_moment == {variable.path for variable in variables} - expected


def test_layer_norm_and_biases_are_not_decayed_by_muon():
    encoder = Encoder(tiny_config(), seed=1)
    variables = encoder.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape, "f"))
    optimizer = optimizers.muon(
        variables, learning_rate=schedules.WarmupDecay(0.5, 0, 10),
        weight_decay_rate=0.1,
    )  # fmt: skip
    optimizer.apply([np.zeros(v.shape, "f") for v in variables], variables)
    decayed = {v.path for v in variables if np.allclose(v, 0.95, rtol=1e-6)}
    spared = {v.path for v in variables if np.all(np.asarray(v) == 1)}
    assert spared | decayed == {v.path for v in variables}
    assert spared == {v.path for v in variables if v.path.endswith(("/gamma", "/beta", "/bias"))}
