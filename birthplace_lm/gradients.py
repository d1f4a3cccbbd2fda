"""The gradient of a sum, taken term by term: what a term keeps for its way back is free before the next one is made."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Handed(torch.autograd.Function):
    """A number whose gradient is known already: going backward from it hands the gradient out."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient if gradient is None else gradient * outer for gradient in ctx.gradients)


def sum_term_by_term(terms: Iterable[Tensor], parameters: Iterable[Tensor]) -> Tensor:
    """Σ terms, a scalar whose backward() gives the parameters that learn the sum's gradient, in no time.

    Each term's gradient is taken before the next term is asked for, so terms made one by one (by a generator) hold the
    memory of one. Taken outside of autocast, as backward() is, also where the terms are made inside. A parameter that
    no term depends on gets no gradient. Raises ValueError where there is no term.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    gradients: list[Tensor | None] = [None] * len(learning)
    total: Tensor | None = None
    for term in terms:
        with torch.autocast(term.device.type, enabled=False):
            found = torch.autograd.grad(term, learning, allow_unused=True)
        gradients = [_added(*both) for both in zip(gradients, found, strict=True)]
        total = term.detach() if total is None else total + term.detach()
    if total is None:
        raise ValueError("a sum of no terms has no gradient")
    handed: Tensor = _Handed.apply(total, gradients, *learning)
    return handed


def _added(so_far: Tensor | None, new: Tensor | None) -> Tensor | None:
    if so_far is None or new is None:
        return so_far if new is None else new.clone()  # a gradient may be another's, or an expanded number
    return so_far.add_(new)
