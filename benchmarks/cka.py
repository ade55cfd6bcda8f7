"""Time of CKA between all taps of two encoders: our code and other implementations.

    make bench-cka

All implementations get the same random activations and are timed in alternation:
torch_cka       the loop of the package of that name (PyTorch-Model-Compare), without its hooks
numpy_grams     centred Gram matrices for each pair, minibatch by minibatch, ratios averaged
numpy_features  `feature_space_linear_cka` of google-research's Demo.ipynb, on the whole sample
Needs PyTorch, but not TensorFlow. Writes results/benchmarks/cka.json.
"""

import itertools
import statistics
import time

import common
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("tokens", 20_000, "Tokens.")
flags.DEFINE_integer("batch", 256, "Tokens per minibatch.")
flags.DEFINE_integer("taps", 12, "Taps of each encoder.")
flags.DEFINE_integer("width", 768, "Width of a tap.")
flags.DEFINE_integer("repeats", 3, "Timed runs of each implementation.")


def torch_cka(first, second, batch):
    """`CKA.compare` of torch_cka 0.21."""
    import torch

    def hsic(k, l):  # noqa: E741
        n = k.shape[0]
        ones = torch.ones(n, 1)
        result = torch.trace(k @ l)
        result += ((ones.t() @ k @ ones @ ones.t() @ l @ ones) / ((n - 1) * (n - 2))).item()
        result -= ((ones.t() @ k @ l @ ones) * 2 / (n - 2)).item()
        return (1 / (n * (n - 3)) * result).item()

    sums = torch.zeros(len(first), len(second), 3)
    for start in range(0, len(first[0]), batch):
        for i, x in enumerate(first):
            x = torch.from_numpy(x[start : start + batch])
            k = (x @ x.t()).fill_diagonal_(0.0)
            sums[i, :, 0] += hsic(k, k)
            for j, y in enumerate(second):
                y = torch.from_numpy(y[start : start + batch])
                l = (y @ y.t()).fill_diagonal_(0.0)  # noqa: E741
                sums[i, j, 1] += hsic(k, l)
                sums[i, j, 2] += hsic(l, l)
    return (sums[:, :, 1] / (sums[:, :, 0].sqrt() * sums[:, :, 2].sqrt())).numpy()


def numpy_grams(first, second, batch):
    """Biased CKA of each pair and minibatch, averaged."""
    import numpy as np

    def centred(x):
        n = len(x)
        h = np.eye(n) - np.ones((n, n)) / n
        return h @ (x @ x.T) @ h

    def cka(x, y):
        k, l = centred(x), centred(y)  # noqa: E741
        return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())

    starts = range(0, len(first[0]), batch)
    return np.array(
        [
            [np.mean([cka(x[s : s + batch], y[s : s + batch]) for s in starts]) for y in second]
            for x in first
        ]
    )


def numpy_features(first, second, batch):
    """Debiased CKA of each pair on the whole sample, in feature space."""
    import numpy as np

    del batch

    def debiased(xty, rows_x, rows_y, norm_x, norm_y, n):
        correction = norm_x * norm_y / ((n - 1) * (n - 2))
        return xty - n / (n - 2) * rows_x.dot(rows_y) + correction

    def cka(x, y):
        x, y = x - x.mean(0), y - y.mean(0)
        n = len(x)
        similarity = np.linalg.norm(x.T.dot(y)) ** 2
        self_x, self_y = np.linalg.norm(x.T.dot(x)), np.linalg.norm(y.T.dot(y))
        rows_x, rows_y = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
        norm_x, norm_y = rows_x.sum(), rows_y.sum()
        similarity = debiased(similarity, rows_x, rows_y, norm_x, norm_y, n)
        self_x = np.sqrt(debiased(self_x**2, rows_x, rows_x, norm_x, norm_x, n))
        self_y = np.sqrt(debiased(self_y**2, rows_y, rows_y, norm_y, norm_y, n))
        return similarity / (self_x * self_y)

    return np.array([[cka(x, y) for y in second] for x in first])


def ours(first, second, batch):
    """`MinibatchCka`, with the bootstrap of the default config."""
    from undivided_tf.analysis.minibatch_cka import MinibatchCka

    pairs = MinibatchCka(range(len(first)), range(len(second)), replicates=400)
    for start in range(0, len(first[0]), batch):
        pairs.update(
            *({i: x[start : start + batch] for i, x in enumerate(side)} for side in (first, second))
        )
    return pairs.matrix()


def main(_):
    """Times all implementations and writes the results."""
    import numpy as np

    from undivided_tf.support import files

    rng = np.random.default_rng(0)
    shared = rng.normal(size=(FLAGS.tokens, FLAGS.width))

    def side():
        return [
            (shared + rng.normal(size=shared.shape)).astype(np.float32) for _ in range(FLAGS.taps)
        ]

    first, second = side(), side()
    implementations = {f.__name__: f for f in (ours, torch_cka, numpy_grams, numpy_features)}
    seconds, values = {name: [] for name in implementations}, {}
    for _, name in itertools.product(range(FLAGS.repeats), implementations):
        start = time.perf_counter()
        values[name] = implementations[name](first, second, FLAGS.batch)
        seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    result = {
        **common.header("seconds of CKA between all pairs of taps of two encoders"),
        "flags": common.flag_values(),
        "seconds": seconds,
        "speedup": {name: median / medians["ours"] for name, median in medians.items()},
        "largest_difference_from_ours": {
            name: float(np.abs(values[name] - values["ours"]).max())
            for name in implementations
            if name != "ours"
        },
    }
    path = common.results_path("cka")
    files.write_json(path, result)
    for name, median in medians.items():
        print(f"{name:<16}{median:9.1f} s, {result['speedup'][name]:7.1f} times ours")
    print(path)


if __name__ == "__main__":
    app.run(main)
