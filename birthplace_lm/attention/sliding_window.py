"""Sliding-window attention: every position sees itself and the few before it."""

import torch
from torch import Tensor

from birthplace_lm.attention.fused import FusedAttention
from birthplace_lm.attention.heads import as_narrow_as, listened_to, remember, seen_so_far
from birthplace_lm.positions import Positions

ROWS_AT_ONCE = 64  # asking positions whose windows are computed together, at least


class SlidingWindowAttention(FusedAttention):
    """softmax(QKᵀ/√K) V over the positions j with 0 <= i - j < w (Beltagy et al. 2020, arXiv 2004.05150, section 3.1).

    Compares by content, but only nearby: L layers reach L·(w - 1) positions back, through what stands in between. Time
    O(T(w + n)D + TD²), n = 64 or w positions at a time, memory O(TD) by the fused kernel, else O(TD + HT(w + n)),
    decode cache 2D·(w - 1) numbers, however long the sequence. Behind a cache the weights that somebody listens to have
    a column for each position that is still kept, of which the last is the newest.
    """

    forks = False  # it lets go of what a trunk would keep

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        block_size: int,
        dropout: float,
        positions: Positions,
        window: int = 32,
        qk_norm: bool = False,
    ):
        if window < 1:
            raise ValueError(f"a window of {window} positions leaves a position nothing to see: use 1 or more")
        super().__init__(d_model, n_heads, n_heads, block_size, dropout, positions, qk_norm)
        self.window = window

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        q, k, v = self.project(x, seen_so_far(cache, "seen"))
        remember(cache, "seen", x[..., :0])  # (B, S, 0): what was let go of is still counted, at no cost
        visible = {} if cache is None else cache
        size = x.shape[1] if listened_to(self.weights) else max(self.window, ROWS_AT_ONCE)
        parts = zip(*(part.split(size, dim=2) for part in (q, k, v)), strict=True)
        attended = torch.cat([self._go_on(q, k, v, visible) for q, k, v in parts], dim=1)  # (B, T, D)
        return self.output(as_narrow_as(attended, x))

    def _go_on(self, q: Tensor, k: Tensor, v: Tensor, visible: dict[str, Tensor]) -> Tensor:
        """Some positions (B, H, n, K) after those that are `visible` to the first of them, which moves along."""
        k, v = remember(visible, "k", k), remember(visible, "v", v)  # (B, H, up to w - 1 + n, K)
        first = max(0, k.shape[2] - (self.window - 1))
        visible["k"], visible["v"] = k[:, :, first:], v[:, :, first:]
        return self.attend(q, k, v, self.window)
