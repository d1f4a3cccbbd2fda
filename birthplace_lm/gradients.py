"""The gradient of a sum, taken term by term: what a term keeps for its way back is free before the next one is made."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Handed(torch.autograd.Function):
    """A number whose gradient is known already: going backward from it hands the gradient out."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        there = [gradient for gradient in ctx.gradients if gradient is not None]
        scaled = iter(torch._foreach_mul(there, outer))
        return None, None, *(gradient if gradient is None else next(scaled) for gradient in ctx.gradients)


def learning(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those that have a gradient."""
    return [parameter for parameter in parameters if parameter.requires_grad]


def gradient_of_sum(terms: Iterable[Tensor], parameters: Sequence[nn.Parameter]) -> tuple[Tensor, list[Tensor | None]]:
    """Σ terms and its gradient, None for a parameter that no term depends on.

    Each term's gradient is taken before the next term is asked for, so terms made one by one (by a generator) hold the
    memory of one. Taken outside of autocast, as backward() is, also where the terms are made inside. Raises ValueError
    where there is no term.
    """
    gradients: list[Tensor | None] = [None] * len(parameters)
    total: Tensor | None = None
    for term in terms:
        with torch.autocast(term.device.type, enabled=False):
            found = torch.autograd.grad(term, parameters, allow_unused=True)
        if total is None:
            total, gradients = term.detach(), _each_its_own(found)
        else:
            total, gradients = total + term.detach(), [_added(*both) for both in zip(gradients, found, strict=True)]
    if total is None:
        raise ValueError("a sum of no terms has no gradient")
    return total, gradients


def with_gradient(value: Tensor, gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Tensor:
    """The value as a scalar whose backward() gives the parameters these gradients, in no time."""
    handed: Tensor = _Handed.apply(value, gradients, *parameters)
    return handed


def sum_term_by_term(terms: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> Tensor:
    """Σ terms, a scalar whose backward() gives the parameters that learn what `gradient_of_sum` found."""
    those = learning(parameters)
    return with_gradient(*gradient_of_sum(terms, those), those)


def _added(so_far: Tensor | None, new: Tensor | None) -> Tensor | None:
    if so_far is None or new is None:
        return so_far if new is None else new.clone()
    return so_far.add_(new)


def _each_its_own(gradients: Iterable[Tensor | None]) -> list[Tensor | None]:
    """The same, each in memory of its own: torch's may be another parameter's, or an expanded number."""
    taken, own = set(), []
    for gradient in gradients:
        if gradient is not None:
            storage = gradient.untyped_storage()
            shared = storage.data_ptr() in taken or storage.nbytes() != gradient.nbytes
            taken.add(storage.data_ptr())
            gradient = gradient.clone() if shared else gradient
        own.append(gradient)
    return own
