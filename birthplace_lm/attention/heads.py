"""What the variants share: heads split and merged, the cache that decoding leaves behind, the causal mask, the softmax.

Legend: B batch, T new positions, S all positions so far, D width, H heads, G groups of heads, K = D/H.
"""

import torch
from torch import Tensor, nn

from birthplace_lm.dropout import Dropout
from birthplace_lm.layer_memory import LayerMemory
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


def in_full_precision(x: Tensor) -> Tensor:
    """x in float32 where a processor computes in bfloat16: torch's fused attention goes back five times slower there.

    Matrix products with weights are what bfloat16 makes twice as fast; scores and softmax gain nothing from it.
    """
    return x.float() if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x


def as_narrow_as(x: Tensor, other: Tensor) -> Tensor:
    """x in the other's kind of floats where these are the shorter: what went through in full precision comes back."""
    return x.to(other.dtype) if other.dtype.itemsize < x.dtype.itemsize else x


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Every head's share of the width, heads as a dimension of their own."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)  # (B, T, D) -> (B, H, T, K)


def merge_heads(x: Tensor) -> Tensor:
    """The heads side by side again: the inverse of split_heads."""
    return x.transpose(1, 2).flatten(2)  # (B, H, T, K) -> (B, T, D)


def seen_so_far(cache: dict[str, Tensor] | None, name: str) -> int:
    """How many positions the cache holds under this name."""
    if isinstance(cache, LayerMemory):
        return cache.length(name)
    return cache[name].shape[-2] if cache and name in cache else 0


def remember(cache: dict[str, Tensor] | None, name: str, new: Tensor) -> Tensor:
    """All positions so far: (B, H, T, K) -> (B, H, S, K); kept in the cache for the next call."""
    if cache is None:
        return new
    if isinstance(cache, LayerMemory):
        return cache.append(name, new)
    cache[name] = torch.cat((cache[name], new), dim=-2) if name in cache else new
    return cache[name]


def causal(n_new: int, n_all: int, device: torch.device, window: int | None = None) -> Tensor:
    """Which positions the newest n_new of n_all may see: (T, S), true where allowed; the last `window` of them only."""
    allowed = torch.ones(n_new, n_all, dtype=torch.bool, device=device).tril(n_all - n_new)
    return allowed if window is None else allowed.triu(n_all - n_new - window + 1)


def mask_of(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added to scores, -inf where it is not allowed: adding needs no work on the way back."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, -torch.inf)


class AttentionWeights(nn.Module):
    """From scores to weights: the causal mask, a softmax and dropout. A forward hook here reads a layer's weights."""

    def __init__(self, dropout: float):
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, scores: Tensor, mask: Tensor, rows: int) -> Tensor:
        """Scores (B or 1, H, T, S) and a mask (T, S) to add to weights (B, H, T, S), rows of sum 1 before dropout."""
        return self.dropout(self.normalised(scores, mask).expand(rows, -1, -1, -1))

    def normalised(self, scores: Tensor, mask: Tensor) -> Tensor:
        """The weights before dropout: what a variant with more than a softmax changes."""
        return (scores + mask.to(scores.dtype)).softmax(dim=-1)


def listened_to(module: nn.Module) -> bool:
    """Whether a forward hook would see a call of this module: what is computed for readers alone is left out if not."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
