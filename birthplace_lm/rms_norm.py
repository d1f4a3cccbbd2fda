"""A root-mean-square norm that a processor can afford: its gradient in six passes through memory instead of a dozen."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _RmsNorm(torch.autograd.Function):
    """y = x r w with r = 1/√(mean x² + ε): dw = Σ r g x, dx = r (g w - x r² mean(g w x))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        r = mean.add_(eps).rsqrt_()  # (..., 1)
        ctx.save_for_backward(x, r, weight)
        return (x * r).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (g,) = gradients
        x, r, weight = ctx.saved_tensors
        product = g * x
        with torch.autocast("cpu", enabled=False):
            of_weight = r.flatten() @ product.reshape(-1, x.shape[-1])
            along_x = (product @ weight)[..., None] * r.pow(3).div_(-x.shape[-1])  # (..., 1)
        return (g * weight).mul_(r).addcmul_(x, along_x), of_weight, None


class RMSNorm(nn.RMSNorm):
    """x / √(mean x² + ε) · w over the last dimension, ε the dtype's by default (Zhang & Sennrich 2019, 1910.07467).

    Elsewhere than on a processor, and compiled, it is torch's own, which has one kernel for it there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        weight = self.get_parameter("weight")
        if x.device.type != "cpu" or x.dtype != weight.dtype or torch.compiler.is_compiling():
            return super().forward(x)
        out: Tensor = _RmsNorm.apply(x, weight, torch.finfo(x.dtype).eps if self.eps is None else self.eps)
        return out
