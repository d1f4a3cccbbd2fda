"""Ways to score positions, to be put into an attention alone or mixed.

A score module says how much position i wants of position j before the causal mask and the softmax:

    forward(x: (B, T, D), offset: int, cache: dict[str, Tensor] | None) -> (B or 1, H, T, S)
    by_rows(x, offset, cache, size) -> the same in blocks of `size` rows, each as wide as its last row may see
    factors(x, offset, cache) -> (q, k, bias) with scores q·k + bias, where `factorized` says that there are such

where the T rows of x stand at positions offset … offset + T - 1 and S = offset + T. Blocks leave most of the future
uncomputed, and memory that is small is used again and again instead of being asked for; factors of several parts of a
mixture become one product.

Legend: B batch, T new positions, S all positions so far, D width, H heads, K = D/H, ℓ longest sequence, n rows a
block.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.attention.heads import (
    AttentionWeights,
    causal,
    check_heads,
    listened_to,
    merge_heads,
    remember,
    seen_so_far,
    split_heads,
)
from birthplace_lm.positions import Positions

Factors = tuple[Tensor, Tensor, Tensor | None]  # q (B, H, T, M), k (B, H, S, M), bias (H, T, S) or None
ROWS_AT_ONCE = 128  # asking positions in a block: the reference T; larger matrices cost more in memory than in sums


class Scores(nn.Module):
    """What a score module has to bring: its blocks; its factors if it has any."""

    factorized = False

    def forward(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Tensor:
        """All rows at once: (B or 1, H, T, S)."""
        return next(self.by_rows(x, offset, cache, x.shape[1]))

    def by_rows(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, size: int) -> Iterator[Tensor]:
        """Rows by `size`: (B or 1, H, n, offset + rows so far)."""
        raise NotImplementedError

    def factors(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Factors:
        """The products behind `by_rows`. Either this or `by_rows` is called, not both: both write to the cache."""
        raise NotImplementedError


class ScoredAttention(nn.Module):
    """weights(scores(x)) V, with the weights as a matrix in memory, computed by blocks of rows: O(HT²) for a text.

    `scores` is a score module; `weights` normalises what it says, by default with a softmax, and `head_norm` acts on
    every head's mixed values (B, H, T, K). Somebody who listens to `weights` gets them in one piece.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        max_length: int,
        dropout: float,
        scores: Scores,
        weights: AttentionWeights | None = None,
        head_norm: nn.Module | None = None,
    ):
        super().__init__()
        self.n_heads, self.max_length = n_heads, max_length
        self.scores = scores
        self.weights = weights or AttentionWeights(dropout)
        self.head_norm = head_norm or nn.Identity()
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        offset = seen_so_far(cache, "v")
        v = remember(cache, "v", split_heads(self.value(x), self.n_heads))  # (B, H, S, K)
        size = x.shape[1] if listened_to(self.weights) else ROWS_AT_ONCE
        mixed = []
        for scores in self.scores.by_rows(x, offset, cache, size):
            rows, end = scores.shape[-2:]
            weights = self.weights(scores, causal(rows, end, x.device), len(x))  # (B, H, n, end)
            mixed.append(_mixed(weights, v[:, :, :end]))
        together = torch.cat(mixed, dim=2) if len(mixed) > 1 else mixed[0]  # (B, H, T, K)
        return self.output(merge_heads(self.head_norm(together)))  # (B, T, D)


def _mixed(weights: Tensor, v: Tensor) -> Tensor:
    """Weights (B, H, n, S) times values (B, H, S, K); one table for all rows of the batch is multiplied once."""
    if len(v) == 1 or weights.stride(0) != 0:
        return weights @ v
    rows_beside_each_other = v.permute(1, 2, 0, 3).flatten(2)  # (H, S, B·K)
    return (weights[0] @ rows_beside_each_other).unflatten(2, (len(v), -1)).permute(2, 0, 1, 3)  # (B, H, n, K)


