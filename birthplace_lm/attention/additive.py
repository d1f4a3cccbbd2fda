"""Additive attention: queries and keys are compared by a small network instead of a product."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from birthplace_lm.attention.heads import check_heads, remember, split_heads
from birthplace_lm.attention.scored import ScoredAttention, Scores
from birthplace_lm.positions import Positions

LIMIT = 40.0  # tanh(±40) is ±1 in float64 too, and exp(2·40) is still a number in float32 and bfloat16, not in float16
NUMBERS_AT_ONCE = 2**18  # 1 MB of float32: what stays near the processor while several operations go through it


class Compared(torch.autograd.Function):
    """Σ_k w_k tanh(q_ik + k_jk) for all pairs of one head, a tile of them at a time, with its gradient written out.

    With r = 1/(1 + e^{2q} e^{2k}) it is tanh(q + k) = 1 - 2r and its derivative 4(r - r²): the exponentials are those
    of n queries and S keys, and a pair costs a product, a sum and a reciprocal, which a processor does many times
    faster than a tanh. Tiles are computed again for the gradient; nothing is computed behind a tile's last query.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, w: Tensor, chunk: int) -> Tensor:
        """(B, n, K), (B, S, K), (K,) -> (B, n, S), where query i stands at S - n + i; 0 where a tile ends sooner."""
        ctx.save_for_backward(q, k, w)
        ctx.chunk = chunk
        scores = q.new_zeros(len(q), q.shape[1], k.shape[1])
        e_q, e_k, one = (2 * q).exp(), (2 * k).exp(), q.new_ones(1)
        with torch.autocast(q.device.type, enabled=False):
            for rows, part, end in _tiles(q, k, chunk):
                r = _reciprocals(one, e_q[rows, part], e_k[rows, :end])  # (b, c, s, K)
                scores[rows, part, :end] = w.sum() - 2 * (r.flatten(0, 2) @ w).view(r.shape[:3])
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """From the gradient of the scores, (B, n, S), to those of q, k and w."""
        (of_scores,) = gradients
        q, k, w = ctx.saved_tensors
        e_q, e_k, one = (2 * q).exp(), (2 * k).exp(), q.new_ones(1)
        of_q, of_k, of_w = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(w)
        with torch.autocast(q.device.type, enabled=False):  # a compiler traces this inside of one
            for rows, part, end in _tiles(q, k, ctx.chunk):
                g = of_scores[rows, part, :end].contiguous()  # (b, c, s)
                r = _reciprocals(one, e_q[rows, part], e_k[rows, :end])
                of_w += g.sum() - 2 * (g.flatten() @ r.flatten(0, 2))
                slopes = torch.addcmul(r, r, r, value=-1).mul_(g[..., None])
                of_q[rows, part] = slopes.sum(2)
                of_k[rows, :end] += slopes.sum(1)
        return of_q * (4 * w), of_k * (4 * w), of_w, None


def _tiles(q: Tensor, k: Tensor, chunk: int) -> Iterator[tuple[slice, slice, int]]:
    """(rows of the batch, queries, how many keys the last of these may see): all of q, a little at a time."""
    n, n_all = q.shape[1], k.shape[1]
    for begin in range(0, n, chunk):
        part = slice(begin, min(begin + chunk, n))
        end = n_all - n + part.stop
        size = max(1, NUMBERS_AT_ONCE // ((part.stop - begin) * end * q.shape[2]))
        for row in range(0, len(q), size):
            yield slice(row, row + size), part, end


def _reciprocals(one: Tensor, e_q: Tensor, e_k: Tensor) -> Tensor:
    """1/(1 + e^{2q} e^{2k}) for all pairs, in two goes through memory: (b, c, K), (b, s, K) -> (b, c, s, K)."""
    return torch.addcmul(one, e_q[:, :, None], e_k[:, None]).reciprocal_()


class AdditiveScores(Scores):
    """wᵀ tanh(q_i + k_j), `chunk` queries of a head at a time."""

    has_terms = False

    def __init__(self, d_model: int, n_heads: int, positions: Positions, chunk: int):
        super().__init__()
        width = check_heads(d_model, n_heads)
        self.n_heads, self.positions, self.chunk = n_heads, positions, chunk
        self.query_key = nn.Linear(d_model, 2 * d_model)
        self.w = nn.Parameter(torch.empty(n_heads, 1, 1, width).uniform_(-(width**-0.5), width**-0.5))

    def tiles(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, texts: int, rows: int) -> Iterator[Tensor]:
        dtype = torch.float32 if self.w.dtype == torch.float16 else self.w.dtype
        bounded = self.query_key(x).to(dtype).clamp(-LIMIT, LIMIT)
        q, k = (split_heads(part, self.n_heads) for part in bounded.chunk(2, dim=-1))  # (B, H, T, K)
        k = remember(cache, "k", k)  # (B, H, S, K)
        for some, keys in zip(q.split(texts), k.split(texts), strict=True):
            end = offset
            for part in some.split(rows, dim=2):
                end += part.shape[2]
                heads = zip(part.unbind(1), keys[:, :, :end].unbind(1), self.w[:, 0, 0].to(dtype), strict=True)
                scores = torch.stack([Compared.apply(*head, self.chunk) for head in heads], dim=1).to(self.w.dtype)
                bias = self.positions.score_bias(part.shape[2], end, x.device)
                yield scores if bias is None else scores + bias.to(scores.dtype)


class AdditiveAttention(ScoredAttention):
    """softmax(wᵀ tanh(q_i + k_j)) V, w a head's own (Bahdanau et al. 2014, arXiv 1409.0473, appendix A.1.2).

    Compares by content like vanilla, but bounded: a score lies within ±‖w‖₁, so attention can only become as sharp as w
    lets it, and queries cannot turn it up by growing; a query or key beyond ±40 counts as ±40. Time O(T²D + TD²), the
    first a sum and a reciprocal a number instead of fast products; memory O(HT²), and of what is compared a megabyte at
    a time, or one text's `chunk` queries with all their keys if that is more; decode cache 2D numbers a position.
    Rotary positions are refused: a sum of two turned vectors depends on where they stand, not on how far apart.
    """

    def __init__(
        self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions, chunk: int = 32
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
