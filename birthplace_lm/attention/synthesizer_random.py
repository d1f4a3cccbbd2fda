"""The random synthesizer: attention weights are a trained table of places, the same for every text."""

from birthplace_lm.attention.heads import check_heads, check_no_scores_needed
from birthplace_lm.attention.scored import ScoredAttention
from birthplace_lm.attention.scores import RandomScores
from birthplace_lm.positions import Positions


class RandomSynthesizerAttention(ScoredAttention):
    """softmax(R) V with a trained R ∈ R^{ℓ×ℓ} a head, ℓ = block size (Tay et al. 2020, arXiv 2005.00743, section 3.2).

    A linear map over positions, so to speak a causal MLP-Mixer: it can copy from a fixed place or average over a
    stretch, and can look for nothing, neither by content nor by what the asking position holds. Hℓ² parameters. Time
    O(T²D + TD²), memory O(HT²) once for the whole batch but for dropout, decode cache D numbers a position.
    """

    def __init__(self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions):
        check_heads(d_model, n_heads)
        check_no_scores_needed(positions, "a synthesizer")
        super().__init__(d_model, n_heads, block_size, dropout, RandomScores(n_heads, block_size))
