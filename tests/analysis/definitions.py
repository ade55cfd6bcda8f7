"""Definitions written out, slow and independent of the package."""

import itertools
import math

import numpy as np


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
