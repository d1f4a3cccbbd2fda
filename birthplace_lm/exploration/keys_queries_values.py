"""What the matrices K, Q and V are for: a layer of three tokens that cannot say u_b without them and can with them.

u_a … u_d are orthogonal with norm β; the tokens are x₁ = u_d + u_b, x₂ = u_a, x₃ = u_c + u_b. Weights α_1, α_2, α_3
are those of the position that asks.

**(i) k = q = v = x.** Position 2 scores 0, β² and 0, so c₂ - u_a = (x₁ + x₃ - 2u_a) / (e^β² + 2), an error of √10 β /
(e^β² + 2). Let x₂ = u_a + λu_d + μu_c for any real λ, μ; x₂ is query, key and value at once. The scores are λβ², (1 +
λ² + μ²)β² and μβ²: its own score leads by (1 + λ² - λ + μ²)β² >= ¾β² and (1 + μ² - μ + λ²)β² >= ¾β², whence α_2 >= 1
/ (1 + 2e^(-¾β²)). In c₂ - u_b both the coefficient of u_a and that of -u_b are α_2, and so

    ‖c₂ - u_b‖ >= √2 α_2 β >= √2 β / (1 + 2e^(-¾β²))     for all λ and μ, on a grid or not.

Even free weights would not do: over all convex combinations of x₁, x₂ = u_a, x₃ the least distance from u_b is √0.4
β, at (0.4, 0.2, 0.4). The values themselves have to change.

**(ii) V = (u_b u_bᵀ - u_c u_cᵀ)/β², K = I, Q = (u_d u_aᵀ + u_c u_dᵀ)/β².** Values are u_b, 0 and u_b - u_c; q₂ = u_d
scores β², 0, 0 and q₁ = u_c scores 0, 0, β². Therefore

    c₂ - u_b = -(u_b + u_c) / (e^β² + 2),               an error of √2 β / (e^β² + 2),
    c₁ - (u_b - u_c) = (2u_c - u_b) / (e^β² + 2),       an error of √5 β / (e^β² + 2).

**Rounding.** Scores are sums of D products of size up to 2β², so they and ln α are off by some D ε β² · 4, and c by
that times the size of the values, 2β: 8 D ε (1 + β²) β is allowed between the measured errors and the formulas.

Source: CS224N assignment 5 (Winter 2021), part 1(e).
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from birthplace_lm.exploration import Claim, Demonstration
from birthplace_lm.exploration.attending import EPSILON, Array, attend, orthonormal
from birthplace_lm.exploration.drawing import BLACK, BLUE, GREEN, ORANGE, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

D = 8  # width
NORMS = np.linspace(1, 5, 17)  # β
GRID_NORM = 3.0
MULTIPLES = np.linspace(-3, 3, 61)  # λ and μ


class Directions(NamedTuple):
    """Four orthogonal vectors (D,) of norm β."""

    a: Array
    b: Array
    c: Array
    d: Array


def tokens(u: Directions, of_d: float = 0.0, of_c: float = 0.0) -> Array:
    """x₁, x₂ and x₃ as rows (3, D), with multiples of u_d and u_c added to x₂."""
    return np.stack([u.d + u.b, u.a + of_d * u.d + of_c * u.c, u.c + u.b])


def matrices(u: Directions, beta: float) -> tuple[Array, Array, Array]:
    """Q, K and V of (ii): each (D, D)."""
    query = (np.outer(u.d, u.a) + np.outer(u.c, u.d)) / beta**2
    value = (np.outer(u.b, u.b) - np.outer(u.c, u.c)) / beta**2
    return query, np.eye(D), value


def layer(x: Array, query: Array, key: Array, value: Array) -> Array:
    """One attention head over all positions: x (3, D) -> c (3, D)."""
    return attend(x @ query.T, x @ key.T, x @ value.T)


def distances_over_grid(u: Directions) -> Array:
    """‖c₂ - u_b‖ with λu_d + μu_c added to x₂ and k = q = v = x: (λ, μ)."""
    plain = np.eye(D)
    outputs = [[layer(tokens(u, of_d, of_c), plain, plain, plain)[1] for of_c in MULTIPLES] for of_d in MULTIPLES]
    return np.linalg.norm(np.array(outputs) - u.b, axis=-1)


class Found(NamedTuple):
    """What was measured: the errors of c₂ ≈ u_a in (i), c₂ ≈ u_b and c₁ ≈ u_b - u_c in (ii), and the grid."""

    errors: Array  # (3, norms)
    grid: Array  # in units of β, (λ, μ)
    unscaled: tuple[float, float]  # errors of c₂ in (ii) without 1/β² in Q, and without it in V, in units of β


COEFFICIENTS = np.sqrt([10.0, 2.0, 5.0])  # of β / (e^β² + 2) in the three errors


def measure(rng: np.random.Generator) -> Found:
    """All errors over β, and the grid at one β, along random directions."""
    axes = orthonormal(4, D, rng)
    errors = []
    for beta in NORMS:
        u = Directions(*(beta * axes))
        plain, built = layer(tokens(u), *[np.eye(D)] * 3), layer(tokens(u), *matrices(u, beta))
        errors.append([np.linalg.norm(e) for e in (plain[1] - u.a, built[1] - u.b, built[0] - (u.b - u.c))])
    u = Directions(*(GRID_NORM * axes))
    query, key, value = matrices(u, GRID_NORM)
    scaled = [(query * GRID_NORM**2, key, value), (query, key, value * GRID_NORM**2)]
    unscaled = [float(np.linalg.norm(layer(tokens(u), *three)[1] - u.b) / GRID_NORM) for three in scaled]
    return Found(np.array(errors).T, distances_over_grid(u) / GRID_NORM, (unscaled[0], unscaled[1]))


def expected_errors() -> Array:
    """The three errors by their formulas: (3, norms)."""
    return COEFFICIENTS[:, None] * NORMS / (np.exp(NORMS**2) + 2)


def demonstrate(seed: int = 0) -> Demonstration:
    """Both parts over β from 1 to 5, and multiples of u_d and u_c from -3 to 3 at β = 3."""
    found = measure(np.random.default_rng(seed))
    row, column = np.unravel_index(found.grid.argmin(), found.grid.shape)
    nearest = (float(MULTIPLES[row]), float(MULTIPLES[column]))
    return Demonstration(
        name="kqv",
        title="What the key, query and value matrices are for",
        construction="Three tokens x₁ = u_d + u_b, x₂ = u_a, x₃ = u_c + u_b of four orthogonal vectors of norm β in "
        f"{D} dimensions. First k = q = v = x, with multiples of u_d and u_c added to x₂; then the V, K = I and Q of "
        "the source.",
        proves="Without matrices position 2 finds itself, whatever is added to it; with a Q and a V of rank two it "
        "returns the one part of x₁ that was asked for, and position 1 a difference that stands in no token.",
        claims=_claims_of(found),
        figures=_figures(found, nearest),
        draw=lambda: _draw(found, nearest),
        notes=_notes(found, nearest),
    )


def _claims_of(found: Found) -> tuple[Claim, ...]:
    rounding = 8 * D * EPSILON * (1 + NORMS**2) * NORMS
    off = (np.abs(found.errors - expected_errors()) / rounding).max(axis=1)
    names = (
        "(i) c₂ is u_a: ‖c₂ - u_a‖ = √10 β/(e^β² + 2)",
        "(ii) c₂ is u_b: ‖c₂ - u_b‖ = √2 β/(e^β² + 2)",
        "(ii) c₁ is u_b - u_c: ‖c₁ - (u_b - u_c)‖ = √5 β/(e^β² + 2)",
    )
    limit = math.sqrt(2) / (1 + 2 * math.exp(-0.75 * GRID_NORM**2))
    return (
        *(
            Claim(f"{name}; largest departure in units of rounding", float(x), 1.0)
            for name, x in zip(names, off, strict=True)
        ),
        Claim(
            f"(i) no multiples of u_d and u_c bring c₂ to u_b: least ‖c₂ - u_b‖/β at β = {GRID_NORM:g}",
            float(found.grid.min()),
            limit,
            ">",
        ),
        Claim(
            "(ii) at β = 3 both outputs are theirs within √5 e^-β² β; larger error in units of β",
            float(found.errors[1:, NORMS == 3].max() / 3),
            math.sqrt(5) * math.exp(-9),
        ),
    )


def _figures(found: Found, nearest: tuple[float, float]) -> dict[str, Any]:
    names = ("plain_c2_from_ua", "built_c2_from_ub", "built_c1_from_ub_minus_uc")
    return {
        "norms": NORMS.tolist(),
        "errors": dict(zip(names, found.errors.tolist(), strict=True)),
        "grid": {
            "norm": GRID_NORM,
            "least_distance": float(found.grid.min()),
            "at_multiples_of_ud_and_uc": list(nearest),
        },
        "unscaled": {"query": found.unscaled[0], "value": found.unscaled[1]},
    }


def _notes(found: Found, nearest: tuple[float, float]) -> tuple[str, ...]:
    at = {beta: found.errors[1, int(np.flatnonzero(beta == NORMS)[0])] / beta for beta in (1.0, 2.0, 3.0)}
    return (
        "“β ≫ 1” is soon reached, as the scores grow with β²: ‖c₂ - u_b‖/β in (ii) is "
        + ", ".join(f"{error:.1e} at β = {beta:g}" for beta, error in at.items()) + ".",
        "The two factors 1/β² differ. Without the one in Q the scores are β⁴ and the error at β = 3 only shrinks, "
        f"to {found.unscaled[0]:.0e} β; without the one in V the output is β²u_b, off by {found.unscaled[1]:.0f} β.",
        f"The best one can do in (i) is to add nothing (least distance {found.grid.min():.3f} β at λ = "
        f"{nearest[0]:.1f}, μ = {nearest[1]:.1f}): the score of x₂ stays ahead of the others by ¾β² or more, and what "
        "is added comes out as its value as well. For no β whatever is the distance below √2/3 β = 0.471 β.",
        "No query could mend (i) either: c is a convex combination of the tokens, and none is nearer to u_b than "
        "√0.4 β = 0.632 β. A value matrix is needed to lose u_d.",
        "Q x₃ = 0, so position 3 looks at all three alike and returns (2u_b - u_c)/3; nothing was asked of it.",
    )  # fmt: skip


def _draw(found: Found, nearest: tuple[float, float]) -> "Figure":
    figure, (left, right) = panels("k = q = v = x: ‖c$_2$ − u$_b$‖ / β, β = 3", "error against β")
    left.grid(False)
    picture = left.pcolormesh(MULTIPLES, MULTIPLES, found.grid.T, cmap="cividis", shading="nearest", rasterized=True)
    contours = left.contour(
        MULTIPLES, MULTIPLES, found.grid.T, levels=[1.5, 2, 2.5, 3, 3.5, 4], colors="white", linewidths=0.7
    )
    left.clabel(contours, fontsize=7)
    left.plot(*nearest, "*", color="white", markersize=12, markeredgecolor=BLACK)
    left.annotate(f"least: {found.grid.min():.3f}", nearest, (0, -0.85), fontsize=8, color="white", ha="center")
    left.set(xlabel="multiple λ of u$_d$ added to x$_2$", ylabel="multiple μ of u$_c$ added to x$_2$", aspect="equal")
    figure.colorbar(picture, ax=left, label="0 would be u$_b$")
    labels = ("(i) c$_2$ from u$_a$", "(ii) c$_2$ from u$_b$", "(ii) c$_1$ from u$_b$ − u$_c$")
    for error, formula, label, colour, mark in zip(
        found.errors, expected_errors(), labels, (GREEN, BLUE, ORANGE), "s^o", strict=True
    ):
        right.semilogy(NORMS, formula / NORMS, color=colour, linewidth=0.8)
        right.semilogy(NORMS, error / NORMS, mark, color=colour, markersize=4, label=label)
    right.set(xlabel="norm β of the directions", ylabel="error / β (lines: the formulas)")
    right.legend(fontsize=8)
    return figure
