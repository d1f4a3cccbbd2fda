"""Two heads are robust: each asks for one key, and the average of their outputs hardly depends on the keys' lengths.

The keys are those of `fragile`; q₁ = t₁ μ_a, q₂ = t₂ μ_b and c = ½(c₁ + c₂).

**When it works.** Head 1 scores t₁ε_a for key a and 0 for the others, so its weight on v_a is
w(ε_a) = σ(t₁ε_a - ln(n - 1)), that of head 2 on v_b likewise with t₂, and with V the diameter of the values and the
bound of `copying` for both heads

    ‖c - ½(v_a + v_b)‖ <= ½V [(1 - w(ε_a)) + (1 - w(ε_b))]     up to the noise of the scores.

For t → ∞ this vanishes if and only if both ε are positive.

**The lengths need not agree.** What either head gives depends on its own length alone. One head has to weigh both keys
alike: with q = t₁μ_a + t₂μ_b its shares of v_a and v_b are as e^(t₁ε_a) to e^(t₂ε_b), so the longer one takes all.

**When it does not.** For ε_a <= 0 the weight w is at most 1/n whatever t: a longer query makes it worse. The
probability is Φ(-1/√s) for ε_a ~ N(1, s). With orthonormal values and a perfect second head the error is then ½(1 -
w)‖v_a - mean of the others‖ >= ½ (1 - 1/n) √(n/(n - 1)) = ½ √((n - 1)/n).

**The variance** is the trace of the covariance of c. With orthonormal values it is Σ_i var(α_i) for one head, where
the weights are softmax(tε_a, tε_b, 0, …, 0), and ¼ n/(n - 1) (var w(ε_a) + var w(ε_b)) for two. Both are integrals
over one or two normal variables, computed by quadrature. For t → ∞ and k_a alone varying they become ½ and ¼ n/(n -
1) P(1 - P) with P = Φ(-1/√s): two heads keep a floor. Neither depends on the width D, since a score has the same law
in any width.

A variance measured from N samples is compared to five standard errors, sd(‖c - c̄‖²) / √N.

Source: CS224N assignment 5 (Winter 2021), part 1(d).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from birthplace_lm.exploration import Claim, Demonstration
from birthplace_lm.exploration.attending import Array, attend, diameter, noisy_keys, normal_below, orthonormal
from birthplace_lm.exploration.drawing import BLACK, BLUE, ORANGE, panels
from birthplace_lm.exploration.spread import Sweep, expected_variance, variance_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N, D, SAMPLES = 8, 16, 20_000  # keys, width, samples
FEWER = 2000  # samples at each point of a sweep
T = 10.0
ALPHA, LARGE = 1e-8, 0.5  # variances: the vanishing one, and the one along the mean
UNEQUAL = (T, 3 * T)  # t₁ and t₂ of another kind
NOISE = 2 * 7 * math.sqrt(ALPHA)  # seven standard deviations of a score's noise for t = 1, twice, as in `fragile`
LENGTHS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
SPREADS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
WIDTHS = (8, 64, 512)


def one_query(mean_a: Array, mean_b: Array, t_a: float, t_b: float) -> tuple[Array, ...]:
    """One head asks for both keys at once: q = t₁ μ_a + t₂ μ_b."""
    return (t_a * mean_a + t_b * mean_b,)


def two_queries(mean_a: Array, mean_b: Array, t_a: float, t_b: float) -> tuple[Array, ...]:
    """Each head asks for a key of its own: q₁ = t₁ μ_a, q₂ = t₂ μ_b."""
    return (t_a * mean_a, t_b * mean_b)


class Sampled(NamedTuple):
    """What many draws of the keys gave for queries of some lengths t₁ and t₂, with orthonormal values (n, D)."""

    lengths: tuple[float, float]
    values: Array
    epsilon_a: Array  # (N,)
    epsilon_b: Array
    one: Array  # the output of one head, (N, D)
    two: Array  # the mean output of two heads, (N, D)


def sample(
    variances: tuple[float, float], lengths: tuple[float, float], width: int, samples: int, rng: np.random.Generator
) -> Sampled:
    """Ask one head and two heads with the same draws of the keys; variances along the means of k_a and k_b."""
    means, values = orthonormal(N, width, rng), orthonormal(N, width, rng)
    keys = noisy_keys(means, ALPHA, np.array([*variances, *[0.0] * (N - 2)]), samples, rng)
    outputs = [
        np.mean([attend(query, keys, values) for query in queries(means[0], means[1], *lengths)], axis=0)
        for queries in (one_query, two_queries)
    ]
    return Sampled(lengths, values, keys[:, 0] @ means[0], keys[:, 1] @ means[1], outputs[0], outputs[1])


def sweep(
    at: Sequence[float],
    settings: Sequence[tuple[tuple[float, float], tuple[float, float], int]],
    rng: np.random.Generator,
) -> Sweep:
    """Measure and compute both variances for each (variances of a and b, lengths t₁ and t₂, width)."""
    rows = []
    for variances, lengths, width in settings:
        drawn = sample(variances, lengths, width, FEWER, rng)
        found = [variance_of(outputs) for outputs in (drawn.one, drawn.two)]
        expected = [expected_variance(heads, variances, lengths, N) for heads in (1, 2)]
        rows.append([(*pair, variance) for pair, variance in zip(found, expected, strict=True)])
    return Sweep(tuple(at), *np.array(rows).transpose(2, 1, 0))


def bound(drawn: Sampled) -> Array:
    """What the distance of two heads' output from ½(v_a + v_b) may be, from ε_a and ε_b alone: (N,)."""
    of_both = zip(drawn.lengths, (drawn.epsilon_a, drawn.epsilon_b), strict=True)
    astray = [(N - 1) / (N - 1 + np.exp(t * (epsilon - NOISE))) for t, epsilon in of_both]
    return diameter(drawn.values) / 2 * (astray[0] + astray[1])


