"""Score modules that several variants use, alone or mixed: by content, from content to places, by places alone.

What a score module is stands in `scored`. Legend: B batch, T new positions, S all positions so far, D width, H heads,
K = D/H, ℓ longest sequence, b texts and n rows a tile.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.attention.heads import check_heads, remember, split_heads
from birthplace_lm.attention.scored import Scores
from birthplace_lm.attention.terms import Terms
from birthplace_lm.positions import Positions


class QueryKeyScores(Scores):
    """(XQ)(XK)ᵀ/√K and the positions' rotation and bias: by content (Vaswani et al. 2017, equation 1)."""

    def __init__(self, d_model: int, n_heads: int, positions: Positions):
        super().__init__()
        self.scale = check_heads(d_model, n_heads) ** -0.5
        self.n_heads, self.positions = n_heads, positions
        self.query_key = nn.Linear(d_model, 2 * d_model)

    def terms(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Terms:
        """Scaled queries, all keys so far, both turned by their positions, and these positions' bias."""
        q, k = (split_heads(part, self.n_heads) for part in self.query_key(x).chunk(2, dim=-1))  # (B, H, T, K)
        k = remember(cache, "k", self.positions.rotate(k, offset))  # (B, H, S, K)
        q = self.positions.rotate(q, offset) * self.scale
        return Terms(q, k, table=self.positions.score_bias(q.shape[2], k.shape[2], x.device))


class DenseScores(Scores):
    """ReLU(XA + b₁)B + b₂: from position i's own content alone (Tay et al. 2020, section 3.1).

    A is a head's own, B and b₂ are shared by all heads. B ~ U(±0.001): every place begins with the same weight.
    """

    def __init__(self, d_model: int, n_heads: int, max_length: int):
        super().__init__()
        width = check_heads(d_model, n_heads)
        self.n_heads = n_heads
        self.hidden = nn.Linear(d_model, d_model)  # A and b₁ of all heads side by side
        self.places = nn.Parameter(torch.empty(width, max_length).uniform_(-0.001, 0.001))  # B
        self.places_bias = nn.Parameter(torch.zeros(max_length))  # b₂

    def terms(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Terms:
        """The hidden units are the query, a column of B is the key of a place and its number of b₂ the key's bias."""
        hidden = split_heads(F.relu(self.hidden(x)), self.n_heads)  # (B, H, T, K)
        length = offset + x.shape[1]
        return Terms(hidden, self.places[:, :length].mT[None, None], self.places_bias[:length])


class RandomScores(Scores):
    """R, a trained table (H, ℓ, ℓ): from the two places alone, whatever stands there (Tay et al. 2020, section 3.2).

    R ~ N(0, 0.02), so that it begins close to the average over all that is allowed.
    """

    def __init__(self, n_heads: int, max_length: int):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(n_heads, max_length, max_length))

    def terms(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Terms:
        return Terms(table=self.table, first_row=offset)


class MixtureScores(Scores):
    """Σ α_n S_n with α = softmax of learned scalars, equal at the start (Tay et al. 2020, section 3.3).

    Of parts that have terms: the sum of products is one product, of the factors side by side.
    """

    def __init__(self, parts: Sequence[Scores]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.mix = nn.Parameter(torch.zeros(len(parts)))

    @property
    def alpha(self) -> Tensor:
        """How much each part counts: (parts,), sums to 1."""
        return self.mix.softmax(dim=0)

    def terms(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Terms:
        parts = [part.terms(x, offset, cache) for part in self.parts if isinstance(part, Scores)]
        pairs = list(zip(self.alpha, parts, strict=True))
        queries = [(a * part.q).expand(len(x), -1, -1, -1) for a, part in pairs if part.q is not None]
        heads = queries[0].shape[1] if queries else 0
        keys = [part.k.expand(len(x), heads, -1, -1) for part in parts if part.k is not None]
        q, k = (torch.cat(some, dim=-1) if some else None for some in (queries, keys))
        grids = [(a * part.outer, part.inner) for a, part in pairs if part.outer is not None]
        if len(grids) > 1:
            raise ValueError(f"{len(grids)} factorized dense parts in a mixture: the sum of two grids is none, use one")
        outer, inner = grids[0] if grids else (None, None)
        biases = [a * part.key_bias for a, part in pairs if part.key_bias is not None]
        key_bias = torch.stack(biases).sum(0) if biases else None
        tables = [(a, part) for a, part in pairs if part.table is not None]
        if len(tables) == 1 and tables[0][1].scale is None:
            a, part = tables[0]  # uncut, so that its gradient is made in one piece
            return Terms(q, k, key_bias, part.table, part.first_row, a, outer, inner)
        cuts = [(a, part.cut(x.shape[1], offset + x.shape[1])) for a, part in tables]
        added = [a * cut.to(a.dtype) for a, cut in cuts if cut is not None]  # (H, T, S) each
        return Terms(q, k, key_bias, torch.stack(added).sum(0) if added else None, outer=outer, inner=inner)
