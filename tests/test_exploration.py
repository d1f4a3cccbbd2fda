"""The attention demonstrations: their claims hold, wrong constructions break them, theory agrees with slow versions."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from birthplace_lm.exploration import Claim, averaging, copying, fragile, keys_queries_values, two_heads
from birthplace_lm.exploration.attending import (
    Array,
    attend,
    noisy_keys,
    normal_below,
    normal_nodes,
    orthonormal,
    weights,
)
from birthplace_lm.exploration.spread import expected_variance, lost, swings, variance_of

BY_HAND = (copying, averaging, fragile, two_heads, keys_queries_values)
matrices = keys_queries_values.matrices  # as it is, also while a test has put another one in its place


@pytest.mark.parametrize("seed", [0, 11])
@pytest.mark.parametrize("module", BY_HAND, ids=lambda module: module.__name__.split(".")[-1])
def test_what_is_claimed_holds(module: ModuleType, seed: int) -> None:
    demonstration = module.demonstrate(seed)
    assert len(demonstration.claims) >= 5
    assert not [claim for claim in demonstration.claims if not claim.holds]


def without_minus(u: keys_queries_values.Directions, beta: float) -> tuple[Array, Array, Array]:
    query, key, _ = matrices(u, beta)
    return query, key, (np.outer(u.b, u.b) + np.outer(u.c, u.c)) / beta**2


def value_unscaled(u: keys_queries_values.Directions, beta: float) -> tuple[Array, Array, Array]:
    query, key, value = matrices(u, beta)
    return query, key, value * beta**2


def query_transposed(u: keys_queries_values.Directions, beta: float) -> tuple[Array, Array, Array]:
    query, key, value = matrices(u, beta)
    return query.T, key, value


def tokens_with_b(u: keys_queries_values.Directions, of_d: float = 0.0, of_c: float = 0.0) -> Array:
    return np.stack([u.d + u.b, u.a + of_d * u.d + of_c * u.c + u.b, u.c + u.b])


WRONG: list[tuple[ModuleType, str, Callable[..., Any], tuple[str, ...]]] = [
    (copying, "query_for", lambda keys, scores: keys[0] / 99, ("error stays below", "64 keys")),  # no growing gap
    (copying, "query_for", lambda keys, scores: -np.linalg.lstsq(keys, scores, rcond=None)[0], ("error stays below",)),
    (copying, "middle_key", lambda one, other: one + other, ("midway",)),  # beyond the two others
    (averaging, "query", lambda a, b, t: a + b, ("error stays below", "unit of t", "what attention returns")),
    (averaging, "query", lambda a, b, t: t * a, ("error stays below", "what attention returns")),
    (averaging, "projection", lambda basis: basis[::-1] @ basis[::-1].T, ("exact average", "what attention returns")),
    (averaging, "take_out", lambda c, matrix: c @ matrix.T, ("exact average", "what attention returns", "angle")),
    (averaging, "at_angle", lambda basis, other, angle: other, ("angle",)),
    (fragile, "query", lambda a, b, t: a + b, ("k_a alone varies: c follows", "both keys vary: c follows", "leaves")),
    (fragile, "query", lambda a, b, t: t * a, ("Σ = αI", "k_a alone varies: c follows", "both keys vary: c follows")),
    (fragile, "closed_form", lambda a, b, t: 1 / (1 + np.exp((a - b) * t)), ("k_a alone varies: c follows",)),
    (fragile, "closed_form", lambda a, b, t: 1 / (1 + np.exp(-a * t)), ("both keys vary: c follows",)),
    (
        fragile,  # the half read as a standard deviation
        "large_variances",
        lambda a, b: np.array([0.25 * a, 0.25 * b, *[0.0] * (fragile.N - 2)]),
        ("is a variance", "k_a alone varies: the share", "both keys vary: the share", "outweigh"),
    ),
    (two_heads, "two_queries", two_heads.one_query, ("k_a alone varies, ε_a, ε_b > 0", "variance of two heads")),
    (two_heads, "two_queries", lambda a, b, t, _: (t * a, t * a), ("k_a alone varies, ε_a, ε_b > 0",)),
    (two_heads, "two_queries", lambda a, b, t, _: (a, b), ("k_a alone varies, ε_a, ε_b > 0",)),
    (two_heads, "two_queries", lambda a, b, t, u: (u * a, t * b), ("t₁ = 10, t₂ = 30, both",)),
    (two_heads, "one_query", two_heads.two_queries, ("variance of one head", "less than one", "one head returns v_b")),
    (two_heads, "one_query", lambda a, b, t, _: (t * (a + b),), ("one head returns v_b", "any t₂")),
    (keys_queries_values, "matrices", without_minus, ("c₁ is", "β = 3 both")),  # c₂ never meets u_c
    (keys_queries_values, "matrices", value_unscaled, ("c₁ is", "c₂ is u_b", "β = 3 both")),
    (keys_queries_values, "matrices", query_transposed, ("c₁ is", "c₂ is u_b", "β = 3 both")),
    (keys_queries_values, "tokens", tokens_with_b, ("no multiples",)),
]


@pytest.mark.parametrize(("module", "name", "instead", "broken"), WRONG)
def test_a_wrong_construction_breaks_its_claims(
    module: ModuleType, name: str, instead: Callable[..., Any], broken: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, instead)
    failed = [claim.sentence for claim in module.demonstrate(0).claims if not claim.holds]
    assert not [words for words in broken if not any(words in sentence for sentence in failed)], failed


def test_attention_is_that_of_torch() -> None:
    rng = np.random.default_rng(3)
    query, keys, values = rng.standard_normal((5, 7)), rng.standard_normal((9, 7)), rng.standard_normal((9, 4))
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(array)[None] for array in (query, keys, values)), scale=1.0
    )
    assert np.allclose(attend(query, keys, values), theirs[0].numpy(), rtol=0, atol=1e-14)
    assert np.allclose(weights(query * 1e4, keys).sum(-1), 1)  # large scores do not overflow


def test_keys_have_the_covariance_that_is_asked_for() -> None:
    rng = np.random.default_rng(4)
    means = orthonormal(3, 5, rng)
    assert np.allclose(means @ means.T, np.eye(3), atol=1e-14)
    keys = noisy_keys(means, 0.1, np.array([0.5, 0.0, 2.0]), 200_000, rng)
    for i, along in enumerate((0.5, 0.0, 2.0)):
        wanted = 0.1 * np.eye(5) + along * np.outer(means[i], means[i])
        assert np.allclose(keys[:, i].mean(0), means[i], atol=0.02)
        assert np.allclose(np.cov(keys[:, i].T), wanted, atol=0.03)
    assert abs(np.corrcoef(keys[:, 0] @ means[0], keys[:, 2] @ means[2])[0, 1]) < 0.01


def test_normal_probabilities_are_those_of_scipy() -> None:
    z = np.linspace(-9, 9, 37)
    assert np.allclose([normal_below(x) for x in z], stats.norm.cdf(z), rtol=1e-12)
    nodes, probability = normal_nodes(1.0, 0.5)
    assert float((np.tanh(5 * nodes) * probability).sum()) == pytest.approx(
        integrate.quad(lambda x: math.tanh(5 * x) * stats.norm.pdf(x, 1, math.sqrt(0.5)), -6, 8, limit=200)[0], abs=1e-9
    )


@pytest.mark.parametrize("t", [1.0, 10.0])
def test_the_variance_of_two_heads_is_that_of_adaptive_quadrature(t: float) -> None:
    def moment(power: int) -> float:
        def integrand(x: float) -> float:
            return (math.exp(t * x) / (math.exp(t * x) + 7)) ** power * float(stats.norm.pdf(x, 1, math.sqrt(0.5)))

        return integrate.quad(integrand, -5, 7, points=[0, 0.2, 0.5], limit=400)[0]

    wanted = (moment(2) - moment(1) ** 2) / 4 * 8 / 7
    assert expected_variance(2, (0.5, 0.0), (t, 3.0), 8) == pytest.approx(
        wanted, rel=1e-7
    )  # b steady: t₂ is nothing to it
    assert expected_variance(2, (0.5, 0.5), (t, t), 8) == pytest.approx(2 * wanted, rel=1e-7)


@pytest.mark.parametrize("t_b", [4.0, 6.0])
@pytest.mark.parametrize("variances", [(0.5, 0.0), (0.2, 0.7)])
def test_the_variance_of_one_head_is_that_of_a_plain_simulation(variances: tuple[float, float], t_b: float) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.normal(1, math.sqrt(variance), 100_000) for variance in variances)
    powers = np.stack([np.exp(4 * a), np.exp(t_b * b), *[np.ones(100_000)] * 6], axis=1)
    simulated, error = variance_of(powers / powers.sum(1, keepdims=True))  # weights are outputs for orthonormal values
    assert abs(simulated - expected_variance(1, variances, (4.0, t_b), 8)) < 5 * error


def test_how_often_both_keys_are_lost_is_what_a_simulation_counts() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(1, math.sqrt(0.5), (2, 1_000_000))
    counted = float((np.exp(10 * a) + np.exp(10 * b) < 6).mean())
    assert abs(lost(0.5, 10.0, 8) - counted) < 5 * math.sqrt(counted / 1e6)
    outside = float((np.abs((a - b) * 10) > math.log(9)).mean())
    assert abs(swings(0.5, 2, 10.0) - outside) < 5 * math.sqrt(outside * (1 - outside) / 1e6)


def test_how_often_a_positive_key_is_missed_is_what_a_simulation_counts() -> None:
    epsilon = np.random.default_rng(7).normal(1, math.sqrt(0.5), 1_000_000)
    weight = np.exp(10 * epsilon) / (np.exp(10 * epsilon) + 7)
    error = (1 - weight) / 2 * math.sqrt(8 / 7)
    counted = float(((epsilon > 0) & (error > 0.1)).mean())
    assert abs(two_heads.missed(10.0) - counted) < 5 * math.sqrt(counted / 1e6)


@settings(max_examples=60)
@given(scores=st.lists(st.floats(-30, 30), min_size=2, max_size=12), seed=st.integers(0, 99))
def test_copying_keeps_its_bound_for_any_scores(scores: list[float], seed: int) -> None:
    rng, n = np.random.default_rng(seed), len(scores)
    values, order = rng.standard_normal((n, 3)), np.sort(scores)[::-1]
    error = np.linalg.norm(attend(order, np.eye(n), values) - values[0])
    limit = (n - 1) / (n - 1 + math.exp(order[0] - order[1])) * np.linalg.norm(values - values[0], axis=1).max()
    assert error <= limit * (1 + 1e-9) + 1e-14


@settings(max_examples=100)
@given(of_d=st.floats(-9, 9), of_c=st.floats(-9, 9), beta=st.floats(0.1, 5), seed=st.integers(0, 99))
def test_no_multiples_at_any_norm_bring_c2_to_u_b(of_d: float, of_c: float, beta: float, seed: int) -> None:
    u = keys_queries_values.Directions(*(beta * orthonormal(4, 8, np.random.default_rng(seed))))
    plain = np.eye(8)
    c2 = keys_queries_values.layer(keys_queries_values.tokens(u, of_d, of_c), plain, plain, plain)[1]
    assert np.linalg.norm(c2 - u.b) >= math.sqrt(2) * beta / (1 + 2 * math.exp(-0.75 * beta**2)) * (1 - 1e-12)


def test_the_tokens_themselves_stay_away_from_u_b() -> None:
    u = keys_queries_values.Directions(*np.eye(4))
    tokens = keys_queries_values.tokens(u)
    simplex = {"type": "eq", "fun": lambda alpha: alpha.sum() - 1}
    best = optimize.minimize(
        lambda alpha: ((alpha @ tokens - u.b) ** 2).sum(), np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints=simplex
    )
    assert best.fun == pytest.approx(0.4, abs=1e-6)
    assert best.x == pytest.approx([0.4, 0.2, 0.4], abs=1e-3)


def test_a_claim_is_decided_by_its_number_alone() -> None:
    assert Claim("", 1.0, 2.0).holds and not Claim("", 2.0, 2.0).holds
    assert Claim("", 2.0, 1.0, ">").holds and not Claim("", 1.0, 1.0, ">").holds
    assert not Claim("", math.nan, 1.0).holds and not Claim("", math.nan, 1.0, ">").holds
