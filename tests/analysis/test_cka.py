import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undivided_tf.analysis import cka
from undivided_tf.analysis.cka import MinibatchCka, linear_cka
from undivided_tf.errors import InputError


def related(examples, features, other, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, features)) + rng.normal(size=features)
    return x, x @ rng.normal(size=(features, other)) + noise * rng.normal(size=(examples, other))


def naive_hsic(k, l):  # noqa: E741
    """Kornblith et al. 2019, eq. 3: tr(K H L H) / (n - 1)^2 with the matrix H written out."""
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return np.trace(k @ h @ l @ h) / (n - 1) ** 2


def naive_hsic_1(k, l):  # noqa: E741
    """The definition of the U-statistic: a mean over all ordered quadruples of different examples.

    Song et al. 2012: h(i, j, q, r) = K_ij (L_ij + L_qr - 2 L_iq), all indices different.
    """
    quadruples = list(itertools.permutations(range(len(k)), 4))
    return np.mean([k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in quadruples])


def ratio(hsic, k, l):  # noqa: E741
    return hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))


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
    poisoned = k + np.diag(np.full(9, 1e6))  # The true diagonal has no say.
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
    batch = {"a": np.array([[1.0], [1], [-1], [-1]])}, {"b": np.array([[1.0], [-1], [1], [-1]])}
    pair = MinibatchCka(["a"], ["b"])
    pair.update(*batch)
    assert pair.matrix()[0, 0] == pytest.approx(
        ratio(naive_hsic_1, *(x @ x.T for side in batch for x in side.values()))
    )
    assert pair.matrix()[0, 0] < 0


def taps(rng, examples, width=5, names=("embeddings", "block_00/attention")):
    return {name: rng.normal(size=(examples, width)) for name in names}


def test_one_minibatch_equals_the_debiased_whole():
    rng = np.random.default_rng(1)
    first = taps(rng, 40)
    second = {"embeddings": first["embeddings"] + rng.normal(size=(40, 5)), **taps(rng, 40, 3, "c")}
    pairs = MinibatchCka(first, second)
    pairs.update(first, second)
    expected = [[linear_cka(x, y, True) for y in second.values()] for x in first.values()]
    np.testing.assert_allclose(pairs.matrix(), expected, rtol=1e-9)
    assert (pairs.examples, pairs.minibatches, pairs.reasons()) == (40, 1, {})


def test_minibatches_average_hsic_before_the_ratio():
    x, y = related(24, 3, 3)
    x[8:] *= 5  # Unlike minibatches, for which a mean of ratios differs from a ratio of means.
    pairs = MinibatchCka(["a"], ["b"])
    hsics, ratios = np.zeros(3), []
    for start in (0, 8, 16):
        a, b = x[start : start + 8], y[start : start + 8]
        pairs.update({"a": a}, {"b": b})
        k, l = a @ a.T, b @ b.T  # noqa: E741
        hsics += [naive_hsic_1(k, l), naive_hsic_1(k, k), naive_hsic_1(l, l)]
        ratios.append(ratio(naive_hsic_1, k, l))
    expected = hsics[0] / math.sqrt(hsics[1] * hsics[2])
    assert pairs.matrix()[0, 0] == pytest.approx(expected, rel=1e-9)
    assert abs(np.mean(ratios) - expected) > 1e-3


@pytest.mark.parametrize("batch", [4, 8, 25])
def test_minibatch_estimate_does_not_depend_on_the_batch_size(batch):
    # Correlated features with a known answer: for Gaussian data HSIC = |cov(x, y)|_F^2.
    rng = np.random.default_rng(5)
    shared, noise = rng.normal(size=(20_000, 6)), rng.normal(size=(20_000, 6))
    x, y = shared, shared + noise
    expected = 6 / math.sqrt(6 * (6 * 2**2))
    pairs = MinibatchCka(["a"], ["b"])
    for start in range(0, len(x), batch):
        pairs.update({"a": x[start : start + batch]}, {"b": y[start : start + batch]})
    assert pairs.matrix()[0, 0] == pytest.approx(expected, abs=0.03)
    biased = [linear_cka(x[i : i + batch], y[i : i + batch]) for i in range(0, 2000, batch)]
    assert np.mean(biased) - expected > 0.05  # What averaging biased ratios would have given.


def test_memory_is_bounded_by_the_minibatch():
    pairs = MinibatchCka(["a"], ["b"])
    rng = np.random.default_rng(0)
    for _ in range(50):
        pairs.update({"a": rng.normal(size=(10, 3))}, {"b": rng.normal(size=(10, 3))})
    kept = sum(value.size for value in vars(pairs).values() if isinstance(value, np.ndarray))
    assert kept == 3


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_tap_without_variance_gives_nan_and_says_why(kind):
    rng = np.random.default_rng(0)
    flat = np.full((12, 5), 0.1, kind) * (1 + 2 * np.finfo(kind).eps * rng.integers(0, 2, (12, 5)))
    first = {"embeddings": flat.astype(kind), "block_00/attention": rng.normal(size=(12, 5))}
    pairs = MinibatchCka(first, ["x"])
    pairs.update(first, {"x": rng.normal(size=(12, 2))})
    assert np.isnan(pairs.matrix()[0, 0]) and np.isfinite(pairs.matrix()[1, 0])
    assert pairs.reasons() == {"embeddings x x": "first embeddings: no variance over the examples"}
    for debiased in (False, True):
        with pytest.warns(RuntimeWarning, match="y has no variance"):
            assert math.isnan(linear_cka(rng.normal(size=(12, 3)), flat.astype(kind), debiased))
        with pytest.warns(RuntimeWarning, match="gram_x has no variance"):
            assert math.isnan(cka.cka(np.full((12, 12), 0.1), np.eye(12), debiased))


def test_a_small_spread_on_a_large_offset_is_no_lack_of_variance():
    x, y = related(20, 3, 3)
    assert linear_cka(1e6 + x, y, True) == pytest.approx(linear_cka(x, y, True), abs=1e-6)


def test_bad_activations_are_refused_by_name():
    good = np.random.default_rng(0).normal(size=(8, 3))
    bad = good.copy()
    bad[5, 2] = np.nan
    pairs = MinibatchCka(["block_01/attention"], ["x"])
    with pytest.raises(InputError, match="tap block_01/attention: example 5, feature 2 is nan"):
        pairs.update({"block_01/attention": bad}, {"x": good})
    with pytest.raises(InputError, match="'block_01/attention'; there are: x"):
        pairs.update({"x": good}, {"x": good})
    with pytest.raises(InputError, match="at least 4 examples are needed, got 3"):
        pairs.update({"block_01/attention": good[:3]}, {"x": good[:3]})
    with pytest.raises(InputError, match="same examples needed, got 8 and 7"):
        pairs.update({"block_01/attention": good}, {"x": good[:7]})
    with pytest.raises(InputError, match="at least one minibatch"):
        pairs.matrix()
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
