"""Additive attention: queries and keys are compared by a small network instead of a product."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from birthplace_lm.attention.heads import check_heads, remember, split_heads
from birthplace_lm.attention.scores import ScoredAttention, Scores
from birthplace_lm.positions import Positions


class AdditiveScores(Scores):
    """wᵀ tanh(q_i + k_j), `chunk` queries of one row of the batch at a time.

    What tanh leaves behind is computed again for the gradient, and so small a part of it stays near the processor.
    """

    def __init__(self, d_model: int, n_heads: int, positions: Positions, chunk: int):
        super().__init__()
        width = check_heads(d_model, n_heads)
        self.n_heads, self.positions, self.chunk = n_heads, positions, chunk
        self.query_key = nn.Linear(d_model, 2 * d_model)
        self.w = nn.Parameter(torch.empty(n_heads, 1, 1, width).uniform_(-(width**-0.5), width**-0.5))

    def by_rows(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, size: int) -> Iterator[Tensor]:
        q, k = (split_heads(part, self.n_heads) for part in self.query_key(x).chunk(2, dim=-1))  # (B, H, T, K)
        k = remember(cache, "k", k)  # (B, H, S, K)
        for part in q.split(size, dim=2):
            offset += part.shape[2]
            pairs = zip(part.unbind(), k[:, :, :offset].unbind(), strict=True)
            scores = torch.stack([self._row_of_the_batch(*pair) for pair in pairs])  # (B, H, n, offset)
            bias = self.positions.score_bias(part.shape[2], offset, x.device)
            yield scores if bias is None else scores + bias.to(scores.dtype)

    def _row_of_the_batch(self, q: Tensor, k: Tensor) -> Tensor:
        """(H, n, K) and (H, S, K) -> (H, n, S)."""
        chunks = [
            checkpoint(self._compare, part, k, use_reentrant=False, preserve_rng_state=False)
            for part in q.split(self.chunk, dim=1)
        ]
        return torch.cat(chunks, dim=1)

    def _compare(self, q: Tensor, k: Tensor) -> Tensor:
        bounded = (q[:, :, None, :] + k[:, None, :, :]).tanh()  # (H, chunk, S, K)
        return (bounded.flatten(1, 2) @ self.w[:, 0, 0, :, None]).view(bounded.shape[:3])  # (H, chunk, S)


class AdditiveAttention(ScoredAttention):
    """softmax(wᵀ tanh(q_i + k_j)) V, w a head's own (Bahdanau et al. 2014, arXiv 1409.0473, appendix A.1.2).

    Compares by content like vanilla, but bounded: a score lies within ±‖w‖₁, so attention can only become as sharp as w
    lets it, and queries cannot turn it up by growing. Time O(T²D + TD²) of slow tanh instead of fast products; memory
    O(HT²) and, once for the whole batch, O(cTD) with c = `chunk` queries at a time; decode cache 2D numbers a position.
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
