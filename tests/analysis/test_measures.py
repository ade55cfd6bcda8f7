"""SVCCA, PWCCA, Procrustes and RSA against implementations by another way."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
from definitions import related
from hypothesis import given, settings
from hypothesis import strategies as st

from undivided_tf.analysis.measures import MEASURES, WholeSample
from undivided_tf.errors import InputError


def canonical_correlations(x, y):
    """From the generalised eigenproblem of the covariances, with the weights of the variates."""
    x, y = x - x.mean(0), y - y.mean(0)
    xx, yy, xy = x.T @ x, y.T @ y, x.T @ y
    values, vectors = scipy.linalg.eigh(xy @ np.linalg.solve(yy, xy.T), xx)
    order = np.argsort(values)[::-1][: min(x.shape[1], y.shape[1])]
    variates = x @ vectors[:, order]
    variates /= np.linalg.norm(variates, axis=0)
    return np.sqrt(np.clip(values[order], 0, 1)), np.abs(variates.T @ x).sum(1)


def truncated(x):
    """The principal components that hold 99 % of the variance, by eigenvectors."""
    x = x - x.mean(0)
    values, vectors = np.linalg.eigh(x.T @ x)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = next(k for k in range(1, len(values) + 1) if values[:k].sum() >= 0.99 * values.sum())
    return x @ vectors[:, :count]


def test_svcca_agrees_with_the_eigenproblem_of_truncated_components():
    x, y = related(80, 6, 5, noise=2.0)
    x = x * np.array([1, 1, 1, 1, 1, 1e-2])  # The last one falls out of the 99 %.
    expected = canonical_correlations(truncated(x), truncated(y))[0].mean()
    assert truncated(x).shape[1] == 5
    assert MEASURES["svcca"](x, y) == pytest.approx(expected, rel=1e-9)


def test_pwcca_agrees_with_the_eigenproblem():
    x, y = related(80, 6, 5, noise=2.0)
    correlations, weights = canonical_correlations(x, y)
    expected = np.sum(correlations * weights) / weights.sum()
    assert MEASURES["pwcca"](x, y) == pytest.approx(expected, rel=1e-9)
    assert MEASURES["pwcca"](y, x) != pytest.approx(expected, rel=1e-3)  # Weights of one side.


def test_procrustes_agrees_with_the_best_rotation():
    x, y = related(40, 5, 5)
    a, b = ((z - z.mean(0)) / np.linalg.norm(z - z.mean(0)) for z in (x, y))
    rotation, _ = scipy.linalg.orthogonal_procrustes(a, b)
    expected = np.square(a @ rotation - b).sum()
    assert MEASURES["procrustes"](x, y) == pytest.approx(expected, rel=1e-9)


def test_rsa_agrees_with_spearman():
    x, y = related(25, 6, 3)
    expected = scipy.stats.spearmanr(*map(scipy.spatial.distance.pdist, (x, y))).statistic
    assert MEASURES["rsa"](x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_invariances(name, seed):
    x, y = related(30, 4, 5, seed)
    rng = np.random.default_rng(seed)
    measure = MEASURES[name]
    value = measure(x, y)
    order = rng.permutation(30)
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    for moved, other in (
        (x[order], y[order]),
        (x @ rotation if name != "pwcca" else x, y),  # Its weights follow the axes of x.
        (x * rng.uniform(0.01, 100), y),
        (x + rng.normal(size=4), y),
    ):
        assert measure(moved, other) == pytest.approx(value, abs=1e-7)
    assert measure(x, x) == pytest.approx(0 if measure.is_distance else 1, abs=1e-9)
    assert (-1 if name == "rsa" else 0) <= value <= (2 if measure.is_distance else 1)


def test_all_pairs_through_the_interface_of_cka():
    rng = np.random.default_rng(1)
    first = {"a": rng.normal(size=(20, 3)), "b": np.ones((20, 3))}
    second = {"c": rng.normal(size=(20, 4)), "d": first["a"] * 2, "e": rng.normal(size=(20, 2))}
    pairs = WholeSample(MEASURES["procrustes"], list(first), list(second))
    pairs.update(first, second)
    found = pairs.matrix()
    assert found.shape == (2, 3) and pairs.examples == 20 and pairs.interval() is None
    assert found[0, 1] == pytest.approx(0, abs=1e-12)
    assert found[0, 0] == pytest.approx(MEASURES["procrustes"](first["a"], second["c"]))
    assert np.isnan(found[1]).all()
    assert pairs.reasons()["b x c"] == "first b: no variance over the examples"
    assert len(pairs.reasons()) == 3


def test_what_cannot_be_measured_is_refused():
    x, y = related(20, 3, 4)
    bad = x.copy()
    bad[2, 1] = math.inf
    with pytest.raises(InputError, match="tap x: example 2, feature 1 is inf"):
        MEASURES["rsa"](bad, y)
    with pytest.raises(InputError, match="at least 4 examples are needed, got 3"):
        MEASURES["procrustes"](x[:3], y[:3])
    with pytest.raises(InputError, match="same examples needed, got 20 and 19"):
        MEASURES["svcca"](x, y[:19])
    with pytest.raises(InputError, match="4 examples with 3 directions .* take more examples"):
        MEASURES["pwcca"](x[:4], y[:4])
    pairs = WholeSample(MEASURES["rsa"], ["x"], ["y"])
    with pytest.raises(InputError, match="needs at least four examples"):
        pairs.matrix()
    with pytest.raises(InputError, match="no activations of tap 'y'; there are: z"):
        pairs.update({"x": x}, {"z": y})
    pairs.update({"x": x}, {"y": y})
    with pytest.raises(InputError, match="at once, not in parts"):
        pairs.update({"x": x}, {"y": y})
