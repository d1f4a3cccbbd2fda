"""The factorized random synthesizer: the trained table of places is a product of two narrow ones."""

import torch
from torch import Tensor, nn

from birthplace_lm.attention.heads import check_heads, check_no_scores_needed
from birthplace_lm.attention.scored import ScoredAttention, Scores
from birthplace_lm.attention.terms import Terms
from birthplace_lm.positions import Positions


class FactorizedRandomScores(Scores):
    """R₁R₂ᵀ with trained R₁, R₂ (H, ℓ, k) ~ N(0, 0.1): not both near 0, where neither would learn."""

    def __init__(self, n_heads: int, max_length: int, rank: int):
        super().__init__()
        self.rows = nn.Parameter(0.1 * torch.randn(n_heads, max_length, rank))
        self.columns = nn.Parameter(0.1 * torch.randn(n_heads, max_length, rank))

    def terms(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Terms:
        length = offset + x.shape[1]
        return Terms(self.rows[None, :, offset:length], self.columns[None, :, :length])


class FactorizedRandomSynthesizerAttention(ScoredAttention):
    """softmax(R₁R₂ᵀ) V, R₁ and R₂ ∈ R^{ℓ×k} a head (Tay et al. 2020, arXiv 2005.00743, section 3.2.1; k = 8 there).

    Like the random synthesizer it looks for nothing, and of the tables only those of rank k: it averages over
    stretches well, but "the place right before" for every place needs rank close to ℓ. 2Hℓk parameters. Time
    O(T²(D + Hk) + TD²), memory O(HT²) once for the whole batch but for dropout, decode cache D numbers a position.
    """

    def __init__(
        self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions, rank: int = 8
    ):
        check_heads(d_model, n_heads)
        check_no_scores_needed(positions, "a synthesizer")
        if not 1 <= rank <= block_size:
            raise ValueError(f"rank {rank} of a table of {block_size} places: use 1 … {block_size}")
        super().__init__(d_model, n_heads, block_size, dropout, FactorizedRandomScores(n_heads, block_size, rank))
