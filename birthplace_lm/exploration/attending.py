"""One attention over n keys and values in float64, and the random keys it is asked with.

Legend of the demonstrations: n keys, D width, N samples, q query, k keys, v values, c output, t length of a query,
α weights (in formulas of keys α also is their small variance, as in the source).
Scores are kᵀq as in the derivations, not divided by √D as in the model: the division is a smaller t.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPSILON = float(np.finfo(np.float64).eps)


def weights(query: Array, keys: Array) -> Array:
    """softmax(k_iᵀq) over the keys: (..., D) and (..., n, D) -> (..., n)."""
    scores = np.einsum("...nd,...d->...n", keys, query)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def attend(query: Array, keys: Array, values: Array) -> Array:
    """c = Σ α_i v_i: (..., D), (..., n, D) and values (n, D) -> (..., D)."""
    return weights(query, keys) @ values


def orthonormal(count: int, width: int, rng: np.random.Generator) -> Array:
    """Random directions of norm 1, each at right angles to all others: (count, width), count at most width."""
    return np.linalg.qr(rng.standard_normal((width, count)))[0].T


def diameter(values: Array) -> float:
    """The largest distance between two values: what a misplaced weight of 1 can cost at most."""
    return float(np.linalg.norm(values[:, None] - values[None], axis=-1).max())


def noisy_keys(means: Array, alpha: float, along: Array, samples: int, rng: np.random.Generator) -> Array:
    """Keys k_i ~ N(μ_i, αI + along_i μ_i μ_iᵀ): means (n, D), variances along (n,) -> (N, n, D).

    The large variance is drawn along the mean alone, so k_i is nearly ε_i μ_i with ε_i ~ N(1, along_i + α).
    """
    n, width = means.shape
    small = math.sqrt(alpha) * rng.standard_normal((samples, n, width))
    large = np.sqrt(along) * rng.standard_normal((samples, n))
    return means * (1 + large[..., None]) + small


def normal_nodes(mean: float, variance: float, points: int = 1001) -> tuple[Array, Array]:
    """Nodes and weights (points,) of the trapezoid rule under a normal density, out to eight standard deviations.

    For an analytic function whose nearest pole is p away, the rule's error falls as e^(-2πp/h) with the step h: for
    σ(tε), p = π/t, it is far below sampling error up to t = 100. Variance 0 is the mean alone.
    """
    if variance == 0:
        return np.array([mean]), np.array([1.0])
    z = np.linspace(-8, 8, points)
    density = np.exp(-z * z / 2)
    return mean + math.sqrt(variance) * z, density / density.sum()


def normal_below(z: float) -> float:
    """Φ(z), the probability that a standard normal variable is below z."""
    return math.erfc(-z / math.sqrt(2)) / 2


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), in a form that does not overflow."""
    return 0.5 + 0.5 * np.tanh(x / 2)
