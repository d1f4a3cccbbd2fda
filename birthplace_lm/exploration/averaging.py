"""One query can average two values, and a projection gets one of them back.

**The average.** With orthonormal keys and q = t (k_a + k_b) the scores are t, t and 0 for the others, so with n keys

    c - ½(v_a + v_b) = (n - 2) / (2e^t + n - 2) · (mean of the other values - ½(v_a + v_b)),

an error of at most (n - 2) / (2e^t + n - 2) · max_i ‖v_i - ½(v_a + v_b)‖. Its logarithm falls with t with a slope
that is -1 up to ½(n - 2) e^-t, and so does a least-squares line with the smallest t of its range.

**The projection.** Let v_a lie in the span of the orthonormal columns of A and v_b at right angles to it. M = AAᵀ
leaves v_a as it is and makes v_b zero: M(v_a + v_b) = v_a. What attention returns is the average and not the sum,
hence 2Mc = v_a; as ‖M‖ = 1, the error of 2Mc is at most twice that of c. Where every direction of the span of v_b
makes the angle θ with the one of v_a, ‖2M·½(v_a + v_b) - v_a‖ = ‖M v_b‖ = cos θ ‖v_b‖: the right angle is needed.

**Rounding.** AAᵀ(v_a + v_b) is two products with sums over D and m numbers, whose rounding is at most (D + m) ε
‖A‖_F² ‖v_a + v_b‖ with ‖A‖_F² = m; the columns of A are orthonormal up to about D m ε. Together: 2 m (D + m) ε (‖v_a‖
+ ‖v_b‖). In units of ‖v_b‖, for the angles, twice as much is allowed: v_a is there of the same size, and the other
columns are rounded as well.

Source: CS224N assignment 5 (Winter 2021), part 1(b) and the average of two that follows it.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from birthplace_lm.exploration import Claim, Demonstration
from birthplace_lm.exploration.attending import EPSILON, Array, attend, orthonormal
from birthplace_lm.exploration.drawing import BLACK, BLUE, GREEN, ORANGE, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTHS = np.linspace(0, 15, 31)  # t
STEEP_FROM = 6.0
N, D, M = 8, 24, 5  # keys, width, dimensions of each of the two spans
ANGLES = np.linspace(0, np.pi / 2, 19)


def query(key_a: Array, key_b: Array, t: float) -> Array:
    """q = t (k_a + k_b): (D,)."""
    return t * (key_a + key_b)


def projection(basis: Array) -> Array:
    """M = AAᵀ for orthonormal columns A (D, m): (D, D)."""
    return basis @ basis.T


def take_out(average: Array, matrix: Array) -> Array:
    """v_a from the average of v_a and v_b, 2Mc: (..., D) -> (..., D)."""
    return 2 * average @ matrix.T


def at_angle(basis: Array, perpendicular: Array, angle: float) -> Array:
    """Orthonormal columns that all make the same angle, in radians, with the span of `basis`: (D, m)."""
    return np.cos(angle) * basis + np.sin(angle) * perpendicular


def recovered_at(angle: float, basis: Array, other: Array, parts: tuple[Array, Array]) -> float:
    """‖2Mc - v_a‖ / ‖v_b‖ for the exact average of two values whose spans make the angle."""
    v_a, v_b = basis @ parts[0], at_angle(basis, other, angle) @ parts[1]
    return float(np.linalg.norm(take_out((v_a + v_b) / 2, projection(basis)) - v_a) / np.linalg.norm(v_b))


class Found(NamedTuple):
    """What was measured: errors over the lengths of the query, then what the projection leaves over the angles."""

    errors: Array  # ‖c - ½(v_a + v_b)‖, (lengths,)
    bounds: Array
    recovered: Array  # ‖2Mc - v_a‖, (lengths,)
    exact: float  # the same for the exact average
    without_two: float  # ‖Mc - v_a‖ / ‖v_a‖ for the exact average
    norms: float  # ‖v_a‖ + ‖v_b‖
    tilted: Array  # what stays of v_b, (angles,)

    def slope(self) -> float:
        """Of the logarithm of the errors over t, where it is steep."""
        steep = LENGTHS >= STEEP_FROM
        return float(np.polyfit(LENGTHS[steep], np.log(self.errors[steep]), 1)[0])


def measure(rng: np.random.Generator) -> Found:
    """The average of two of eight random values, v_a out of it, and spans that are not at right angles."""
    keys, values = orthonormal(N, D, rng), rng.standard_normal((N, D))
    basis_a, basis_b = np.split(orthonormal(2 * M, D, rng).T, 2, axis=1)
    parts = (rng.standard_normal(M), rng.standard_normal(M))
    values[0], values[1] = v_a, v_b = basis_a @ parts[0], basis_b @ parts[1]
    middle, matrix = (v_a + v_b) / 2, projection(basis_a)
    outputs = np.stack([attend(query(keys[0], keys[1], t), keys, values) for t in LENGTHS])  # (lengths, D)
    farthest = np.linalg.norm(values[2:] - middle, axis=-1).max()
    return Found(
        errors=np.linalg.norm(outputs - middle, axis=-1),
        bounds=(N - 2) / (2 * np.exp(LENGTHS) + N - 2) * farthest,
        recovered=np.linalg.norm(take_out(outputs, matrix) - v_a, axis=-1),
        exact=float(np.linalg.norm(take_out(middle, matrix) - v_a)),
        without_two=float(np.linalg.norm(matrix @ middle - v_a) / np.linalg.norm(v_a)),
        norms=float(np.linalg.norm(v_a) + np.linalg.norm(v_b)),
        tilted=np.array([recovered_at(angle, basis_a, basis_b, parts) for angle in ANGLES]),
    )


def claims_of(found: Found) -> tuple[Claim, ...]:
    """Bound, slope, projection of the exact average and of what attention returns, and the angle."""
    rounding = 2 * M * (D + M) * EPSILON
    steepness = (N - 2) / 2 * float(np.exp(-STEEP_FROM))
    share = float((found.errors / found.bounds).max())
    twice = float((found.recovered / (2 * found.bounds)).max())
    departure = float(np.abs(found.tilted - np.cos(ANGLES)).max())
    return (
        Claim("The error stays below its bound at every t: largest error in units of the bound", share, 1.0),
        Claim(
            f"Each further unit of t divides the error by e: |slope + 1| from t = {STEEP_FROM:g}",
            abs(found.slope() + 1),
            steepness,
        ),
        Claim("2AAᵀ takes v_a out of the exact average: ‖2Mc - v_a‖ is rounding", found.exact, rounding * found.norms),
        Claim("2AAᵀ takes v_a out of what attention returns: error in units of twice the bound of c", twice, 1.0),
        Claim("At an angle θ between the spans cos θ of v_b stays: largest departure", departure, 4 * rounding),
    )


def demonstrate(seed: int = 0) -> Demonstration:
    """The average of two of eight values, width 24, and v_a out of it; then spans that are not at right angles."""
    found = measure(np.random.default_rng(seed))
    return Demonstration(
        name="average",
        title="One query can average two values, and a projection separates them again",
        construction=f"{N} orthonormal keys in {D} dimensions, q = t(k_a + k_b); v_a and v_b drawn from two spans of "
        f"{M} dimensions each, at right angles. A holds an orthonormal basis of the span of v_a, and M = AAᵀ. "
        "On the right the span of v_b is tilted towards that of v_a.",
        proves="A query between two orthonormal keys returns the average of their values up to an error like e^-t, "
        "and if the values keep to spans at right angles a fixed matrix reads either of them from the average.",
        claims=claims_of(found),
        figures={
            "lengths": LENGTHS.tolist(),
            "errors": found.errors.tolist(),
            "bounds": found.bounds.tolist(),
            "recovered_errors": found.recovered.tolist(),
            "slope": found.slope(),
            "angles_degrees": np.degrees(ANGLES).tolist(),
            "left_of_v_b": found.tilted.tolist(),
        },
        draw=lambda: _draw(found),
        notes=(
            "The course projects the sum: Ms = v_a. Attention returns half of it, so M alone misses by "
            f"{found.without_two:.0%} of v_a, and the 2 belongs to M or to what follows.",
            f"The right angle is not for convenience: at 80° between the spans {np.cos(np.radians(80)):.0%} of v_b "
            f"stays in the reading, at 60° {np.cos(np.radians(60)):.0%}.",
        ),
    )


def _draw(found: Found) -> "Figure":
    figure, (left, right) = panels("the average, and v$_a$ taken out of it", "spans that are not at right angles")
    left.semilogy(LENGTHS, found.bounds, "--", color=BLACK, linewidth=1.2, label="bound of the average")
    left.semilogy(LENGTHS, found.errors, "o", color=BLUE, markersize=4, label="‖c − ½(v$_a$ + v$_b$)‖")
    left.semilogy(LENGTHS, found.recovered, "^", color=ORANGE, markersize=4, label="‖2AAᵀc − v$_a$‖")
    left.set(xlabel="length t of the query", ylabel="error")
    left.legend(fontsize=8)
    right.plot(np.degrees(ANGLES), np.cos(ANGLES), color=BLACK, linewidth=1, label="cos θ")
    right.plot(np.degrees(ANGLES), found.tilted, "o", color=GREEN, markersize=4, label="measured")
    right.set(xlabel="angle θ between the spans, degrees", ylabel="‖2AAᵀ·½(v$_a$ + v$_b$) − v$_a$‖ / ‖v$_b$‖")
    right.legend(fontsize=8)
    return figure
