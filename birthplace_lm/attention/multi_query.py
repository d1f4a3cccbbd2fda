"""Multi-query attention: every head has queries of its own, keys and values are one for all."""

from birthplace_lm.attention.fused import FusedAttention
from birthplace_lm.positions import Positions


class MultiQueryAttention(FusedAttention):
    """softmax(Q_h Kᵀ/√K) V with one K and one V for all heads h (Shazeer 2019, arXiv 1911.02150, section 3).

    Heads can still look at different places, but all of them read the same K numbers there, so a layer moves at most K
    numbers of a position instead of D. Time O(T²D + TD²), memory O(HT²) or O(TD) fused, decode cache 2K = 2D/H numbers
    a position, 2·D·(D - K) weights fewer than vanilla.
    """

    def __init__(
        self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions, qk_norm: bool = False
    ):
        super().__init__(d_model, n_heads, 1, block_size, dropout, positions, qk_norm)
