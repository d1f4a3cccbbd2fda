"""Grouped-query attention: keys and values are shared within groups of heads."""

from birthplace_lm.attention.fused import FusedAttention
from birthplace_lm.positions import Positions


class GroupedQueryAttention(FusedAttention):
    """softmax(Q_h K_gᵀ/√K) V_g, head h in group g = ⌊h·G/H⌋ (Ainslie et al. 2023, arXiv 2305.13245).

    Between vanilla (G = H) and multi-query (G = 1): looks up by content as these do, with H places to look at, but a
    layer moves at most GK numbers of a position, and heads of a group cannot read different ones. Time O(T²D + TD²),
    memory O(HT²) or O(TD) fused, decode cache 2GK = 2DG/H numbers a position.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        block_size: int,
        dropout: float,
        positions: Positions,
        n_groups: int = 2,
        qk_norm: bool = False,
    ):
        super().__init__(d_model, n_heads, n_groups, block_size, dropout, positions, qk_norm)