def missed(t: float, error: float = 0.1) -> float:
    """The probability that ε_a is positive and the first head alone still costs an error above the given one."""
    least = 1 - 2 * error * math.sqrt((N - 1) / N)  # the weight on v_a at which the error is the given one
    enough = (math.log(N - 1) + math.log(least / (1 - least))) / t
    return normal_below((enough - 1) / math.sqrt(LARGE)) - normal_below(-1 / math.sqrt(LARGE))


def demonstrate(seed: int = 0) -> Demonstration:
    """One head against two on the same 20,000 draws of the keys, then over t, the spread of the keys and the width."""
    rng = np.random.default_rng(seed)
    alone, both = (sample((LARGE, of_b), (T, T), D, SAMPLES, rng) for of_b in (0.0, LARGE))
    sweeps = {
        "t": sweep(LENGTHS, [((LARGE, 0.0), (t, t), D) for t in LENGTHS], rng),
        "spread": sweep(SPREADS, [((spread, 0.0), (T, T), D) for spread in SPREADS], rng),
        "width": sweep(WIDTHS, [((LARGE, 0.0), (T, T), width) for width in WIDTHS], rng),
    }
    unequal = sample((LARGE, LARGE), UNEQUAL, D, SAMPLES, rng)
    steady = sample((0.0, 0.0), UNEQUAL, D, FEWER, rng)
    second = sweep(LENGTHS, [((LARGE, LARGE), (T, t), D) for t in LENGTHS], rng)
    floor = normal_below(-1 / math.sqrt(LARGE))
    limit = floor * (1 - floor) / 4 * N / (N - 1)
    return Demonstration(
        name="two_heads",
        title="Two heads that ask for one key each are robust",
        construction=f"The keys of the fragile head ({N} in {D} dimensions, {SAMPLES:,} draws), q₁ = tμ_a for one head "
        f"and q₂ = tμ_b for the other, t = {T:g}, c = ½(c₁ + c₂); then with lengths "
        f"{UNEQUAL[0]:g} and {UNEQUAL[1]:g}. Left: draws of the keys; middle and right: the trace of the "
        f"covariance of c, by quadrature and from {FEWER:,} draws a point with 95 % intervals.",
        proves="Splitting the question between two heads makes the average robust against the lengths of the keys, as "
        "long as they point the right way: a key with ε <= 0 is lost to its head whatever t.",
        claims=(
            *_claims_of("k_a alone varies", alone, 0.0),
            *_claims_of("both keys vary", both, LARGE),
            *_claims_of(f"t₁ = {UNEQUAL[0]:g}, t₂ = {UNEQUAL[1]:g}, both keys vary", unequal, LARGE),
            *_claims_of_lengths(steady, second),
            *_claims_of_sweeps(sweeps),
        ),
        figures={
            "t": T, "alpha": ALPHA, "samples": SAMPLES, "probability_of_lost_key": floor, "floor_of_two_heads": limit,
            "positive_but_error_above_a_tenth": {f"t={t:g}": missed(t) for t in (10.0, 100.0, 1000.0)},
            "variance": {name: found.rows() for name, found in (*sweeps.items(), ("second_length", second))},
        },
        draw=lambda: _draw(alone, sweeps, limit),
        notes=_notes(floor, limit, sweeps["t"], second),
    )  # fmt: skip


