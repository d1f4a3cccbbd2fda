"""The dense synthesizer: a position's attention weights are computed from that position alone."""

from birthplace_lm.attention.heads import check_no_scores_needed
from birthplace_lm.attention.scored import ScoredAttention
from birthplace_lm.attention.scores import DenseScores
from birthplace_lm.positions import Positions


class SynthesizerAttention(ScoredAttention):
    """softmax(ReLU(XA + b₁)B + b₂) V, with A a head's own and B, b₂ shared by all heads.

    The scores of position i are a function of x_i and of the place j, never of what stands at j: one layer can look up
    by position but not by content. B has block - 1 columns, so that is the longest sequence, as in the published
    program. Time O(T²D + TD²), memory O(HT²) or O(TD) fused, decode cache D numbers a position (values only).
    Source: Tay et al. 2020, arXiv 2005.00743, section 3.1.
    """

    def __init__(self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions):
        scores = DenseScores(d_model, n_heads, block_size - 1)
        check_no_scores_needed(positions, "a synthesizer")
        super().__init__(d_model, n_heads, block_size - 1, dropout, scores)
