"""Talking heads: scores are mixed across heads before the softmax, and weights after it."""

import torch
from torch import Tensor, nn

from birthplace_lm.attention.heads import AttentionWeights
from birthplace_lm.attention.scored import ScoredAttention
from birthplace_lm.attention.scores import QueryKeyScores
from birthplace_lm.positions import Positions


class TalkingWeights(AttentionWeights):
    """P_w · softmax(P_l · S), both (H, H) across heads, both the identity at the start: vanilla attention."""

    def __init__(self, n_heads: int, dropout: float):
        super().__init__(dropout)
        self.before = nn.Parameter(torch.eye(n_heads))  # P_l
        self.after = nn.Parameter(torch.eye(n_heads))  # P_w

    def normalised(self, scores: Tensor, mask: Tensor) -> Tensor:
        talked = torch.einsum("gh,bhts->bgts", self.before, scores)
        return torch.einsum("gh,bhts->bgts", self.after, super().normalised(talked, mask))


class TalkingHeadsAttention(ScoredAttention):
    """P_w softmax(P_l QKᵀ/√K) V with P_l, P_w ∈ R^{H×H} across heads (Shazeer et al. 2020, arXiv 2003.02436).

    A head's place to look is decided by all heads' queries and keys together, as if with width D instead of K, and what
    one head finds, others may use; weights may leave [0, 1]. ALiBi's slopes are mixed like the scores they are added
    to. 2H² parameters more than vanilla. Time O(T²(D + H²) + TD²), memory O(HT²) and never fused, decode cache 2D
    numbers a position.
    """

    def __init__(self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions):
        scores = QueryKeyScores(d_model, n_heads, positions)
        super().__init__(d_model, n_heads, block_size, dropout, scores, TalkingWeights(n_heads, dropout))
