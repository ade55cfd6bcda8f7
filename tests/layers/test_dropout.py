import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys

from undivided_tf.layers.dropout import Dropout

SHAPE = (64, 128, 32)
COUNT = np.prod(SHAPE)


def masks(layer, calls=1, jit_compile=False):
    """What stays, as bool arrays, of so many calls."""
    call = tf.function(lambda x: layer(x, training=True), jit_compile=jit_compile)
    return [call(tf.ones(SHAPE)).numpy() > 0 for _ in range(calls)]


def assert_independent(one, other, rate):
    """The share kept in both is that of independent masks, within five deviations."""
    both, keep = (one & other).sum(), (1 - rate) ** 2
    assert abs(both - one.size * keep) < 5 * np.sqrt(one.size * keep * (1 - keep))


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9])
def test_share_and_scale_of_what_stays(rate):
    layer = Dropout(rate, seed=7)
    kept = sum(mask.sum() for mask in masks(layer, calls=4))
    deviation = np.sqrt(4 * COUNT * rate * (1 - rate))
    assert abs(kept - 4 * COUNT * (1 - rate)) < 5 * deviation
    values = np.unique(layer(tf.ones(SHAPE), training=True))
    np.testing.assert_allclose(values, [0, 1 / (1 - rate)], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_row_and_column_has_its_share(axis):
    """Chi-squared over the slices of an axis: its mean is their number, its variance twice that."""
    rate, calls = 0.1, 8
    dropped = sum(~mask for mask in masks(Dropout(rate, seed=1), calls))
    others = tuple(a for a in range(3) if a != axis)
    counts, size = dropped.sum(axis=others), calls * COUNT / SHAPE[axis]
    chi_squared = ((counts - size * rate) ** 2 / (size * rate * (1 - rate))).sum()
    assert abs(chi_squared - SHAPE[axis]) < 5 * np.sqrt(2 * SHAPE[axis])


@pytest.mark.parametrize("shift", [1, 2, 3, 16, 31, 32, 33, 4096, 65536])
def test_neighbours_are_independent(shift):
    flat = masks(Dropout(0.1, seed=3))[0].ravel()
    assert_independent(flat[shift:], flat[:-shift], 0.1)


def test_calls_seeds_and_their_neighbours_are_independent():
    """No mask is that of another call or seed, nor a shift of it."""
    found = [mask.ravel() for seed in (5, 6) for mask in masks(Dropout(0.1, seed=seed), calls=4)]
    for i, one in enumerate(found):
        for other in found[:i]:
            for shift in (0, 1, 2, 32):
                assert_independent(one[shift:], other[: one.size - shift], 0.1)


def test_a_thousand_calls_keep_every_place_equally_often():
    layer = Dropout(0.3, seed=2)
    call = tf.function(lambda x: layer(x, training=True))
    kept = sum(call(tf.ones([500])).numpy() > 0 for _ in range(1000))
    z = (kept - 700) / np.sqrt(1000 * 0.3 * 0.7)
    assert np.abs(z).max() < 5 and abs(z.std() - 1) < 0.16


@pytest.mark.parametrize("jit_compile", [False, True])
def test_state_decides_the_masks(jit_compile):
    """What a checkpoint restores is enough to go on with the same ones."""
    layer = Dropout(0.1, seed=11)
    first = masks(layer, calls=2)
    state = layer.seed_generator.state
    saved = np.asarray(state)
    later = masks(layer, calls=2, jit_compile=jit_compile)
    twin = Dropout(0.1, seed=99)
    twin.seed_generator.state.assign(saved)
    np.testing.assert_array_equal(masks(twin, calls=2), later)
    np.testing.assert_array_equal(masks(Dropout(0.1, seed=11), calls=4), first + later)


def test_gradient_passes_where_the_output_does():
    layer, inputs = Dropout(0.4, seed=1), tf.Variable(tf.random.normal(SHAPE))
    with tf.GradientTape() as tape:
        outputs = layer(inputs, training=True)
    gradient = tape.gradient(outputs, inputs)
    np.testing.assert_allclose(gradient, np.where(outputs != 0, 1 / 0.6, 0), rtol=1e-6)


def test_off_without_training_or_rate():
    inputs = tf.ones(SHAPE)
    assert Dropout(0.5, seed=1)(inputs) is inputs
    layer = Dropout(0.0)
    assert layer(inputs, training=True) is inputs and not layer.variables
    with pytest.raises(ValueError, match="rate must be from 0 and below 1, got 1"):
        Dropout(1)


def test_goes_to_json_and_back():
    layer = Dropout(0.2, seed=4, dtype="mixed_bfloat16", name="some")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    twin = keras.saving.deserialize_keras_object(config)
    inputs = tf.ones(SHAPE, tf.bfloat16)
    one, other = (x(inputs, training=True) for x in (layer, twin))
    assert one.dtype == tf.bfloat16
    np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_replicas_drop_different_places():
    code = (
        toys.TWO_DEVICES
        + """
from undivided_tf.layers.dropout import Dropout
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layer = Dropout(0.5, seed=1)
for jit_compile in (False, True):
    inner = tf.function(lambda x: layer(x, training=True), jit_compile=jit_compile)
    outer = tf.function(lambda: strategy.run(lambda: inner(tf.ones([1000]))))
    one, other = strategy.experimental_local_results(outer())
    one, other = one.numpy() > 0, other.numpy() > 0
    assert 400 < (one == other).sum() < 600, (jit_compile, (one == other).sum())
"""
    )
    found = toys.run_python(code)
    assert not found.returncode, found.stderr
