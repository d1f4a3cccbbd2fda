"""Sums whose gradient is taken term by term: that of the whole sum, with the memory of one term."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.gradients import gradient_of_sum, sum_term_by_term

BATCHES = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)).unbind()


def model() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def losses(module: nn.Module) -> Iterator[Tensor]:
    return (module(x).square().sum() for x in BATCHES)


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("outer", [1.0, 2.0, -0.5])
def test_the_sum_and_its_gradient_are_those_of_the_terms_together(outer: float) -> None:
    one, other = model().double(), model().double()
    BATCHES_64 = [x.double() for x in BATCHES]
    together = sum((one(x).square().sum() for x in BATCHES_64), start=torch.zeros((), dtype=torch.float64))
    (together * outer).backward()
    by_term = sum_term_by_term((other(x).square().sum() for x in BATCHES_64), other.parameters())
    (by_term * outer).backward()
    torch.testing.assert_close(by_term, together, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(other), gradients(one), rtol=1e-12, atol=1e-14)


def test_gradients_are_added_to_what_is_there_and_only_by_backward() -> None:
    module = model()
    total = sum_term_by_term(losses(module), module.parameters())
    assert gradients(module) == [None] * 4
    total.backward()
    once = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    sum_term_by_term(losses(module), module.parameters()).backward()
    torch.testing.assert_close(gradients(module), [2 * gradient for gradient in once])


def test_what_does_not_learn_and_what_no_term_depends_on_gets_none() -> None:
    module, apart = model(), nn.Parameter(torch.ones(2))
    module[0].requires_grad_(False)
    sum_term_by_term(losses(module), [*module.parameters(), apart]).backward()
    assert [gradient is None for gradient in gradients(module)] == [True, True, False, False] and apart.grad is None


def test_a_parameter_that_only_a_later_term_depends_on_gets_that_terms_gradient() -> None:
    first, second = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(5.0))
    sum_term_by_term(iter([first**2, first * second, 7 * second]), [first, second]).backward()
    assert (first.grad, second.grad) == (torch.tensor(11.0), torch.tensor(10.0))


def test_terms_of_one_gradient_do_not_change_each_other() -> None:
    """The gradient of a sum over a vector is one number seen many times; adding in place would add it to itself."""
    weight = nn.Parameter(torch.ones(3))
    sum_term_by_term(iter([weight.sum(), weight.sum(), (2 * weight).sum()]), [weight]).backward()
    assert weight.grad is not None and weight.grad.tolist() == [4.0, 4.0, 4.0]


def test_parameters_of_one_term_get_gradients_in_memory_of_their_own() -> None:
    """Torch gives a sum's two terms one tensor, and what is added up one number seen many times."""
    one, other, bias = (nn.Parameter(torch.ones(3)) for _ in range(3))
    total, found = gradient_of_sum(iter([(one + other).square().sum() + bias.sum()]), [one, other, bias])
    own = [gradient for gradient in found if gradient is not None]
    for gradient in own:
        gradient.mul_(2)
    assert total == 15 and [gradient.tolist() for gradient in own] == [[8.0] * 3, [8.0] * 3, [2.0] * 3]


def test_one_terms_way_back_is_free_before_the_next_is_made() -> None:
    module, kept = model(), []

    class Watched(torch.autograd.Function):
        """The identity; what it keeps is watched."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            saved = x * 1
            ctx.save_for_backward(saved)
            kept.append(weakref.ref(saved))
            return x * 1

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * (ctx.saved_tensors[0] == ctx.saved_tensors[0])

    def terms() -> Iterator[Tensor]:
        for x in BATCHES:
            gc.collect()
            assert [saved() for saved in kept] == [None] * len(kept)
            yield Watched.apply(module(x)).sum()

    sum_term_by_term(terms(), module.parameters())
    assert len(kept) == len(BATCHES)


def test_in_autocast_the_way_back_is_that_of_backward_outside_of_it() -> None:
    """Products of float32 that a term makes with autocast off stay float32 on the way back."""
    one, other = model(), model()

    def loss(module: nn.Sequential, x: Tensor) -> Tensor:
        hidden = module[1](module[0](x)).float()
        with torch.autocast("cpu", enabled=False):
            return F.linear(hidden, module[2].weight, module[2].bias).square().sum()

    with torch.autocast("cpu", torch.bfloat16):
        outside = loss(one, BATCHES[0])
        inside = sum_term_by_term((loss(other, x) for x in BATCHES[:1]), other.parameters())
    outside.backward()
    inside.backward()
    assert all(torch.equal(a, b) for a, b in zip(gradients(one), gradients(other), strict=True))


def test_a_sum_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no terms"):
        sum_term_by_term(iter(()), model().parameters())
