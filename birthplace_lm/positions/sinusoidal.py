"""Sinusoidal positions: absolute, like learned ones, but with nothing to learn."""

import torch
from torch import Tensor, nn

from birthplace_lm.positions import Positions


class SinusoidalPositions(Positions):
    """sin and cos of position · θ^(-2k/D) at coordinates 2k and 2k + 1 (Vaswani et al. 2017, section 3.5).

    The vectors of positions a fixed distance apart differ by a fixed rotation, so that a layer could learn to look so
    far back. They are scaled to the root mean square `std`, which is that of the characters' vectors at the start:
    unscaled they would drown them.
    """

    def __init__(self, block_size: int, d_model: int, n_heads: int, theta: float = 10_000.0, std: float = 0.02):
        super().__init__(block_size, d_model, n_heads)
        if d_model % 2:
            raise ValueError(f"sinusoidal positions come in pairs of sine and cosine: the width {d_model} must be even")
        if theta <= 0:
            raise ValueError(f"sinusoidal positions by powers of theta {theta}: use a number above 0 such as 10000")
        if std <= 0:
            raise ValueError(f"sinusoidal positions with std {std} say nothing: use a positive number such as 0.02")
        self.theta, self.std = theta, std

    def embedding(self) -> nn.Module:
        return SinusoidalTable(self.block_size, self.d_model, self.theta, self.std)


class SinusoidalTable(nn.Module):
    """The vectors of all positions, computed when the model is built; no parameter, and not in the state dict."""

    def __init__(self, block_size: int, d_model: int, theta: float, std: float):
        super().__init__()
        exponent = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model
        angle = torch.arange(block_size, dtype=torch.float64)[:, None] * theta**-exponent  # (block, D/2)
        table = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1) * std * 2**0.5  # (block, D)
        self.register_buffer("table", table.to(torch.get_default_dtype()), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        return self.get_buffer("table")[positions]  # (T,) -> (T, D)
