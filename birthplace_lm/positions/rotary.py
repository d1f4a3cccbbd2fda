"""Rotary positions: queries and keys are turned, so that a score depends on how far apart they stand."""

from typing import Self

import torch
from torch import Tensor

from birthplace_lm.positions import Positions


class RotaryPositions(Positions):
    """Pairs of coordinates (k, k + K/2) turned by the angle position · θ^(-2k/K) (Su et al. 2021, equation 34)."""

    needs_scores = True
    needs_products = True  # turned vectors forget where they stand in a dot product alone

    def __init__(self, block_size: int, d_model: int, n_heads: int, theta: float = 10_000.0):
        super().__init__(block_size, d_model, n_heads)
        if theta <= 0:
            raise ValueError(f"angles by powers of theta {theta}: use a number above 0 such as 10000")
        self.theta = theta
        self._check_pairs()

    def for_heads(self, n_heads: int) -> Self:
        other = super().for_heads(n_heads)
        other._check_pairs()
        return other

    def _check_pairs(self) -> None:
        if self.n_heads < 1:
            raise ValueError(f"{self.n_heads} heads have no pairs to turn: use 1 or more")
        if (width := self.d_model // self.n_heads) % 2:
            raise ValueError(f"rotary positions turn pairs: a head's width must be even, not {width}")

    def rotate(self, x: Tensor, offset: int) -> Tensor:
        half = x.shape[-1] // 2
        exponent = torch.arange(half, device=x.device, dtype=torch.float32) / half
        position = torch.arange(offset, offset + x.shape[-2], device=x.device, dtype=torch.float32)
        angle = position[:, None] * self.theta**-exponent  # (T, K/2)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x[..., :half], x[..., half:]  # (B, H, T, K/2)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)  # (B, H, T, K)
