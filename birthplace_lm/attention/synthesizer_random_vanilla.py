"""The mixture R + V: where things usually stand, and what stands there."""

from birthplace_lm.attention.heads import check_heads
from birthplace_lm.attention.scored import ScoredAttention
from birthplace_lm.attention.scores import MixtureScores, QueryKeyScores, RandomScores
from birthplace_lm.positions import Positions


class RandomVanillaAttention(ScoredAttention):
    """softmax(α₁R + α₂QKᵀ/√K) V, α = softmax of two scalars (Tay et al. 2020, arXiv 2005.00743, section 3.3).

    Looks up by content as vanilla does, with a learned habit for every pair of places on top, much like a bias for
    positions; the habit is the same whatever stands there, and one α serves all heads. Rotary and ALiBi act on the part
    that has queries and keys. Hℓ² + 2 parameters more than vanilla. Time O(T²D + TD²), memory O(HT²), decode cache
    2D numbers a position.
    """

    def __init__(self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions):
        check_heads(d_model, n_heads)
        parts = RandomScores(n_heads, block_size), QueryKeyScores(d_model, n_heads, positions)
        super().__init__(d_model, n_heads, block_size, dropout, MixtureScores(parts))
