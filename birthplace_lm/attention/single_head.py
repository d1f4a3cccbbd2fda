"""One head as wide as the model: what several heads are for is what this one lacks."""

from birthplace_lm.attention.fused import FusedAttention
from birthplace_lm.attention.heads import check_heads
from birthplace_lm.positions import Positions


class SingleHeadAttention(FusedAttention):
    """softmax(QKᵀ/√D) V (Vaswani et al. 2017, arXiv 1706.03762, equation 1; table 3, row A with h = 1).

    As many parameters as with H heads, but one distribution over positions a layer: it cannot fetch the name and the
    verb in the same layer and keep them apart; it can compare by all D coordinates at once. Time O(T²D + TD²), memory
    O(T²) or O(TD) fused, decode cache 2D numbers a position. `n_heads` is checked, as everywhere, and else not used.
    """

    def __init__(
        self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions, qk_norm: bool = False
    ):
        check_heads(d_model, n_heads)
        super().__init__(d_model, 1, 1, block_size, dropout, positions.for_heads(1), qk_norm)
