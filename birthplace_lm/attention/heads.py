"""What the variants share: heads split and merged, and the cache that decoding leaves behind.

Legend: B batch, T new positions, S all positions so far, D width, H heads, K = D/H.
"""

import torch
from torch import Tensor


def check_heads(d_model: int, n_heads: int) -> int:
    """The width of a head; an error when the heads do not divide the width."""
    if n_heads < 1 or d_model % n_heads:
        raise ValueError(f"{n_heads} heads do not divide the width {d_model}: choose n_heads among its divisors")
    return d_model // n_heads


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


def causal(n_new: int, n_all: int, device: torch.device) -> Tensor:
    """Which positions the newest n_new of n_all may see: (T, S), true where allowed."""
    return torch.ones(n_new, n_all, dtype=torch.bool, device=device).tril(n_all - n_new)
