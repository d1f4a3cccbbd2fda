"""One head that asks for two keys at once is fragile: where the keys' lengths vary, its output swings between the two.

Keys k_i ~ N(μ_i, Σ_i) with orthonormal means, q = t (μ_a + μ_b), n keys, values of diameter V. Let ε_i = k_iᵀμ_i.

**Small variances.** With all Σ_i = αI the difference of the two scores is δ ~ N(0, 4αt²), since ‖q‖² = 2t². On the
two values alone c = ½(v_a + v_b) + ½ tanh(δ/2) (v_a - v_b) and |tanh x| <= |x|, so the root mean square error is at
most ½ √α t ‖v_a - v_b‖, plus what the other keys get. α has to vanish faster than 1/t²: for any α > 0 a long enough
query swings.

**One large variance.** With Σ_a = αI + s μ_a μ_aᵀ, ε_a ~ N(1, s) up to α, and on the two values alone c = σ(δ) v_a +
σ(-δ) v_b. Here δ = (ε_a - ε_b) t + t (k_aᵀμ_b - k_bᵀμ_a), and σ has slope at most 1/4, so with r the weight of the
others

    ‖c - σ((ε_a - ε_b) t) v_a - σ((ε_b - ε_a) t) v_b‖ <= r V + ¼ |δ - (ε_a - ε_b) t| ‖v_a - v_b‖,
    r <= (n - 2) e^m / (n - 2 + e^(tε_a) + e^(tε_b)).

**The noise.** A score is off by a normal variable of variance 2αt² at most. The demonstration draws some 10⁵ of them
and allows seven standard deviations, m = 2 · 7 √(2α) t for a difference of two: exceeded with probability below 10⁻⁶.

**Shares.** The share of v_a is outside [1/10, 9/10] if |δ| > ln 9: probability 2Φ(-ln 9 / (t √s)) if k_a alone varies,
and √(2s) for √s if both do. A share of N samples is measured to five of its standard errors √(p(1-p)/N).

Source: CS224N assignment 5 (Winter 2021), part 1(c).
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from birthplace_lm.exploration import Claim, Demonstration
from birthplace_lm.exploration.attending import (
    Array,
    attend,
    diameter,
    noisy_keys,
    normal_below,
    orthonormal,
    sigmoid,
    weights,
)
from birthplace_lm.exploration.drawing import BLACK, BLUE, GREEN, ORANGE, panels
from birthplace_lm.exploration.spread import lost, swings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N, D, SAMPLES = 8, 16, 20_000  # keys, width, samples
T = 10.0
ALPHA, LARGE = 1e-8, 0.5  # variances: the vanishing one, and the one along the mean
NOISE = 2 * 7 * math.sqrt(2 * ALPHA) * T
READINGS = {"k_a": (True, False), "both": (True, True)}  # which of k_a, k_b has the large variance


class Sampled(NamedTuple):
    """One head asked with many draws of the keys: what varied and what came out."""

    epsilon_a: Array  # (N,)
    epsilon_b: Array
    shares: Array  # the weights of v_a, v_b and all others together, (N, 3)
    errors: Array  # distance from the closed form, (N,)
    from_average: Array  # distance from ½(v_a + v_b), (N,)


def query(mean_a: Array, mean_b: Array, t: float) -> Array:
    """q = t (μ_a + μ_b): (D,)."""
    return t * (mean_a + mean_b)


def large_variances(of_a: bool, of_b: bool) -> Array:
    """The variance along its own mean of each key: (n,)."""
    return np.array([LARGE * of_a, LARGE * of_b, *[0.0] * (N - 2)])


def closed_form(epsilon_a: Array, epsilon_b: Array, t: float) -> Array:
    """The share of v_a that the derivation predicts: σ((ε_a - ε_b) t)."""
    return sigmoid((epsilon_a - epsilon_b) * t)


def sample(of_a: bool, of_b: bool, rng: np.random.Generator, samples: int = SAMPLES) -> tuple[Sampled, Array]:
    """Ask one head with many draws of the keys; also the values (n, D), which are orthonormal."""
    means, values = orthonormal(N, D, rng), orthonormal(N, D, rng)
    keys = noisy_keys(means, ALPHA, large_variances(of_a, of_b), samples, rng)
    q = query(means[0], means[1], T)
    shares, outputs = weights(q, keys), attend(q, keys, values)
    epsilon_a, epsilon_b = keys[:, 0] @ means[0], keys[:, 1] @ means[1]
    share = closed_form(epsilon_a, epsilon_b, T)[:, None]
    return Sampled(
        epsilon_a,
        epsilon_b,
        np.stack([shares[:, 0], shares[:, 1], shares[:, 2:].sum(1)], axis=1),
        np.linalg.norm(outputs - share * values[0] - (1 - share) * values[1], axis=-1),
        np.linalg.norm(outputs - (values[0] + values[1]) / 2, axis=-1),
    ), values


def bound(found: Sampled, values: Array) -> Array:
    """What the distance from the closed form may be, from ε_a and ε_b alone: (N,)."""
    others = (N - 2) * np.exp(NOISE) / (N - 2 + np.exp(T * found.epsilon_a) + np.exp(T * found.epsilon_b))
    return others * diameter(values) + NOISE / 4 * float(np.linalg.norm(values[0] - values[1]))


def demonstrate(seed: int = 0) -> Demonstration:
    """Eight keys of width 16, t = 10, 20,000 draws: small variances, k_a alone with the large one, both keys."""
    rng = np.random.default_rng(seed)
    small, values = sample(False, False, rng)
    found = {name: sample(*which, rng) for name, which in READINGS.items()}
    spread = float(found["k_a"][0].epsilon_a.var())
    figures = _figures(found, spread)
    return Demonstration(
        name="fragile",
        title="One head that asks for two keys at once is fragile",
        construction=f"{N} keys k_i ~ N(μ_i, Σ_i) with orthonormal means in {D} dimensions, one query t(μ_a + μ_b) "
        f"with t = {T:g}, {SAMPLES:,} draws of the keys, α = {ALPHA:g}. First all Σ_i = αI; then Σ_a = αI + ½ μ_a "
        "μ_aᵀ, which lets the length of k_a vary (the handout's reading); then Σ_b likewise (both keys). "
        "A point is one draw of the keys; the corners of the right panel are v_a, v_b and all other values.",
        proves="One query gets the average of two values only as long as both scores agree to less than one unit; a "
        "key whose length varies by 70 % makes the output jump between the two values from sample to sample.",
        claims=(*_claims_of_small(small, values), *_claims_of_large(found, spread)),
        figures={"t": T, "alpha": ALPHA, "samples": SAMPLES, **figures},
        draw=lambda: _draw(small, found["k_a"][0], found["both"][0]),
        notes=_notes(figures),
    )


def _claims_of_small(small: Sampled, values: Array) -> tuple[Claim, ...]:
    apart = float(np.linalg.norm(values[0] - values[1]))
    others = (N - 2) * math.exp(-T + NOISE) * diameter(values)
    limit = math.sqrt(ALPHA) * T / 2 * apart * (1 + 5 / math.sqrt(2 * SAMPLES)) + others
    error = float(np.sqrt((small.from_average**2).mean()))
    return (Claim("Σ = αI: c is ½(v_a + v_b); root mean square error", error, limit),)


def _claims_of_large(found: Mapping[str, tuple[Sampled, Array]], spread: float) -> list[Claim]:
    claims = [
        Claim(
            "The ½ of a covariance is a variance: |var ε_a - ½| within five standard errors",
            abs(spread - LARGE), 5 * LARGE * math.sqrt(2 / SAMPLES),
        )
    ]  # fmt: skip
    words = {"k_a": "k_a alone varies", "both": "both keys vary"}
    for name, (drawn, values) in found.items():
        expected, seen = swings(LARGE, sum(READINGS[name]), T), swung(drawn)
        claims += [
            Claim(
                f"{words[name]}: c follows σ((ε_a - ε_b)t); largest error in units of the bound",
                float((drawn.errors / bound(drawn, values)).max()), 1.0,
            ),
            Claim(
                f"{words[name]}: the share of v_a leaves [0.1, 0.9] in {seen:.1%} of the samples, expected "
                f"{expected:.1%}",
                abs(seen - expected), _five_errors(expected),
            ),
        ]  # fmt: skip
    gone, expected = float((found["both"][0].shares[:, 2] > 0.5).mean()), lost(LARGE, T, N)
    sentence = f"both keys vary: in {gone:.2%} of the samples the other values outweigh both, expected {expected:.2%}"
    return [*claims, Claim(sentence, abs(gone - expected), _five_errors(expected))]


def swung(drawn: Sampled) -> float:
    """How often the share of v_a in what a and b get together is outside [1/10, 9/10]."""
    share = drawn.shares[:, 0] / (drawn.shares[:, 0] + drawn.shares[:, 1])
    return float(((share < 0.1) | (share > 0.9)).mean())


def _five_errors(probability: float) -> float:
    return 5 * math.sqrt(probability * (1 - probability) / SAMPLES)


def _figures(found: Mapping[str, tuple[Sampled, Array]], spread: float) -> dict[str, Any]:
    """Both readings of the keys and both of the ½, beside what was drawn."""
    return {
        "variance_of_epsilon_a": spread,
        "swings_expected": {
            one: {name: swings(variance, sum(which), T) for name, which in READINGS.items()}
            for one, variance in (("half_is_the_variance", LARGE), ("half_is_the_standard_deviation", LARGE**2))
        },
        "swings_drawn": {name: swung(drawn) for name, (drawn, _) in found.items()},
        "largest_error_of_closed_form": {name: float(drawn.errors.max()) for name, (drawn, _) in found.items()},
        "others_outweigh_both": {
            "expected": lost(LARGE, T, N),
            "drawn": float((found["both"][0].shares[:, 2] > 0.5).mean()),
        },
        "swings_of_small_variances": {f"t={t:g}": swings(1e-4, 4, t) for t in (10.0, 100.0, 1000.0)},
    }


def _notes(figures: Mapping[str, Any]) -> tuple[str, ...]:
    expected, error = figures["swings_expected"], figures["largest_error_of_closed_form"]
    variance, deviation = expected["half_is_the_variance"], expected["half_is_the_standard_deviation"]
    small = figures["swings_of_small_variances"]
    return (
        f"Which keys vary: if k_a alone does (ε_b ≈ 1), v_a's share leaves [0.1, 0.9] in {variance['k_a']:.1%} of "
        f"the samples and σ((ε_a - ε_b)t) is never off by more than {error['k_a']:.1g}. If both do it is "
        f"{variance['both']:.1%}, and in {figures['others_outweigh_both']['expected']:.2%} of the samples both keys "
        "are near zero or point backwards: then c goes to the *other* values, which the formula misses by up to "
        f"{error['both']:.2f} (the largest distance between two values is {math.sqrt(2):.2f}).",
        "What ½ means: as an entry of a covariance it is a variance, a standard deviation of 71 %. Read as the "
        f"standard deviation the shares would be {deviation['k_a']:.1%} and {deviation['both']:.1%}, and ε_a <= 0 "
        f"would happen in {normal_below(-2):.1%} instead of {normal_below(-math.sqrt(2)):.1%} of the samples.",
        "“Vanishingly small α” has to be small against 1/t²: with α = 0.0001 the share leaves [0.1, 0.9] in "
        + ", ".join(f"{share:.1%} of the samples at {t.replace('=', ' = ')}" for t, share in small.items())
        + ". A longer query brings the average and the fragility together.",
    )


def _draw(small: Sampled, one: Sampled, both: Sampled) -> "Figure":
    figure, (left, middle, right) = panels(
        "k$_a$ alone varies", "both keys vary", "both keys vary: where c lies", width=3.7
    )
    line = np.linspace(-3, 3, 301)
    for axes, drawn in ((left, one), (middle, both)):
        _scatter(axes, drawn, drawn.epsilon_a - drawn.epsilon_b, drawn.shares[:, 0])
        axes.plot(line, closed_form(line, np.zeros(301), T), color=BLACK, linewidth=0.9, label="σ((ε$_a$ − ε$_b$)t)")
        axes.axhspan(0.1, 0.9, color="0.92", zorder=0)
        outside = float((np.abs(drawn.shares[:, 0] - 0.5) > 0.4).mean())
        axes.text(3.2, 0.5, f"{outside:.0%} of the samples\noutside the grey", fontsize=8, ha="right", va="center")
        axes.set(xlabel="ε$_a$ − ε$_b$", ylabel="weight of v$_a$", xlim=(-3.4, 3.4))
    left.plot([0], [float(small.shares[:, 0].mean())], "s", color=GREEN, label="all variances small")
    for axes in (left, middle):
        axes.legend(fontsize=8, loc="upper left")
    _scatter(right, both, both.shares[:, 0], both.shares[:, 1])
    right.plot([0.5], [0.5], "s", color=GREEN)
    arrow = {"arrowstyle": "-", "color": "0.4"}
    right.annotate("wanted: ½(v$_a$ + v$_b$)", (0.5, 0.5), (0.5, 0.72), fontsize=8, arrowprops=arrow)
    right.annotate("neither", (0.02, 0.02), (0.16, 0.22), fontsize=8, arrowprops=arrow)
    right.set(xlabel="weight of v$_a$", ylabel="weight of v$_b$", aspect="equal")
    right.set(xlim=(-0.06, 1.06), ylim=(-0.06, 1.06))
    return figure


def _scatter(axes: "Axes", drawn: Sampled, x: Array, y: Array, shown: int = 1500) -> None:
    """The first samples as points, those in which the other values outweigh both as crosses."""
    gone = drawn.shares[:shown, 2] > 0.5
    axes.plot(x[:shown][~gone], y[:shown][~gone], ".", color=BLUE, alpha=0.35, ms=4, label="samples", rasterized=True)
    if gone.any():
        axes.plot(x[:shown][gone], y[:shown][gone], "x", color=ORANGE, markersize=5, label="lost to the others")
