"""The mixture D + V: what a position wants by place, and what it wants by content."""

from birthplace_lm.attention.scored import ScoredAttention
from birthplace_lm.attention.scores import DenseScores, MixtureScores, QueryKeyScores
from birthplace_lm.positions import Positions


class DenseVanillaAttention(ScoredAttention):
    """softmax(α₁(ReLU(XA + b₁)B + b₂) + α₂QKᵀ/√K) V, α = softmax of two scalars.

    Can do what either part can, at most half as sharply at the start; one α serves all heads and positions, so that no
    head can be of one kind and the next of the other. Rotary and ALiBi act on the part that has queries and keys. Time
    O(T²D + TD²), memory O(HT²), decode cache 2D numbers a position.
    Source: Tay et al. 2020, arXiv 2005.00743, section 3.3.
    """

    def __init__(self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions):
        parts = DenseScores(d_model, n_heads, block_size), QueryKeyScores(d_model, n_heads, positions)
        super().__init__(d_model, n_heads, block_size, dropout, MixtureScores(parts))
