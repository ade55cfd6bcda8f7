"""CKA of all pairs of taps, minibatch by minibatch."""

import math

import numpy as np
import pytest
from definitions import naive_hsic, naive_hsic_1, ratio, related

from undivided_tf.analysis import cka, minibatch_cka
from undivided_tf.analysis.cka import linear_cka
from undivided_tf.analysis.minibatch_cka import MinibatchCka
from undivided_tf.errors import InputError


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


def test_a_negative_estimate_is_reported():
    batch = {"a": np.array([[1.0], [1], [-1], [-1]])}, {"b": np.array([[1.0], [-1], [1], [-1]])}
    pair = MinibatchCka(["a"], ["b"])
    pair.update(*batch)
    assert pair.matrix()[0, 0] == pytest.approx(
        ratio(naive_hsic_1, *(x @ x.T for side in batch for x in side.values()))
    )
    assert pair.matrix()[0, 0] < 0


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_tap_without_variance_gives_nan_and_says_why(kind):
    rng = np.random.default_rng(0)
    flat = np.full((12, 5), 0.1, kind) * (1 + 2 * np.finfo(kind).eps * rng.integers(0, 2, (12, 5)))
    first = {"embeddings": flat.astype(kind), "block_00/attention": rng.normal(size=(12, 5))}
    pairs = MinibatchCka(first, ["x"])
    pairs.update(first, {"x": rng.normal(size=(12, 2))})
    assert np.isnan(pairs.matrix()[0, 0]) and np.isfinite(pairs.matrix()[1, 0])
    assert pairs.reasons() == {"embeddings x x": "first embeddings: no variance over the examples"}


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


def one(x, y, **options):
    pair = MinibatchCka(["x"], ["y"], **options)
    pair.update({"x": x}, {"y": y})
    return pair.matrix()[0, 0]


def test_fixture_of_the_demo_notebook():
    np.random.seed(1337)
    x = np.random.randn(100, 10)
    y = np.random.randn(100, 10) + x
    assert one(x, y, debiased=False) == pytest.approx(0.55761, abs=5e-6)
    assert one(x, y) == pytest.approx(0.51346, abs=5e-6)
    rbf = one(x, y, debiased=False, kernel="rbf", threshold=0.5)
    assert rbf == pytest.approx(0.65483, abs=5e-6)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize(("debiased", "hsic"), [(False, naive_hsic), (True, naive_hsic_1)])
@pytest.mark.parametrize("features", [(1, 2), (12, 9)])  # Feature space, example space.
def test_agrees_with_the_definitions(kernel, debiased, hsic, features):
    x, y = related(9, *features)
    gram = cka.gram_linear if kernel == "linear" else lambda x: cka.gram_rbf(x, 0.7)
    expected = ratio(hsic, gram(x), gram(y))
    found = one(x, y, debiased=debiased, kernel=kernel, threshold=0.7)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("debiased", [True, False])
def test_feature_space_and_example_space_agree(debiased):
    rng = np.random.default_rng(2)
    first, second = ([x, x[:, :3] ** 2] for x in related(30, 4, 5))
    batches = [minibatch_cka.Minibatch(x, diagonal=not debiased) for x in (first, second)]
    for places in (None, rng.permutation(30), np.arange(3, 25)):
        one, other = (b if places is None else b.take(places) for b in batches)
        in_features = minibatch_cka._products_of_features(one, other, debiased)
        in_examples = minibatch_cka._products_of_grams(one.grams, other.grams, debiased)
        for mine, theirs in zip(in_features, in_examples, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9)


def test_the_cheaper_space_is_used(monkeypatch):
    taken = []
    for name in ("_products_of_features", "_products_of_grams"):
        called = getattr(minibatch_cka, name)
        monkeypatch.setattr(
            minibatch_cka, name, lambda *a, n=name, c=called: (taken.append(n), c(*a))[1]
        )
    one(*related(300, 3, 4))
    one(*related(10, 30, 40))
    assert taken == ["_products_of_features", "_products_of_grams"]


