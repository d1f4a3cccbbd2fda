"""What the variants share: heads split and merged, the cache that decoding leaves behind, and softmax attention itself.

Legend: B batch, T new positions, S all positions so far, D width, H heads, G groups of heads, K = D/H.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.positions import Positions


def check_heads(d_model: int, n_heads: int) -> int:
    """The width of a head; an error when the heads do not divide the width."""
    if n_heads < 1 or d_model % n_heads:
        raise ValueError(f"{n_heads} heads do not divide the width {d_model}: choose n_heads among its divisors")
    return d_model // n_heads


def check_no_scores_needed(positions: Positions, variant: str) -> None:
    """An error for positions that act on query-key scores, in a variant that has none."""
    if positions.needs_scores:
        raise ValueError(
            f"{type(positions).__name__} acts on query-key scores, and {variant} has none: "
            "use positions=learned, positions=sinusoidal or positions=none"
        )


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Every head's share of the width, heads as a dimension of their own."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)  # (B, T, D) -> (B, H, T, K)


def merge_heads(x: Tensor) -> Tensor:
    """The heads side by side again: the inverse of split_heads."""
    return x.transpose(1, 2).flatten(2)  # (B, H, T, K) -> (B, T, D)


def seen_so_far(cache: dict[str, Tensor] | None, name: str) -> int:
    """How many positions the cache holds under this name."""
    return cache[name].shape[-2] if cache and name in cache else 0


def remember(cache: dict[str, Tensor] | None, name: str, new: Tensor) -> Tensor:
    """All positions so far: (B, H, T, K) -> (B, H, S, K); kept in the cache for the next call."""
    if cache is None:
        return new
    cache[name] = torch.cat((cache[name], new), dim=-2) if name in cache else new
    return cache[name]


def causal(n_new: int, n_all: int, device: torch.device, window: int | None = None) -> Tensor:
    """Which positions the newest n_new of n_all may see: (T, S), true where allowed; the last `window` of them only."""
    allowed = torch.ones(n_new, n_all, dtype=torch.bool, device=device).tril(n_all - n_new)
    return allowed if window is None else allowed.triu(n_all - n_new - window + 1)


class AttentionWeights(nn.Module):
    """From scores to weights: the causal mask, a softmax and dropout. A forward hook here reads a layer's weights."""

    def __init__(self, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(self, scores: Tensor, allowed: Tensor, rows: int) -> Tensor:
        """Scores (B or 1, H, T, S) and mask (T, S) to weights (B, H, T, S), whose rows sum to 1 before dropout."""
        return self.dropout(self.normalised(scores, allowed).expand(rows, -1, -1, -1))

    def normalised(self, scores: Tensor, allowed: Tensor) -> Tensor:
        """The weights before dropout: what a variant with more than a softmax changes."""
        return scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)


class FusedAttention(nn.Module):
    """softmax(QKᵀ/√K) V in one fused kernel, every group of H/G heads with keys and values of its own.

    What vanilla attention and its relatives with fewer keys have in common. The weights never stand in memory as a
    matrix on devices with a flash kernel, and for that reason no hook can read them.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_groups: int,
        max_length: int,
        dropout: float,
        positions: Positions,
        qk_norm: bool = False,
    ):
        super().__init__()
        width = check_heads(d_model, n_heads)
        if n_groups < 1 or n_heads % n_groups:
            raise ValueError(f"{n_groups} groups do not divide {n_heads} heads: choose n_groups among the divisors")
        self.n_heads, self.n_groups, self.max_length = n_heads, n_groups, max_length
        self.dropout, self.positions = dropout, positions
        self.sizes = (d_model, n_groups * width, n_groups * width)
        self.query_key_value = nn.Linear(d_model, sum(self.sizes))
        self.output = nn.Linear(d_model, d_model)
        self.query_norm = nn.RMSNorm(width) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(width) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        q, k, v = self.project(x, seen_so_far(cache, "k"))
        return self.attend(q, remember(cache, "k", k), remember(cache, "v", v))

    def project(self, x: Tensor, offset: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, K), keys and values (B, G, T, K) of positions from `offset` on, marked with them."""
        q, k, v = self.query_key_value(x).split(self.sizes, dim=-1)
        q = self.positions.rotate(self.query_norm(split_heads(q, self.n_heads)), offset)
        k = self.positions.rotate(self.key_norm(split_heads(k, self.n_groups)), offset)
        return q, k, split_heads(v, self.n_groups)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """(B, H, T, K), (B, G, S, K), (B, G, S, K) -> (B, T, D); S ends where T does."""
        n_new, n_all = q.shape[2], k.shape[2]
        bias = self.positions.score_bias(n_new, n_all, q.device)  # (H, T, S) or None
        everything = bias is None and (window is None or n_all <= window)
        mask = None
        if not everything or 1 < n_new < n_all:
            mask = causal(n_new, n_all, q.device, window)  # (T, S)
            mask = mask if bias is None else bias.masked_fill(~mask, -torch.inf).to(q.dtype)[None]  # (1, H, T, S)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=everything and n_new == n_all,
            enable_gqa=self.n_groups < self.n_heads,
        )  # (B, H, T, K)
        return self.output(merge_heads(out))
