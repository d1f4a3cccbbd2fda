"""Sliding-window attention: every position sees itself and the few before it."""

from torch import Tensor

from birthplace_lm.attention.heads import FusedAttention, remember, seen_so_far
from birthplace_lm.positions import Positions


class SlidingWindowAttention(FusedAttention):
    """softmax(QKᵀ/√K) V over the positions j with 0 <= i - j < w (Beltagy et al. 2020, arXiv 2004.05150, section 3.1).

    Compares by content, but only nearby: L layers reach L·(w - 1) positions back, through what stands in between. Time
    O(T²D + TD²) as computed here, with a mask (a kernel that skips blocks needs O(TwD)), memory O(T²), decode cache
    2D·(w - 1) numbers, however long the sequence.
    """

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
        k, v = remember(cache, "k", k), remember(cache, "v", v)  # (B, H, up to w - 1 + T, K)
        if cache is not None:
            first = max(0, k.shape[2] - (self.window - 1))
            cache["k"], cache["v"] = k[:, :, first:], v[:, :, first:]
        return self.attend(q, k, v, self.window)
