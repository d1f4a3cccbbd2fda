"""Score modules that several variants use, alone or mixed: by content, from content to places, by places alone.

What a score module is stands in `scored`. Legend: B batch, T new positions, S all positions so far, D width, H heads,
K = D/H, ℓ longest sequence, b texts and n rows a tile.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.attention.heads import check_heads, remember, split_heads
from birthplace_lm.attention.scored import Factors, Scores
from birthplace_lm.positions import Positions


class QueryKeyScores(Scores):
    """(XQ)(XK)ᵀ/√K and the positions' rotation and bias: by content (Vaswani et al. 2017, equation 1)."""

    factorized = True

    def __init__(self, d_model: int, n_heads: int, positions: Positions):
        super().__init__()
        self.scale = check_heads(d_model, n_heads) ** -0.5
        self.n_heads, self.positions = n_heads, positions
        self.query_key = nn.Linear(d_model, 2 * d_model)

    def tiles(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, texts: int, rows: int) -> Iterator[Tensor]:
        return _products(*self.factors(x, offset, cache), texts, rows)

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

    def tiles(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, texts: int, rows: int) -> Iterator[Tensor]:
        hidden = split_heads(F.relu(self.hidden(x)), self.n_heads)  # (B, H, T, K)
        for some in hidden.split(texts):
            end = offset
            for part in some.split(rows, dim=2):
                end += part.shape[2]
                yield part @ self.places[:, :end] + self.places_bias[:end]  # (b, H, n, end)

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

    shared = True

    def __init__(self, n_heads: int, max_length: int):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(n_heads, max_length, max_length))

    def tiles(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, texts: int, rows: int) -> Iterator[Tensor]:
        return tiles_of(self.table, x, offset, texts, rows)


def tiles_of(table: Tensor, x: Tensor, offset: int, texts: int, rows: int) -> Iterator[Tensor]:
    """The rows of a table (H, ℓ, ℓ) at x (B, T, D) from `offset` on: (1, H, n, offset + rows so far), for all texts."""
    parts = table[:, offset : offset + x.shape[1]].split(rows, dim=1)
    ends = accumulate((part.shape[1] for part in parts), initial=offset)
    blocks = [part[None, :, :, :end] for part, end in zip(parts, islice(ends, 1, None), strict=True)]
    for _ in range(0, len(x), texts):
        yield from blocks


class MixtureScores(Scores):
    """Σ α_n S_n with α = softmax of learned scalars, equal at the start (Tay et al. 2020, section 3.3)."""

    def __init__(self, parts: Sequence[Scores]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.mix = nn.Parameter(torch.zeros(len(parts)))
        self.factorized = all(part.factorized for part in parts)
        self.shared = all(part.shared for part in parts)

    @property
    def alpha(self) -> Tensor:
        """How much each part counts: (parts,), sums to 1."""
        return self.mix.softmax(dim=0)

    def tiles(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, texts: int, rows: int) -> Iterator[Tensor]:
        """The parts that are products as one product, so that a tile is gone through once for all of them."""
        each: list[Iterator[Tensor]] = [
            map(a.mul, part.tiles(x, offset, cache, texts, rows)) for a, part in self._weighted(factorized=False)
        ]
        if self._weighted(factorized=True):
            each.append(_products(*self.factors(x, offset, cache), texts, rows))
        for first, *others in zip(*each, strict=True):
            yield sum(others, start=first)  # (b or 1, H, n, offset + rows so far)

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


def _products(q: Tensor, k: Tensor, bias: Tensor | None, texts: int, rows: int) -> Iterator[Tensor]:
    """q·k + bias tile by tile: (B, H, T, M), (B, H, S, M), (H, T, S) or None -> (b, H, n, offset + rows so far)."""
    offset = k.shape[2] - q.shape[2]
    for some, keys in zip(q.split(texts), k.split(texts), strict=True):
        begin = 0
        for part in some.split(rows, dim=2):
            end = begin + part.shape[2]
            scores = part @ keys[:, :, : offset + end].mT  # (b, H, n, offset + end)
            yield scores if bias is None else scores + bias[:, begin:end, : offset + end].to(scores.dtype)
            begin = end
