"""How the output of one head or of two scatters where the lengths of keys vary: from samples and by quadrature.

The setting is that of `fragile` and `two_heads` for α = 0: n orthonormal values, keys ε_i μ_i with ε_a and ε_b normal
around 1, all other scores 0, queries of length t. The variance of an output is the trace of its covariance,
E‖c - E c‖².
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from birthplace_lm.exploration.attending import Array, normal_below, normal_nodes, sigmoid
from birthplace_lm.exploration.drawing import BLUE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def swings(variance: float, keys_that_vary: int, t: float) -> float:
    """The probability that v_a's share in what one head gives to v_a and v_b is outside [1/10, 9/10]."""
    return 2 * normal_below(-math.log(9) / (t * math.sqrt(variance * keys_that_vary)))


def lost(variance: float, t: float, n: int) -> float:
    """The probability that the others together outweigh a and b, both keys varying: e^(tε_a) + e^(tε_b) < n - 2."""
    epsilon, probability = normal_nodes(1.0, variance, 20_001)
    room = n - 2 - np.exp(t * epsilon)
    least = [(math.log(x) / t - 1) / math.sqrt(variance) if x > 0 else -math.inf for x in room]
    return float(sum(p * normal_below(z) for p, z in zip(probability, least, strict=True)))


def variance_of(outputs: Array) -> tuple[float, float]:
    """The trace of the covariance of the outputs (N, D), and its standard error."""
    squares = ((outputs - outputs.mean(0)) ** 2).sum(-1)
    return float(squares.mean()), float(squares.std() / math.sqrt(len(squares)))


def expected_variance(heads: int, variances: tuple[float, float], lengths: tuple[float, float], n: int) -> float:
    """The same by quadrature over ε_a and ε_b, whose variances are given, for n keys, α = 0 and lengths t₁ and t₂.

    One head that asks for t₁μ_a + t₂μ_b: Σ_i var(α_i) with α = softmax(t₁ε_a, t₂ε_b, 0, …, 0). Two, which ask for one
    each: ¼ n/(n - 1) (var w(t₁ε_a) + var w(t₂ε_b)).
    """
    (a, of_a), (b, of_b) = (normal_nodes(1.0, variance) for variance in variances)
    a, b = lengths[0] * a, lengths[1] * b  # scores
    if heads == 2:
        parts = [(sigmoid(score - math.log(n - 1)), p) for score, p in ((a, of_a), (b, of_b))]
        return sum(_variance(w, p) for w, p in parts) / 4 * n / (n - 1)
    largest = np.maximum(np.maximum(a[:, None], b), 0.0)  # (a's nodes, b's nodes)
    for_a, for_b, rest = np.exp(a[:, None] - largest), np.exp(b - largest), (n - 2) * np.exp(-largest)
    total, joint = for_a + for_b + rest, of_a[:, None] * of_b
    return _variance(for_a / total, joint) + _variance(for_b / total, joint) + _variance(rest / total, joint) / (n - 2)


def _variance(x: Array, probability: Array) -> float:
    mean = float((x * probability).sum())
    return float(((x - mean) ** 2 * probability).sum())


class Sweep(NamedTuple):
    """Variances along one axis, of one head and of two: measured, standard errors and expected, each (2, points)."""

    at: tuple[float, ...]
    measured: Array
    errors: Array
    expected: Array

    def rows(self) -> list[dict[str, float]]:
        """One dict a point, for JSON."""
        names = ("one", "one_standard_error", "one_expected", "two", "two_standard_error", "two_expected")
        parts = [part[head].tolist() for head in (0, 1) for part in (self.measured, self.errors, self.expected)]
        return [dict(zip(("at", *names), row, strict=True)) for row in zip(self.at, *parts, strict=True)]

    def draw(self, axes: "Axes", label: str) -> None:
        """Quadrature as lines, samples as points with 95 % intervals, on logarithmic axes."""
        for head, (colour, words) in enumerate(((BLUE, "one head"), (ORANGE, "two heads"))):
            axes.plot(self.at, self.expected[head], color=colour, linewidth=1, label=f"{words}, quadrature")
            interval = 1.96 * self.errors[head]
            label_of = f"{words}, samples"
            axes.errorbar(
                self.at, self.measured[head], interval, fmt="o", color=colour, ms=4, capsize=2, label=label_of
            )
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="variance of c")
        axes.legend(fontsize=7, loc="lower right")