def _notes(floor: float, limit: float, over_t: Sweep, second: Sweep) -> tuple[str, ...]:
    at_t, at_second = (dict(zip(found.at, found.expected.T, strict=True)) for found in (over_t, second))
    missed_at = ", ".join(f"{missed(t):.2%} at t = {t:g}" for t in (10.0, 100.0, 1000.0))
    return (
        f"Not for all samples: ε_a <= 0 has probability Φ(-√2) = {floor:.1%}. Then head 1 returns anything but v_a, "
        f"c is off by at least ½√((n-1)/n) = {math.sqrt((N - 1) / N) / 2:.2f}, and a larger t makes it worse.",
        "ε_a > 0 is enough only for t → ∞; what counts is tε_a against ln(n-1). An error above 0.1 in spite of a "
        f"positive ε_a has probability {missed_at}.",
        f"With k_a alone varying the variance of c falls from {at_t[10.0][0]:.3f} to {at_t[10.0][1]:.3f} at t = 10 and "
        f"from {at_t[100.0][0]:.3f} to {at_t[100.0][1]:.3f} at t = 100, but not to nothing: two heads keep the floor "
        f"{limit:.4f} of the lost keys.",
        f"The lengths of the two queries need not agree: with t₁ = 10 and both keys varying two heads scatter by "
        f"{at_second[10.0][1]:.3f} at t₂ = 10 and {at_second[100.0][1]:.3f} at t₂ = 100. One head scatters less and "
        f"less there ({at_second[10.0][0]:.3f} and {at_second[100.0][0]:.3f}), but around v_b: it no longer averages.",
        "The width makes no difference at a given t, as a score has the same law in any width.",
    )


def _claims_of(words: str, drawn: Sampled, of_b: float) -> list[Claim]:
    error = np.linalg.norm(drawn.two - (drawn.values[0] + drawn.values[1]) / 2, axis=-1)
    good, lost = (drawn.epsilon_a > 0) & (drawn.epsilon_b > 0), drawn.epsilon_a <= 0
    expected, seen = normal_below(-1 / math.sqrt(LARGE)), float(lost.mean())
    share = float((error / bound(drawn))[good].max())
    claims = [
        Claim(f"{words}, ε_a, ε_b > 0: c is ½(v_a + v_b); largest error in units of the bound", share, 1.0),
        Claim(
            f"{words}: ε_a <= 0 in {seen:.2%} of the samples, expected {expected:.2%}",
            abs(seen - expected), 5 * math.sqrt(expected * (1 - expected) / SAMPLES),
        ),
    ]  # fmt: skip
    if of_b == 0:
        second = (N - 1) * math.exp(T * (NOISE - 1))  # what the second head may miss, and the noise in the first
        least = math.sqrt((N - 1) / N) / 2 - diameter(drawn.values) * (second + T * NOISE) / 2
        claims.append(Claim(f"{words}, ε_a <= 0: v_a is lost; smallest error", float(error[lost].min()), least, ">"))
    for heads, outputs in enumerate((drawn.one, drawn.two), start=1):
        variance, deviation = variance_of(outputs)
        expected = expected_variance(heads, (LARGE, of_b), drawn.lengths, N)
        number = f"variance of {'one head' if heads == 1 else 'two heads'} {variance:.4f}, expected {expected:.4f}"
        claims.append(Claim(f"{words}: {number}", abs(variance - expected), 5 * deviation))
    return claims


