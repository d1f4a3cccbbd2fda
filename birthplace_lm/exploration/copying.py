"""Attention can copy: a key whose score stands far enough above all others brings back its own value.

**The bound.** Let key j score at least g above every other. Each other weight is at most e^-g α_j, so

    1 - α_j <= (n - 1) / (n - 1 + e^g),    c - v_j = Σ_{i≠j} α_i (v_i - v_j),
    ‖c - v_j‖ <= (n - 1) / (n - 1 + e^g) · max_i ‖v_i - v_j‖ <= (n - 1) e^-g max_i ‖v_i - v_j‖.

**The slope.** With the others r_i below the best of them, the error is e^-g ‖Σ e^-r_i (v_i - v_j)‖ / (1 + e^-g Σ
e^-r_i): its logarithm falls with the slope -1 / (1 + e^-g R), R = Σ e^-r_i <= n - 1, which is -1 up to (n - 1) e^-g.
A line fitted by least squares averages the local slopes with weights that are not negative, so its slope keeps that
bound at the smallest g.

**Where it ends.** Not every key can be picked. A key midway between two others has e^s = √(e^s₁ e^s₂), at most the mean
of the two, so α_j <= (α_1 + α_2) / 2 and therefore α_j <= 1/3 whatever the query: no gap above 0 exists.

Source: CS224N assignment 5 (Winter 2021), part 1(a).
"""

from typing import TYPE_CHECKING

import numpy as np

from birthplace_lm.exploration import Claim, Demonstration
from birthplace_lm.exploration.attending import Array, attend, weights
from birthplace_lm.exploration.drawing import BLACK, BLUE, GREEN, ORANGE, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAPS = np.linspace(0, 15, 31)
KEYS = (3, 8, 64)  # n
TRIALS = 20
STEEP_FROM = 6.0  # the gap from which the slope is fitted


def query_for(keys: Array, scores: Array) -> Array:
    """A query under which the keys score as wished: (n, D) and (n,) -> (D,); linearly independent keys allow any."""
    return np.asarray(np.linalg.lstsq(keys, scores, rcond=None)[0], dtype=np.float64)


def middle_key(one: Array, other: Array) -> Array:
    """The key halfway between two others, which no query can pick: (D,) and (D,) -> (D,)."""
    return (one + other) / 2


