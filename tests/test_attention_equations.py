"""Every attention against a slow version of it, written from the equation in loops over plain numbers.

Legend: h a head, i the asking position, j the one that is looked at, k a coordinate.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from birthplace_lm.attention.additive import AdditiveAttention
from birthplace_lm.attention.differential import DifferentialAttention
from birthplace_lm.attention.grouped_query import GroupedQueryAttention
from birthplace_lm.attention.linear import LinearAttention
from birthplace_lm.attention.multi_query import MultiQueryAttention
from birthplace_lm.attention.perceiver import PerceiverAttention
from birthplace_lm.attention.single_head import SingleHeadAttention
from birthplace_lm.attention.sliding_window import SlidingWindowAttention
from birthplace_lm.attention.synthesizer import SynthesizerAttention
from birthplace_lm.attention.synthesizer_dense_vanilla import DenseVanillaAttention
from birthplace_lm.attention.synthesizer_factorized_dense import FactorizedDenseSynthesizerAttention
from birthplace_lm.attention.synthesizer_factorized_random import FactorizedRandomSynthesizerAttention
from birthplace_lm.attention.synthesizer_random import RandomSynthesizerAttention
from birthplace_lm.attention.synthesizer_random_dense import RandomDenseAttention
from birthplace_lm.attention.synthesizer_random_fixed import FixedRandomSynthesizerAttention
from birthplace_lm.attention.synthesizer_random_vanilla import RandomVanillaAttention
from birthplace_lm.attention.talking_heads import TalkingHeadsAttention
from birthplace_lm.attention.vanilla import VanillaAttention
from tests.helpers import PAIRS, VARIANTS, roughened, tiny

Rows = list[list[float]]
Score = Callable[[int, int, int], float]  # of (h, i, j)
LENGTH = 9


def linear(layer: nn.Linear, x: list[float]) -> list[float]:
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [dot(row, x) + b for row, b in zip(weight, bias, strict=True)]


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [e / sum(exponentials) for e in exponentials]


def weights_of(score: Score, heads: int) -> list[list[list[float]]]:
    """softmax over j = 0 … i, as weights[h][i][j]."""
    return [[softmax([score(h, i, j) for j in range(i + 1)]) for i in range(LENGTH)] for h in range(heads)]


def mixed(weights: list[list[list[float]]], values: Rows, width: int) -> Rows:
    """Σ_j weights[h][i][j] · values[j], where head h has the coordinates h·width … of the values."""
    return [
        [
            sum(head[i][j] * values[j][k] for j in range(i + 1))
            for h, head in enumerate(weights)
            for k in range(h * width, (h + 1) * width)
        ]
        for i in range(LENGTH)
    ]


def turned(vector: list[float], position: int, positions: str) -> list[float]:
    """Under rotary positions: pairs of coordinates as complex numbers, turned."""
    if positions != "rotary":
        return vector
    half = len(vector) // 2
    out = [0.0] * len(vector)
    for pair in range(half):
        angle = position * 10_000.0 ** (-2 * pair / len(vector))
        z = complex(vector[pair], vector[pair + half]) * complex(math.cos(angle), math.sin(angle))
        out[pair], out[pair + half] = z.real, z.imag
    return out


def sunk(h: int, heads: int, distance: int, positions: str) -> float:
    """Under ALiBi: what a score loses at that distance."""
    return 2 ** (-8 * (h + 1) / heads) * distance if positions == "alibi" else 0.0


def slice_of(row: list[float], number: int, width: int) -> list[float]:
    return row[number * width : (number + 1) * width]


def by_content(q: Rows, k: Rows, heads: int, groups: int, positions: str) -> Score:
    width = len(q[0]) // heads

    def score(h: int, i: int, j: int) -> float:
        query = turned(slice_of(q[i], h, width), i, positions)
        key = turned(slice_of(k[j], h * groups // heads, width), j, positions)
        return dot(query, key) / math.sqrt(width) - sunk(h, heads, i - j, positions)

    return score


# ------------------------------------------------------------------------------------------------ scores of the modules


def query_key(scores: Any, x: Rows, positions: str) -> Score:
    d = len(x[0])
    both = [linear(scores.query_key, row) for row in x]
    return by_content([row[:d] for row in both], [row[d:] for row in both], scores.n_heads, scores.n_heads, positions)


def dense(scores: Any, x: Rows, positions: str) -> Score:
    """ReLU(xA + b₁)B + b₂."""
    table, bias = scores.places.tolist(), scores.places_bias.tolist()
    width = len(table)
    hidden = [[max(value, 0.0) for value in linear(scores.hidden, row)] for row in x]
    return lambda h, i, j: sum(hidden[i][h * width + k] * table[k][j] for k in range(width)) + bias[j]


def table(scores: Any, x: Rows, positions: str) -> Score:
    """R."""
    entries = scores.table.tolist()
    return lambda h, i, j: entries[h][i][j]


def low_rank(scores: Any, x: Rows, positions: str) -> Score:
    """R₁R₂ᵀ."""
    rows, columns = scores.rows.tolist(), scores.columns.tolist()
    return lambda h, i, j: dot(rows[h][i], columns[h][j])


def tiled(scores: Any, x: Rows, positions: str) -> Score:
    """H_A(F_A x) ∗ H_B(F_B x), tiled as lists are: aaabbb… and abcabc…."""
    heads = scores.n_heads
    a, b = scores.blocks.out_features // heads, scores.within.out_features // heads
    blocks, within = ([linear(layer, row) for row in x] for layer in (scores.blocks, scores.within))

    def score(h: int, i: int, j: int) -> float:
        first = [number for number in slice_of(blocks[i], h, a) for _ in range(b)]
        second = slice_of(within[i], h, b) * a
        return first[j] * second[j]

    return score


def additive(scores: Any, x: Rows, positions: str) -> Score:
    """wᵀ tanh(q_i + k_j)."""
    d, heads = len(x[0]), scores.n_heads
    w, both = scores.w.flatten(1).tolist(), [linear(scores.query_key, row) for row in x]

    def score(h: int, i: int, j: int) -> float:
        q, k = slice_of(both[i][:d], h, d // heads), slice_of(both[j][d:], h, d // heads)
        bounded = [math.tanh(a + b) for a, b in zip(q, k, strict=True)]
        return dot(w[h], bounded) - sunk(h, heads, i - j, positions)

    return score


def mixture(*parts: Callable[[Any, Rows, str], Score]) -> Callable[[Any, Rows, str], Score]:
    """Σ α_n S_n."""

    def build(scores: Any, x: Rows, positions: str) -> Score:
        alpha = softmax(scores.mix.tolist())
        built = [part(module, x, positions) for part, module in zip(parts, scores.parts, strict=True)]
        return lambda h, i, j: sum(a * score(h, i, j) for a, score in zip(alpha, built, strict=True))

    return build


# ------------------------------------------------------------------------------------------------------- whole variants

Slow = Callable[[Any, Rows, str], Rows]


def scored(score: Callable[[Any, Rows, str], Score]) -> Slow:
    """softmax(S) V and the output."""

    def slow(module: Any, x: Rows, positions: str) -> Rows:
        weights = weights_of(score(module.scores, x, positions), module.n_heads)
        values = [linear(module.value, row) for row in x]
        return [linear(module.output, row) for row in mixed(weights, values, len(x[0]) // module.n_heads)]

    return slow


def normed(norm: Any, rows: Rows, width: int) -> Rows:
    """With QK-norm every head's slice divided by its root mean square, times the gain; else as it is."""
    if not isinstance(norm, torch.nn.RMSNorm):
        return rows
    gain = norm.weight.tolist()

    def slice_normed(part: list[float]) -> list[float]:
        return [g * value / math.sqrt(dot(part, part) / width) for g, value in zip(gain, part, strict=True)]

    return [[v for at in range(len(row) // width) for v in slice_normed(slice_of(row, at, width))] for row in rows]


def fused(groups_of: Callable[[Any], int], window_of: Callable[[Any], int] = lambda module: LENGTH) -> Slow:
    """softmax(QKᵀ/√K) V with a number of groups and a window; values are repeated for the heads of a group."""

    def slow(module: Any, x: Rows, positions: str) -> Rows:
        heads, groups, d = module.n_heads, groups_of(module), len(x[0])
        width = d // heads
        rows = [linear(module.query_key_value, row) for row in x]
        k = [row[d : d + groups * width] for row in rows]
        v = [row[d + groups * width :] for row in rows]
        q, k = normed(module.query_norm, [row[:d] for row in rows], width), normed(module.key_norm, k, width)
        inside = by_content(q, k, heads, groups, positions)
        weights = weights_of(lambda h, i, j: inside(h, i, j) if i - j < window_of(module) else -math.inf, heads)
        values = [
            [number for h in range(heads) for number in slice_of(row, h * groups // heads, width)] for row in v
        ]  # fmt: skip
        return [linear(module.output, row) for row in mixed(weights, values, width)]

    return slow


def slow_linear(module: LinearAttention, x: Rows, positions: str) -> Rows:
    """The quadratic form: every weight φ(q_i)·φ(k_j) by itself, divided by the sum of its row."""
    d, heads = len(x[0]), module.n_heads
    rows = [linear(module.query_key_value, row) for row in x]

    def features(row: list[float]) -> list[float]:
        return [value + 1 if value > 0 else math.exp(value) for value in row]

    weights: list[list[list[float]]] = [[] for _ in range(heads)]
    for h in range(heads):
        for i in range(LENGTH):
            query = features(slice_of(rows[i][:d], h, d // heads))
            products = [dot(query, features(slice_of(rows[j][d : 2 * d], h, d // heads))) for j in range(i + 1)]
            weights[h].append([product / (sum(products) + 1e-6) for product in products])
    return [linear(module.output, row) for row in mixed(weights, [row[2 * d :] for row in rows], d // heads)]


def slow_perceiver(module: Any, x: Rows, positions: str) -> Rows:
    """Every latent of every position by itself: its keys and values averaged, then a softmax over the latents."""
    d, heads = len(x[0]), module.n_heads
    width, latents = d // heads, module.write.out_features // heads
    rows = [linear(module.query_key_value, row) for row in x]
    wanted = [[math.exp(30 * math.tanh(value / 30)) for value in linear(module.write, row)] for row in x]
    weights: list[list[list[float]]] = [[] for _ in range(heads)]
    for h in range(heads):
        keys = [slice_of(row[d : 2 * d], h, width) for row in rows]
        phi = [slice_of(row, h, latents) for row in wanted]
        for i in range(LENGTH):
            shares = [[phi[j][m] / sum(phi[n][m] for n in range(i + 1)) for j in range(i + 1)] for m in range(latents)]
            latent_keys = [[sum(s * keys[j][c] for j, s in enumerate(share)) for c in range(width)] for share in shares]
            query = slice_of(rows[i][:d], h, width)
            read = softmax([dot(query, key) / math.sqrt(width) for key in latent_keys])
            weights[h].append([sum(read[m] * shares[m][j] for m in range(latents)) for j in range(i + 1)])
    return [linear(module.output, row) for row in mixed(weights, [row[2 * d :] for row in rows], width)]


def slow_differential(module: Any, x: Rows, positions: str) -> Rows:
    """(softmax(S₁) - λ softmax(S₂)) V, RMSNorm a head, times 1 - λ_init."""
    heads, width = module.n_heads, len(x[0]) // module.n_heads
    (q1,), (q2,) = module.weights.lambda_query.tolist()
    (k1,), (k2,) = module.weights.lambda_key.tolist()
    factor = math.exp(dot(q1, k1)) - math.exp(dot(q2, k2)) + module.weights.lambda_init
    maps = weights_of(query_key(module.scores, x, positions), 2 * heads)
    weights = [
        [[a - factor * b for a, b in zip(one, two, strict=True)] for one, two in zip(first, second, strict=True)]
        for first, second in zip(maps[::2], maps[1::2], strict=True)
    ]
    gain, out = module.head_norm.weight.tolist(), []
    for row in mixed(weights, [linear(module.value, row) for row in x], width):
        normed: list[float] = []
        for h in range(heads):
            head = slice_of(row, h, width)
            size = math.sqrt(dot(head, head) / width + 1e-5)
            normed += [g * v / size * (1 - module.weights.lambda_init) for g, v in zip(gain, head, strict=True)]
        out.append(linear(module.output, normed))
    return out


def slow_talking(module: Any, x: Rows, positions: str) -> Rows:
    """P_w softmax(P_l S) V."""
    heads, before, after = module.n_heads, module.weights.before.tolist(), module.weights.after.tolist()
    score = query_key(module.scores, x, positions)
    inner = weights_of(lambda h, i, j: sum(before[h][g] * score(g, i, j) for g in range(heads)), heads)
    weights = [
        [[sum(after[h][g] * inner[g][i][j] for g in range(heads)) for j in range(i + 1)] for i in range(LENGTH)]
        for h in range(heads)
    ]
    values = [linear(module.value, row) for row in x]
    return [linear(module.output, row) for row in mixed(weights, values, len(x[0]) // heads)]


SLOW: dict[type, Slow] = {
    VanillaAttention: fused(lambda module: module.n_heads),
    SingleHeadAttention: fused(lambda module: 1),
    MultiQueryAttention: fused(lambda module: 1),
    GroupedQueryAttention: fused(lambda module: 2),
    SlidingWindowAttention: fused(lambda module: module.n_heads, lambda module: module.window),
    SynthesizerAttention: scored(dense),
    RandomSynthesizerAttention: scored(table),
    FixedRandomSynthesizerAttention: scored(table),
    FactorizedRandomSynthesizerAttention: scored(low_rank),
    FactorizedDenseSynthesizerAttention: scored(tiled),
    RandomVanillaAttention: scored(mixture(table, query_key)),
    DenseVanillaAttention: scored(mixture(dense, query_key)),
    RandomDenseAttention: scored(mixture(table, dense)),
    AdditiveAttention: scored(additive),
    TalkingHeadsAttention: slow_talking,
    DifferentialAttention: slow_differential,
    LinearAttention: slow_linear,
    PerceiverAttention: slow_perceiver,
}
ACTS_ON_SCORES = {"rotary", "alibi"}
KINDS = [
    (attention, positions) for attention, positions in PAIRS if positions in ACTS_ON_SCORES or positions == "learned"
]


@pytest.mark.parametrize("attention", VARIANTS)
def test_every_layer_of_every_variant_has_a_slow_version(attention: str) -> None:
    without = {type(block.attention) for block in tiny(attention, positions="none", n_layers=3).blocks} - set(SLOW)
    assert not without, f"write a slow version of {without}"
    assert {positions for name, positions in KINDS if name == attention}, f"{attention} takes no position encoding"


@pytest.mark.parametrize("few", [0, LENGTH])  # up to so many positions go without torch's fused kernel
@pytest.mark.parametrize(("attention", "positions"), KINDS)
def test_it_is_its_equation(attention: str, positions: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthplace_lm.attention.fused._FEW", few)
    monkeypatch.setattr("birthplace_lm.attention.scored.LONG", few + 1)
    knobs: dict[str, int] = {
        "sliding_window": {"window": 4},
        "linear": {"chunk": 4},
        "perceiver": {"n_latents": 3, "chunk": 4},
        "additive": {"chunk": 4},
    }.get(attention, {})
    exact = 1e-6 if positions in ACTS_ON_SCORES else 1e-12  # angles and slopes are computed in float32
    for block in roughened(tiny(attention, positions, knobs=knobs)).double().eval().blocks:
        x = torch.randn(1, LENGTH, 16, dtype=torch.float64)
        expected = SLOW[type(block.attention)](block.attention, x[0].tolist(), positions)
        actual = block.attention(x)[0]
        torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=exact, atol=exact)
