"""Scaled dot-product attention: every position asks every earlier one by content."""

from birthplace_lm.attention.fused import FusedAttention
from birthplace_lm.positions import Positions


class VanillaAttention(FusedAttention):
    """softmax(QKᵀ/√K) V, a head at a time (Vaswani et al. 2017, arXiv 1706.03762, equation 1).

    Compares what stands at two positions, so one layer can look a thing up by its content. It cannot look at a place as
    such, the one before say, but by what positions add to the content or do to scores, and of two contents in turn
    (whose place stands behind this name?) it needs two layers for each step. Time O(T²D + TD²), memory O(TD) with a
    flash kernel and O(HT²) without, decode cache 2D numbers a position. With `qk_norm` queries and keys
    have norm √K times a learned gain before they are compared (Henry et al. 2020, arXiv 2010.04245), which keeps large
    learning rates stable.
    """

    def __init__(
        self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions, qk_norm: bool = False
    ):
        super().__init__(d_model, n_heads, n_heads, block_size, dropout, positions, qk_norm)
