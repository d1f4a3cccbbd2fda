"""The factorized dense synthesizer: scores for ℓ places out of a + b numbers, with a·b at least ℓ."""

import math

from torch import Tensor, nn

from birthplace_lm.attention.heads import check_heads, check_no_scores_needed, split_heads
from birthplace_lm.attention.scored import ScoredAttention, Scores
from birthplace_lm.attention.terms import Terms
from birthplace_lm.positions import Positions


class FactorizedDenseScores(Scores):
    """F_A(x)[⌊j/b⌋] · F_B(x)[j mod b] for place j, with linear F_A: D -> a and F_B: D -> b a head."""

    def __init__(self, d_model: int, n_heads: int, a: int, b: int):
        super().__init__()
        self.n_heads = n_heads
        self.blocks = nn.Linear(d_model, n_heads * a)  # F_A of all heads side by side
        self.within = nn.Linear(d_model, n_heads * b)  # F_B

    def terms(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Terms:
        """The sides of the grid; nothing of former positions is needed."""
        return Terms(
            outer=split_heads(self.blocks(x), self.n_heads),  # (B, H, T, a)
            inner=split_heads(self.within(x), self.n_heads),  # (B, H, T, b)
        )


class FactorizedDenseSynthesizerAttention(ScoredAttention):
    """softmax(H_A(F_A X) ∗ H_B(F_B X)) V, H_A and H_B tiling to ℓ (Tay et al. 2020, arXiv 2005.00743, section 3.1.1).

    H_A repeats each of its a numbers b times in a row, H_B its b numbers a times over, so that each place has a pair of
    its own (tiled alike, as a = b, they would repeat every a places). Like the dense synthesizer it looks up by
    position and not by content; moreover it cannot point at one place without the others of its row and column of the
    a × b grid moving along. D(a + b) weights a head. `a` and `b` left at None are made close to √ℓ. Time
    O(T²D + TD² + TDH(a + b)), memory O(HT²), decode cache D numbers a position.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        block_size: int,
        dropout: float,
        positions: Positions,
        a: int | None = None,
        b: int | None = None,
    ):
        check_heads(d_model, n_heads)
        check_no_scores_needed(positions, "a synthesizer")
        if min(a or 1, b or 1) < 1 or 0 in (a, b):
            raise ValueError(f"factors a = {a} and b = {b}: use 1 or more, or null")
        a = a or math.ceil(block_size / (b or math.ceil(block_size**0.5)))
        b = b or math.ceil(block_size / a)
        if a * b < block_size:
            raise ValueError(f"a·b = {a}·{b} = {a * b} scores do not reach a block of {block_size}: raise a or b")
        super().__init__(d_model, n_heads, block_size, dropout, FactorizedDenseScores(d_model, n_heads, a, b))
