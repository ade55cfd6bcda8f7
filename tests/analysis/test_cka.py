import math
import subprocess
import sys

import numpy as np
import pytest
from definitions import naive_hsic, naive_hsic_1, ratio, related
from hypothesis import given, settings
from hypothesis import strategies as st

from undivided_tf.analysis import cka
from undivided_tf.analysis.cka import linear_cka
from undivided_tf.errors import InputError


def test_fixture_of_the_demo_notebook():
    np.random.seed(1337)
    x = np.random.randn(100, 10)
    y = np.random.randn(100, 10) + x
    assert linear_cka(x, y) == pytest.approx(0.55761, abs=5e-6)
    assert linear_cka(x, y, debiased=True) == pytest.approx(0.51346, abs=5e-6)
    gram_x, gram_y = cka.gram_rbf(x, 0.5), cka.gram_rbf(y, 0.5)
    assert cka.cka(gram_x, gram_y) == pytest.approx(0.65483, abs=5e-6)


@pytest.mark.parametrize(("debiased", "hsic"), [(False, naive_hsic), (True, naive_hsic_1)])
@pytest.mark.parametrize("features", [(2, 3), (12, 9)])  # Cheaper in feature, in example space.
def test_agrees_with_the_definitions(debiased, hsic, features):
    x, y = related(9, *features)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    expected = ratio(hsic, k, l)
    assert linear_cka(x, y, debiased) == pytest.approx(expected, rel=1e-9)
    assert cka.cka(k, l, debiased) == pytest.approx(expected, rel=1e-9)


def test_debiased_rbf_agrees_with_the_definition():
    x, y = related(9, 3, 4)
    k, l = cka.gram_rbf(x, 0.7), cka.gram_rbf(y, 0.7)  # noqa: E741
    assert cka.cka(k, l, debiased=True) == pytest.approx(ratio(naive_hsic_1, k, l), rel=1e-9)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("d", "e"), [(3, 40), (40, 3), (5, 5), (60, 70)])
def test_feature_space_and_example_space_agree(debiased, d, e):
    x, y = related(30, d, e)
    in_examples = cka.cka(cka.gram_linear(x), cka.gram_linear(y), debiased)
    product = cka._debiased_product if debiased else cka._biased_product
    x, y = x - x.mean(0), y - y.mean(0)
    in_features = ratio(product, x, y)
    assert in_features == pytest.approx(in_examples, rel=1e-9)
    assert linear_cka(x, y, debiased) == pytest.approx(in_examples, rel=1e-9)


def test_the_diagonal_is_zeroed_and_not_subtracted_as_a_row():
    # cka_pytorch#2: `K - diag(K)` broadcasts the diagonal over the rows and leaves it in place.
    x, y = related(9, 3, 4)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    assert np.all(np.diag(cka.center_gram(k, unbiased=True)) == 0)

    def slipped(k, l):  # noqa: E741
        n, k, l = len(k), k - np.diag(k), l - np.diag(l)  # noqa: E741
        terms = (k * l.T).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2))
        return (terms - 2 * (k @ l).sum() / (n - 2)) / (n * (n - 3))

    right = linear_cka(x, y, debiased=True)
    assert right == pytest.approx(ratio(naive_hsic_1, k, l), rel=1e-9)
    assert abs(right - ratio(slipped, k, l)) > 1e-3
    poisoned = k + np.diag(np.full(9, 1e6))  # The diagonal has no effect.
    assert cka.cka(poisoned, l, debiased=True) == pytest.approx(right, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 12), st.booleans())
def test_invariances(seed, d, e, debiased):
    x, y = related(14, d, e, seed)
    rng = np.random.default_rng(seed + 1)
    value = linear_cka(x, y, debiased)
    order = rng.permutation(14)
    rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
    for moved, other in (
        (x[order], y[order]),
        (x @ rotation, y),
        (x * rng.uniform(0.01, 100), y),
        (x + rng.normal(size=d), y),
    ):
        assert linear_cka(moved, other, debiased) == pytest.approx(value, abs=1e-9)
    assert linear_cka(y, x, debiased) == pytest.approx(value, abs=1e-12)
    assert linear_cka(x, x, debiased) == pytest.approx(1, abs=1e-12)
    stretched = linear_cka(x * np.geomspace(1, 100, d), y, debiased)
    assert abs(stretched - value) > 1e-6


def test_biased_is_high_and_debiased_is_not_for_unrelated_wide_features():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(50, 2000)), rng.normal(size=(50, 2000))
    assert linear_cka(x, y) > 0.9
    assert abs(linear_cka(x, y, debiased=True)) < 0.1


def test_a_negative_estimate_is_reported():
    rng = np.random.default_rng(0)
    values = [
        linear_cka(rng.normal(size=(6, 4)), rng.normal(size=(6, 4)), debiased=True)
        for _ in range(20)
    ]
    assert min(values) < -0.01


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_tap_without_variance_gives_nan_and_says_why(kind):
    rng = np.random.default_rng(0)
    flat = np.full((12, 5), 0.1, kind) * (1 + 2 * np.finfo(kind).eps * rng.integers(0, 2, (12, 5)))
    for debiased in (False, True):
        with pytest.warns(RuntimeWarning, match="y has no variance"):
            assert math.isnan(linear_cka(rng.normal(size=(12, 3)), flat.astype(kind), debiased))
        with pytest.warns(RuntimeWarning, match="gram_x has no variance"):
            assert math.isnan(cka.cka(np.full((12, 12), 0.1), np.eye(12), debiased))


def test_a_small_variance_on_a_large_offset_is_kept():
    x, y = related(20, 3, 3)
    assert linear_cka(1e6 + x, y, True) == pytest.approx(linear_cka(x, y, True), abs=1e-6)


def test_bad_activations_are_refused_by_name():
    good = np.random.default_rng(0).normal(size=(8, 3))
    bad = good.copy()
    bad[5, 2] = np.nan
    for debiased in (False, True):
        with pytest.raises(InputError, match="at least 4 examples are needed, got 3"):
            linear_cka(good[:3], good[:3], debiased)
        with pytest.raises(InputError, match="same examples needed, got 8 and 7"):
            linear_cka(good, good[:7], debiased)
    with pytest.raises(InputError, match="expected \\(examples, features\\)"):
        linear_cka(good[:, 0], good)
    with pytest.raises(InputError, match="square, symmetric"):
        cka.center_gram(good)
    with pytest.raises(InputError, match="median distance"):
        cka.gram_rbf(np.ones((8, 2)))


def test_needs_no_tensorflow():
    code = "import sys, undivided_tf.analysis.cka; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
