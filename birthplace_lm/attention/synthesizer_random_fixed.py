"""The fixed random synthesizer: attention weights are drawn once and never learned."""

import torch
from torch import Tensor

from birthplace_lm.attention.heads import check_heads, check_no_scores_needed
from birthplace_lm.attention.scored import ScoredAttention, Scores
from birthplace_lm.attention.terms import Terms
from birthplace_lm.positions import Positions


class FixedRandomScores(Scores):
    """R ~ N(0, std), (H, ℓ, ℓ), from a seed of its own: a buffer that moves with the model and is not in its state."""

    def __init__(self, n_heads: int, max_length: int, seed: int, std: float):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        table = std * torch.randn(n_heads, max_length, max_length, generator=draw)
        self.register_buffer("table", table, persistent=False)

    def terms(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Terms:
        return Terms(table=self.get_buffer("table"), first_row=offset)


class FixedRandomSynthesizerAttention(ScoredAttention):
    """softmax(R) V with R drawn from `seed` and kept (Tay et al. 2020, arXiv 2005.00743, section 3.2, "fixed").

    The control for all others: positions are mixed, and nothing about the mixing can be learned; only values and
    outputs adapt. R is computed from the seed whenever a model is built and is in no weights file, so that the
    configuration has to go with the weights, as it does in a run folder. A layer does not know its number, so all
    layers share one R, each head its own; with attention=hybrid each layer takes a seed. `std` says how far the weights
    are from an average: 0 is the average. Time O(T²D + TD²), memory O(HT²) once for the whole batch but for dropout,
    decode cache D numbers a position.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        block_size: int,
        dropout: float,
        positions: Positions,
        seed: int = 0,
        std: float = 1.0,
    ):
        check_heads(d_model, n_heads)
        check_no_scores_needed(positions, "a synthesizer")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed {seed}: use a whole number from 0 to {2**63 - 1:,}")
        if std < 0:
            raise ValueError(f"std {std} is no standard deviation: use 0 or more")
        super().__init__(d_model, n_heads, block_size, dropout, FixedRandomScores(n_heads, block_size, seed, std))
