"""The mixture R + D: two synthesizers, one that knows the asking position's content and one that knows its place."""

from birthplace_lm.attention.heads import check_no_scores_needed
from birthplace_lm.attention.scored import ScoredAttention
from birthplace_lm.attention.scores import DenseScores, MixtureScores, RandomScores
from birthplace_lm.positions import Positions


class RandomDenseAttention(ScoredAttention):
    """softmax(α₁R + α₂(ReLU(XA + b₁)B + b₂)) V, α = softmax of two scalars.

    The dense part scores places the same wherever it asks from; R adds what depends on where that is, such as "the
    place before". Neither compares contents. Time O(T²D + TD²), memory O(HT²), decode cache D numbers a position.
    Source: Tay et al. 2020, arXiv 2005.00743, section 3.3.
    """

    def __init__(self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions):
        dense = DenseScores(d_model, n_heads, block_size)
        check_no_scores_needed(positions, "a synthesizer")
        scores = MixtureScores((RandomScores(n_heads, block_size), dense))
        super().__init__(d_model, n_heads, block_size, dropout, scores)