class QueryKeyScores(Scores):
    """(XQ)(XK)ᵀ/√K and the positions' rotation and bias: by content (Vaswani et al. 2017, equation 1)."""

    factorized = True

    def __init__(self, d_model: int, n_heads: int, positions: Positions):
        super().__init__()
        self.scale = check_heads(d_model, n_heads) ** -0.5
        self.n_heads, self.positions = n_heads, positions
        self.query_key = nn.Linear(d_model, 2 * d_model)

    def by_rows(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, size: int) -> Iterator[Tensor]:
        return _products(*self.factors(x, offset, cache), size)

    def factors(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Factors:
        """Scaled queries, all keys so far, both turned by their positions, and these positions' bias."""
        q, k = (split_heads(part, self.n_heads) for part in self.query_key(x).chunk(2, dim=-1))  # (B, H, T, K)
        k = remember(cache, "k", self.positions.rotate(k, offset))  # (B, H, S, K)
        q = self.positions.rotate(q, offset) * self.scale
        return q, k, self.positions.score_bias(q.shape[2], k.shape[2], x.device)


class DenseScores(Scores):
    """ReLU(XA + b₁)B + b₂: from position i's own content alone (Tay et al. 2020, section 3.1).

    A is a head's own, B and b₂ are shared by all heads. B ~ U(±0.001): every place begins with the same weight.
    """

    factorized = True

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        width = check_heads(d_model, n_heads)
        self.n_heads = n_heads
        self.hidden = nn.Linear(d_model, d_model)  # A and b₁ of all heads side by side
        self.places = nn.Parameter(torch.empty(width, max_length).uniform_(-0.001, 0.001))  # B
        self.places_bias = nn.Parameter(torch.zeros(max_length))  # b₂

    def by_rows(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, size: int) -> Iterator[Tensor]:
        hidden = split_heads(F.relu(self.hidden(x)), self.n_heads)  # (B, H, T, K)
        for part in hidden.split(size, dim=2):
            offset += part.shape[2]
            yield part @ self.places[:, :offset] + self.places_bias[:offset]  # (B, H, n, offset)

    def factors(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Factors:
        """The hidden units beside a 1 are the query, a column of B above its number of b₂ is the key of a place."""
        hidden = split_heads(F.relu(self.hidden(x)), self.n_heads)  # (B, H, T, K)
        length = offset + x.shape[1]
        keys = torch.cat((self.places[:, :length].mT, self.places_bias[:length, None]), dim=1)  # (S, K + 1)
        return F.pad(hidden, (0, 1), value=1.0), keys.expand(*hidden.shape[:2], -1, -1), None


class RandomScores(Scores):
    """R, a trained table (H, ℓ, ℓ): from the two places alone, whatever stands there (Tay et al. 2020, section 3.2).

    R ~ N(0, 0.02), so that it begins close to the average over all that is allowed.
    """

    def __init__(self, n_heads: int, max_length: int):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(n_heads, max_length, max_length))

    def by_rows(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, size: int) -> Iterator[Tensor]:
        return rows_of(self.table, offset, x.shape[1], size)


def rows_of(table: Tensor, offset: int, n_new: int, size: int) -> Iterator[Tensor]:
    """The blocks of a table (H, ℓ, ℓ) for n_new rows from `offset` on: (1, H, n, offset + rows so far) each."""
    for part in table[:, offset : offset + n_new].split(size, dim=1):
        offset += part.shape[1]
        yield part[None, :, :, :offset]


class MixtureScores(Scores):
    """Σ α_n S_n with α = softmax of learned scalars, equal at the start (Tay et al. 2020, section 3.3)."""

    def __init__(self, parts: Sequence[Scores]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.mix = nn.Parameter(torch.zeros(len(parts)))
        self.factorized = all(part.factorized for part in parts)

    @property
    def alpha(self) -> Tensor:
        """How much each part counts: (parts,), sums to 1."""
        return self.mix.softmax(dim=0)

    def by_rows(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, size: int) -> Iterator[Tensor]:
        """The parts that are products as one product, so that a large block is gone through once for all of them."""
        blocks: list[Iterator[Tensor]] = [
            map(a.mul, part.by_rows(x, offset, cache, size)) for a, part in self._weighted(factorized=False)
        ]
        if self._weighted(factorized=True):
            blocks.append(_products(*self.factors(x, offset, cache), size))
        for first, *others in zip(*blocks, strict=True):
            yield sum(others, start=first)  # (B or 1, H, n, offset + rows so far)

    def factors(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Factors:
        """The factors of those parts that have some side by side, the queries times α."""
        weighted = [(a, part.factors(x, offset, cache)) for a, part in self._weighted(factorized=True)]
        biases = [a * bias.to(a.dtype) for a, (_, _, bias) in weighted if bias is not None]
        q = torch.cat([a * q for a, (q, _, _) in weighted], dim=-1)  # (B, H, T, sum of widths)
        return q, torch.cat([k for _, (_, k, _) in weighted], dim=-1), torch.stack(biases).sum(0) if biases else None

    def _weighted(self, factorized: bool) -> list[tuple[Tensor, Scores]]:
        """The parts that are products, or those that are not, each with its α."""
        pairs = zip(self.alpha, self.parts, strict=True)
        return [(a, part) for a, part in pairs if isinstance(part, Scores) and part.factorized == factorized]


def _products(q: Tensor, k: Tensor, bias: Tensor | None, size: int) -> Iterator[Tensor]:
    """q·k + bias by rows: (B, H, T, M), (B, H, S, M), (H, T, S) or None -> (B, H, n, offset + rows so far)."""
    end = k.shape[2] - q.shape[2]
    for begin in range(0, q.shape[2], size):
        part = q[:, :, begin : begin + size]
        end += part.shape[2]
        scores = part @ k[:, :, :end].mT  # (B, H, n, end)
        yield scores if bias is None else scores + bias[:, begin : begin + size, :end].to(scores.dtype)