@pytest.mark.parametrize("examples", [40, 600])  # In example space and in feature space.
def test_single_precision_products_agree_with_double_ones(examples):
    x, _ = related(examples, 60, 50)
    x[:, 3] *= 40  # BERT has features of such a size.
    x[::17] *= 3  # And such tokens.
    rng = np.random.default_rng(1)
    y = x @ rng.normal(size=(60, 50)) + 300 * rng.normal(size=(examples, 50))
    wide = one(x.astype("f").astype("d"), y.astype("f").astype("d"))
    assert one(x.astype("f"), y.astype("f")) == pytest.approx(wide, abs=2e-6)
    assert 0.01 < wide < 0.99


def test_a_subset_of_a_minibatch_equals_a_minibatch_of_the_subset():
    x, y = related(40, 6, 7)
    make = minibatch_cka.Minibatches(["t"])
    kept = np.arange(0, 40, 3)
    pairs = MinibatchCka(["t"], ["t"])
    pairs.add(make({"t": x}).take(kept), make({"t": y}).take(kept))
    assert pairs.matrix()[0, 0] == pytest.approx(linear_cka(x[kept], y[kept], True), rel=1e-9)


def test_shuffled_examples_have_no_similarity():
    rng = np.random.default_rng(4)
    pairs = MinibatchCka(["t"], ["t"])
    make = minibatch_cka.Minibatches(["t"])
    for seed in range(40):
        x, y = related(32, 10, 10, seed=seed)
        pairs.add(make({"t": x}), make({"t": y}).take(rng.permutation(32)))
    assert abs(pairs.matrix()[0, 0]) < 0.05


def test_all_minibatches_have_the_bandwidth_of_the_first():
    x, y = related(12, 3, 4)
    pairs = MinibatchCka(["x"], ["y"], kernel="rbf", threshold=0.7)
    pairs.update({"x": x}, {"y": y})
    pairs.update({"x": 9 * x}, {"y": y})
    scales = [0.49 * np.median(cka.squared_distances(z - z.mean(0))) for z in (x, y)]
    hsics = 0
    for scale in (1, 9):
        k, l = (  # noqa: E741
            np.exp(-((z[:, None] - z[None]) ** 2).sum(2) / (2 * s))
            for z, s in ((scale * x, scales[0]), (y, scales[1]))
        )
        hsics += np.array([naive_hsic_1(k, l), naive_hsic_1(k, k), naive_hsic_1(l, l)])
    expected = hsics[0] / math.sqrt(hsics[1] * hsics[2])
    assert pairs.matrix()[0, 0] == pytest.approx(expected, rel=1e-9)
    with pytest.raises(InputError, match="tap x: the median distance between examples is 0"):
        one(np.concatenate([np.ones((8, 2)), x[:3, :2]]), y[:11], kernel="rbf")


def test_bootstrap_intervals_cover_the_true_value():
    def sample(seed, minibatches=40):
        pairs = MinibatchCka(["x"], ["y"], replicates=300, seed=seed)
        rng = np.random.default_rng(seed)
        for _ in range(minibatches):
            x = rng.normal(size=(16, 6))
            pairs.update({"x": x}, {"y": x + rng.normal(size=x.shape)})
        return pairs

    truth = 6 / math.sqrt(6 * (6 * 2**2))  # HSIC of Gaussian data is |cov(x, y)|_F^2.
    covered = []
    for seed in range(30):
        low, high = sample(seed).interval()
        assert low.shape == high.shape == (1, 1) and low < high
        covered.append(low[0, 0] <= truth <= high[0, 0])
    assert sum(covered) >= 25
    assert sample(0, minibatches=7).interval() is None
    again = [sample(3).interval(), sample(3).interval()]
    np.testing.assert_array_equal(*again)


def test_there_is_no_interval_without_replicates():
    pairs = MinibatchCka(["x"], ["y"])
    for seed in range(9):
        x, y = related(8, 3, 3, seed)
        pairs.update({"x": x}, {"y": y})
    assert pairs.interval() is None