def errors_over_gaps(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """‖c - v_0‖ in units of max ‖v_i - v_0‖ at every gap, and its bound: (gaps,) and (gaps,), for random keys."""
    keys, values = rng.standard_normal((n, 2 * n)), rng.standard_normal((n, 2 * n))
    below = np.concatenate([[0.0], rng.uniform(0, 3, n - 2)])  # the best of the others lies exactly the gap below
    queries = [query_for(keys, np.concatenate([[gap], -below])) for gap in GAPS]
    errors = [float(np.linalg.norm(attend(query, keys, values) - values[0])) for query in queries]
    farthest = np.linalg.norm(values - values[0], axis=-1).max()
    return np.array(errors) / farthest, (n - 1) / (n - 1 + np.exp(GAPS))


def weights_of_middle_key(rng: np.random.Generator, queries: int = 10_000, width: int = 8) -> Array:
    """The weight of a key midway between two others, under random queries of all lengths: (queries,)."""
    one, other = rng.standard_normal((2, width))
    keys = np.stack([middle_key(one, other), one, other])
    asked = rng.standard_normal((queries, width)) * np.exp(rng.uniform(-2, 5, (queries, 1)))
    return weights(asked, keys[None])[:, 0]


def demonstrate(seed: int = 0) -> Demonstration:
    """Copy with 3, 8 and 64 random keys at gaps up to 15; then a key that cannot be copied."""
    rng = np.random.default_rng(seed)
    runs = {n: [errors_over_gaps(n, rng) for _ in range(TRIALS)] for n in KEYS}
    middle = weights_of_middle_key(rng)
    claims = [
        Claim(
            "At every gap the error stays below (n-1)/(n-1+e^g) · max‖v_i - v_j‖: largest error in units of the bound",
            max(float((errors / bound).max()) for run in runs.values() for errors, bound in run),
            1.0,
        )
    ]
    steep = GAPS >= STEEP_FROM
    for n, run in runs.items():
        slopes = [np.polyfit(GAPS[steep], np.log(errors[steep]), 1)[0] for errors, _ in run]
        sentence = f"Each further unit of gap divides the error by e: |slope + 1| from gap {STEEP_FROM:g}, {n} keys"
        claims.append(Claim(sentence, float(np.abs(np.array(slopes) + 1).max()), (n - 1) * float(np.exp(-STEEP_FROM))))
    claims.append(Claim("No query gives a key midway between two others more than a third", float(middle.max()), 1 / 3))
    ten = int(np.flatnonzero(GAPS == 10)[0])
    return Demonstration(
        name="copy",
        title="Attention can copy",
        construction="n random keys and values; the query solves Kq = s, so that key j scores exactly g above the best "
        f"of the others. {TRIALS} draws for each of n = 3, 8 and 64. On the right one key lies midway between two "
        "others, and the query turns from one of them to the other.",
        proves="If one key scores g above all others, attention returns its value up to an error of (n-1)e^-g: copying "
        "needs a gap of some units above ln n, not infinity.",
        claims=tuple(claims),
        figures={
            "gaps": GAPS.tolist(),
            "errors": {str(n): np.median([errors for errors, _ in run], axis=0).tolist() for n, run in runs.items()},
            "bounds": {str(n): run[0][1].tolist() for n, run in runs.items()},
            "largest_weight_of_middle_key": float(middle.max()),
        },
        draw=lambda: _draw(runs),
        notes=(
            "“Much larger” depends on the number of keys: at a gap of 10 the median error is "
            + ", ".join(f"{np.median([errors[ten] for errors, _ in runs[n]]):.1e} with {n}" for n in KEYS)
            + " keys (in units of the farthest value's distance). The gap that an accuracy needs grows as ln(n-1).",
            "It is the geometry of the keys that decides who can be copied: over 10,000 queries the key midway "
            f"between two others got at most {middle.max():.4f} of the weight; the query that does best is the zero "
            "query.",
        ),
    )


def _draw(runs: dict[int, list[tuple[Array, Array]]]) -> "Figure":
    figure, (left, right) = panels("error against gap", "a key midway between two others")
    for (n, run), colour in zip(runs.items(), (BLUE, ORANGE, GREEN), strict=True):
        for errors, _ in run:
            left.semilogy(GAPS, errors, color=colour, alpha=0.25, linewidth=0.8)
        left.semilogy(GAPS, run[0][1], "--", color=colour, linewidth=1.4, label=f"bound, {n} keys (draws below it)")
    left.set(xlabel="gap g between the best score and the next", ylabel="‖c − v$_j$‖ / max ‖v$_i$ − v$_j$‖")
    left.legend(fontsize=8)
    score = np.linspace(-8, 8, 201)  # of one outer key; the other scores the negative, the middle one 0
    outer, inner = np.exp(np.abs(score)), np.ones_like(score)
    total = outer + inner + 1 / outer
    right.plot(score, inner / total, color=ORANGE)
    right.plot(score, outer / total, color=BLUE, linestyle="-.")
    right.text(1.9, 0.17, "the key in the middle", fontsize=9, color=ORANGE)
    right.text(2.3, 0.82, "the better outer key", fontsize=9, color=BLUE)
    right.axhline(1 / 3, color=BLACK, linestyle=":", linewidth=1)
    right.text(-7.8, 1 / 3 + 0.02, "1/3", fontsize=9)
    right.set(xlabel="score of one outer key (the other one: its negative)", ylabel="weight", ylim=(0, 1.02))
    return figure