def _claims_of_lengths(steady: Sampled, second: Sweep) -> tuple[Claim, ...]:
    """With unequal lengths and keys of length 1: two heads average, one copies the key it asks for more loudly."""
    (t_a, t_b), middle = steady.lengths, (steady.values[0] + steady.values[1]) / 2
    words = f"t₁ = {t_a:g}, t₂ = {t_b:g}, no key varies"
    of_two = np.linalg.norm(steady.two - middle, axis=-1) / bound(steady)
    astray = math.exp(t_a - t_b + t_b * NOISE) + (N - 2) * math.exp(t_b * (NOISE - 1))  # one head's weight beside v_b
    of_one = np.linalg.norm(steady.one - steady.values[1], axis=-1) / (diameter(steady.values) * astray)
    off = float((np.abs(second.measured - second.expected) / second.errors).max())
    return (
        Claim(f"{words}: two heads return ½(v_a + v_b); largest error in units of the bound", float(of_two.max()), 1.0),
        Claim(f"{words}: one head returns v_b; largest error in units of the bound", float(of_one.max()), 1.0),
        Claim(f"t₁ = {T:g}, any t₂: variances by quadrature; largest departure in standard errors", off, 5.0),
    )


def _claims_of_sweeps(sweeps: Mapping[str, Sweep]) -> tuple[Claim, ...]:
    largest = max(float((found.measured[1] / found.measured[0]).max()) for found in sweeps.values())
    widths = sweeps["width"]
    off = float((np.abs(widths.measured - widths.expected) / widths.errors).max())
    calmer = Claim(
        "Two heads vary less than one at every t, spread and width: largest ratio of variances", largest, 1.0
    )
    same = "Width 8, 64 and 512 have the same variance at a given t; largest departure in standard errors"
    return calmer, Claim(same, off, 5.0)


def _draw(drawn: Sampled, sweeps: Mapping[str, Sweep], floor: float, shown: int = 1500) -> "Figure":
    figure, (left, middle, right) = panels(
        "weight of v$_a$ in c, k$_a$ alone varies", "variance of c over t", "variance of c over the spread", width=3.7
    )
    for outputs, colour, words in ((drawn.one, BLUE, "one head"), (drawn.two, ORANGE, "two heads")):
        weight = outputs[:shown] @ drawn.values[0]
        left.plot(drawn.epsilon_a[:shown], weight, ".", color=colour, ms=3, label=words, rasterized=True)
    left.axvspan(-2, 0, color="0.92", zorder=0)
    left.text(-0.95, 0.62, "ε$_a$ ≤ 0:\nlost", fontsize=8)
    left.set(xlabel="ε$_a$", ylabel="weight of v$_a$", xlim=(-1.2, 3.2))
    left.legend(fontsize=8, loc="upper left")
    sweeps["t"].draw(middle, "length t of the queries")
    middle.axhline(floor, color=BLACK, linestyle=":", linewidth=1)
    middle.text(3.2, floor * 0.78, "floor of two heads, t → ∞", fontsize=8)
    sweeps["spread"].draw(right, "variance of ε$_a$")
    right.set_ylim(1e-5, 2)
    middle.set_ylim(3e-3, 2)
    return figure
