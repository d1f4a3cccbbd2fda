"""Differential attention: a second map of weights is subtracted from the first, and noise that both share cancels."""

import torch
from torch import Tensor, nn

from birthplace_lm.attention.heads import AttentionWeights, check_heads
from birthplace_lm.attention.scored import ScoredAttention, is_long, softmax_of
from birthplace_lm.attention.scores import QueryKeyScores
from birthplace_lm.positions import Positions
from birthplace_lm.rms_norm import RMSNorm


class DifferentialWeights(AttentionWeights):
    """softmax(S₁) - λ softmax(S₂), λ = exp(λ_q1·λ_k1) - exp(λ_q2·λ_k2) + λ_init: one λ a layer, learned as products."""

    def __init__(self, width: int, dropout: float, lambda_init: float):
        super().__init__(dropout)
        self.lambda_init = lambda_init
        self.lambda_query = nn.Parameter(0.1 * torch.randn(2, 1, width))
        self.lambda_key = nn.Parameter(0.1 * torch.randn(2, 1, width))

    @property
    def subtracted(self) -> Tensor:
        """λ, a scalar."""
        first, second = (self.lambda_query * self.lambda_key).sum(dim=(1, 2)).exp()
        return first - second + self.lambda_init

    def normalised(self, scores: Tensor, mask: Tensor) -> Tensor:
        first, second = super().normalised(scores, mask).unflatten(1, (-1, 2)).unbind(2)  # (B, H, T, S) each
        return first - self.subtracted * second


class ScaledNorm(RMSNorm):
    """Every head's values at root mean square (1 - λ_init) times a gain, as large as in vanilla at the start."""

    def __init__(self, width: int, scale: float):
        super().__init__(width, eps=1e-5)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.get_parameter("weight").dtype)) * self.scale


class DifferentialAttention(ScoredAttention):
    """(softmax(Q₁K₁ᵀ/√(K/2)) - λ softmax(Q₂K₂ᵀ/√(K/2))) V, then RMSNorm a head and a factor 1 - λ_init.

    Compares by content, twice and half as finely; weights may be negative and sum to 1 - λ, so a layer can weigh what
    is common to many places down to nothing, which a softmax cannot. The norm makes every head speak equally loudly,
    so none can abstain. Rotary turns each half by itself; under ALiBi each of the 2H maps has a slope of its own. The
    paper's λ_init grows with the layer, 0.8 - 0.6·exp(-0.3·(layer - 1)); a layer does not know its number, so it is a
    knob here. Time O(T²D + TD²) with twice vanilla's softmaxes, memory O(2HT²) or O(TD) fused, decode cache 2D numbers
    a position.
    Source: Ye et al. 2024, arXiv 2410.05258, equations 1 to 3.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        block_size: int,
        dropout: float,
        positions: Positions,
        lambda_init: float = 0.5,
    ):
        width = check_heads(d_model, n_heads)
        if width % 2:
            raise ValueError(f"a head's width is halved, so {width} = {d_model}/{n_heads} must be even: change n_heads")
        if not 0 <= lambda_init < 1:
            raise ValueError(f"lambda_init {lambda_init} is outside [0, 1): at 1 the two maps cancel in the sum")
        scores = QueryKeyScores(d_model, 2 * n_heads, positions.for_heads(2 * n_heads))
        weights = DifferentialWeights(width // 2, dropout, lambda_init)
        norm = ScaledNorm(width, 1 - lambda_init)
        super().__init__(d_model, n_heads, block_size, dropout, scores, weights, norm)

    def mixed(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, v: Tensor) -> Tensor:
        if not is_long(x.shape[1]) or not self.unseen(v.device):
            return super().mixed(x, offset, cache, v)
        terms = self.scores.terms(x, offset, cache)  # of 2H maps
        both = softmax_of(terms, v.repeat_interleave(2, dim=1), x.shape[1])  # (B, 2H, T, K)
        first, second = both.unflatten(1, (-1, 2)).unbind(2)  # (B, H, T, K) each
        return first - self.weights.subtracted * second
