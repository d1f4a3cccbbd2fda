"""Additive attention: queries and keys are compared by a small network instead of a product."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from birthplace_lm.attention.heads import check_heads, remember, split_heads
from birthplace_lm.attention.scores import ScoredAttention
from birthplace_lm.positions import Positions


class AdditiveScores(nn.Module):
    """wᵀ tanh(q_i + k_j), `chunk` queries at a time: what tanh leaves behind is computed again for the gradient."""

    def __init__(self, d_model: int, n_heads: int, positions: Positions, chunk: int):
        super().__init__()
        width = check_heads(d_model, n_heads)
        self.n_heads, self.positions, self.chunk = n_heads, positions, chunk
        self.query_key = nn.Linear(d_model, 2 * d_model)
        self.w = nn.Parameter(torch.empty(n_heads, 1, 1, width).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Tensor:
        q, k = (split_heads(part, self.n_heads) for part in self.query_key(x).chunk(2, dim=-1))  # (B, H, T, K)
        k = remember(cache, "k", k)  # (B, H, S, K)
        rows = [
            checkpoint(self._compare, part, k, use_reentrant=False, preserve_rng_state=False)
            for part in q.split(self.chunk, dim=2)
        ]
        scores = torch.cat(rows, dim=2)  # (B, H, T, S)
        bias = self.positions.score_bias(x.shape[1], k.shape[2], x.device)
        return scores if bias is None else scores + bias.to(scores.dtype)

    def _compare(self, q: Tensor, k: Tensor) -> Tensor:
        return (self.w * (q[..., :, None, :] + k[..., None, :, :]).tanh()).sum(dim=-1)  # (B, H, chunk, S)


class AdditiveAttention(ScoredAttention):
    """softmax(wᵀ tanh(q_i + k_j)) V, w a head's own (Bahdanau et al. 2014, arXiv 1409.0473, appendix A.1.2).

    Compares by content like vanilla, but bounded: a score lies within ±‖w‖₁, so attention can only become as sharp as w
    lets it, and queries cannot turn it up by growing. Time O(T²D + TD²) of slow tanh instead of fast products; memory
    O(HT² + cTD) with c = `chunk` queries at a time, the whole O(T²D) for c = T; decode cache 2D numbers a position.
    Rotary positions are refused: a sum of two turned vectors depends on where they stand, not on how far apart.
    """

    def __init__(
        self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions, chunk: int = 16
    ):
        if chunk < 1:
            raise ValueError(f"a chunk of {chunk} queries computes nothing: use 1 or more")
        scores = AdditiveScores(d_model, n_heads, positions, chunk)
        if positions.needs_products:
            raise ValueError(
                f"{type(positions).__name__} acts on dot products, and additive attention adds: "
                "use positions=learned or positions=alibi"
            )
        super().__init__(d_model, n_heads, block_size, dropout, scores)
