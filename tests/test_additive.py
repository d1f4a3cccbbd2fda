"""Additive attention's comparison, whose gradient is written by hand: against tanh and what autograd makes of it."""

import pytest
import torch
from torch import Tensor

from birthplace_lm.attention import additive
from birthplace_lm.attention.additive import LIMIT, Compared
from birthplace_lm.attention.heads import causal
from tests.helpers import roughened, tiny

Inputs = tuple[Tensor, Tensor, Tensor]


def inputs(n: int, n_all: int, spread: float = 1.0) -> Inputs:
    """Queries (3, n, 4), keys (3, n_all, 4), w (4,), float64, to be differentiated."""
    draw = torch.Generator().manual_seed(n)
    q, k, w = (torch.randn(*size, 4, dtype=torch.float64, generator=draw) for size in ((3, n), (3, n_all), ()))
    return tuple(part.mul_(spread).requires_grad_() for part in (q, k, w))  # type: ignore[return-value]


def textbook(q: Tensor, k: Tensor, w: Tensor) -> Tensor:
    """wᵀ tanh(q_i + k_j) for all pairs."""
    return (q[:, :, None] + k[:, None]).tanh() @ w


@pytest.mark.parametrize("chunk", [1, 3, 50])
@pytest.mark.parametrize("numbers", [1, 64, 2**18])
@pytest.mark.parametrize(("n", "n_all"), [(5, 5), (4, 9), (1, 6)])
def test_scores_and_gradients_are_those_of_tanh(
    n: int, n_all: int, chunk: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(additive, "NUMBERS_AT_ONCE", numbers)
    parts = inputs(n, n_all)
    seen = causal(n, n_all, parts[0].device)
    weighting = torch.randn(3, n, n_all, dtype=torch.float64) * seen
    found = Compared.apply(*parts, chunk)
    torch.testing.assert_close(found * seen, textbook(*parts) * seen, rtol=1e-12, atol=1e-12)
    by_hand = torch.autograd.grad((found * weighting).sum(), parts)
    by_autograd = torch.autograd.grad((textbook(*parts) * weighting).sum(), parts)
    for one, other in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_single_precision_stays_within_its_rounding() -> None:
    q, k, w = inputs(20, 20, spread=3.0)
    found = Compared.apply(q.float(), k.float(), w.float(), 20)
    exact = textbook(q, k, w)
    assert (found - exact).abs().max().item() < 2e-6 * w.abs().sum().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wishes_beyond_the_limit_stay_numbers(dtype: torch.dtype) -> None:
    """e^{2·1000} is no number: without the limit 0·∞ would spoil scores and gradients."""
    layer = roughened(tiny("additive")).to(dtype).blocks[0].attention
    torch.nn.init.normal_(layer.scores.query_key.weight, std=1000.0)
    x = torch.randn(2, 12, 16, dtype=dtype, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)


@torch.no_grad()
def test_half_precision_has_room_for_wishes_too() -> None:
    """exp(2·40) is no float16: 0·∞ would be NaN."""
    layer = roughened(tiny("additive")).half().blocks[0].attention
    torch.nn.init.normal_(layer.scores.query_key.weight, std=1000.0)
    out = layer(torch.randn(2, 12, 16).half())
    assert out.dtype == torch.float16 and out.isfinite().all()


def test_at_the_limit_tanh_is_saturated() -> None:
    edge = torch.tensor(LIMIT, dtype=torch.float64)
    assert edge.tanh() == 1
    largest = (2 * edge.float()).exp()
    assert largest.isfinite() and 1 / (1 + largest * largest) == 0
