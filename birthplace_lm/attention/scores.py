"""Ways to score positions, to be put into an attention alone or mixed.

A score module says how much position i wants of position j before the causal mask and the softmax:

    forward(x: (B, T, D), offset: int, cache: dict[str, Tensor] | None) -> (B or 1, H, T, S)

where the T rows of x stand at positions offset … offset + T - 1 and S = offset + T.

Legend: B batch, T new positions, S all positions so far, D width, H heads, K = D/H, ℓ longest sequence.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.attention.heads import (
    AttentionWeights,
    causal,
    check_heads,
    merge_heads,
    remember,
    seen_so_far,
    split_heads,
)
from birthplace_lm.positions import Positions


class ScoredAttention(nn.Module):
    """weights(scores(x)) V, with the weights as a matrix in memory: O(HT²) a row of the batch.

    `scores` is a score module; `weights` normalises what it says, by default with a softmax, and `head_norm` acts on
    every head's mixed values (B, H, T, K).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        max_length: int,
        dropout: float,
        scores: nn.Module,
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
        allowed = causal(x.shape[1], v.shape[2], x.device)  # (T, S)
        weights = self.weights(self.scores(x, offset, cache), allowed, len(x))  # (B, H, T, S)
        return self.output(merge_heads(self.head_norm(weights @ v)))  # (B, T, D)


class QueryKeyScores(nn.Module):
    """(XQ)(XK)ᵀ/√K and the positions' rotation and bias: by content (Vaswani et al. 2017, equation 1)."""

    def __init__(self, d_model: int, n_heads: int, positions: Positions):
        super().__init__()
        self.scale = check_heads(d_model, n_heads) ** -0.5
        self.n_heads, self.positions = n_heads, positions
        self.query_key = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Tensor:
        q, k = (split_heads(part, self.n_heads) for part in self.query_key(x).chunk(2, dim=-1))  # (B, H, T, K)
        k = remember(cache, "k", self.positions.rotate(k, offset))  # (B, H, S, K)
        scores = self.positions.rotate(q, offset) * self.scale @ k.mT  # (B, H, T, S)
        bias = self.positions.score_bias(x.shape[1], k.shape[2], x.device)
        return scores if bias is None else scores + bias.to(scores.dtype)


class DenseScores(nn.Module):
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

    def forward(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Tensor:
        length = offset + x.shape[1]
        hidden = split_heads(F.relu(self.hidden(x)), self.n_heads)  # (B, H, T, K)
        return hidden @ self.places[:, :length] + self.places_bias[:length]  # (B, H, T, S)


class RandomScores(nn.Module):
    """R, a trained table (H, ℓ, ℓ): from the two places alone, whatever stands there (Tay et al. 2020, section 3.2).

    R ~ N(0, 0.02), so that it begins close to the average over all that is allowed.
    """

    def __init__(self, n_heads: int, max_length: int):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(n_heads, max_length, max_length))

    def forward(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Tensor:
        length = offset + x.shape[1]
        return self.table[None, :, offset:length, :length]  # (1, H, T, S)


class MixtureScores(nn.Module):
    """Σ α_n S_n with α = softmax of learned scalars, equal at the start (Tay et al. 2020, section 3.3)."""

    def __init__(self, parts: Sequence[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.mix = nn.Parameter(torch.zeros(len(parts)))

    @property
    def alpha(self) -> Tensor:
        """How much each part counts: (parts,), sums to 1."""
        return self.mix.softmax(dim=0)

    def forward(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Tensor:
        scores = [part(x, offset, cache) for part in self.parts]  # (B or 1, H, T, S) each
        mixed = scores[0] * self.alpha[0]
        for weight, part in zip(self.alpha[1:], scores[1:], strict=True):
            mixed = mixed + weight * part
        return mixed
