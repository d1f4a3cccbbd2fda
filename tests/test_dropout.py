"""Dropout by sixteen bits a number: torch's own in what it does, exact in how often it does it."""

import math

import pytest
import torch
from torch import Tensor

from birthplace_lm.dropout import Dropout


def dropped(shape: tuple[int, ...], p: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(seed)
    return Dropout(p)(torch.ones(shape, dtype=dtype))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_share_is_dropped_and_the_mean_kept(p: float, dtype: torch.dtype) -> None:
    out = dropped((401, 997), p, dtype=dtype)  # no multiple of four
    n, zeros = out.numel(), int((out == 0).sum())
    assert abs(zeros - n * p) < 5 * math.sqrt(n * p * (1 - p))
    kept = out[out != 0].double()
    assert torch.equal(kept, kept[:1].expand_as(kept))
    assert abs(kept[0] * (1 - p) - 1) < (0.005 if dtype == torch.bfloat16 else 1e-4)  # p is meant to 1/65,536


def test_every_of_the_four_numbers_of_a_draw_is_fair_and_knows_nothing_of_its_neighbours() -> None:
    kept = (dropped((4_000_000,), 0.25) != 0).double().view(-1, 4)
    n = len(kept)
    assert (kept.mean(0) - 0.75).abs().max() < 5 * math.sqrt(0.25 * 0.75 / n)
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 5 / math.sqrt(n)
    assert abs(torch.corrcoef(torch.stack((kept[:-1, 3], kept[1:, 0])))[0, 1]) < 5 / math.sqrt(n)


def test_the_gradient_passes_where_the_number_did() -> None:
    x = torch.randn(7, 5, 3, dtype=torch.float64, requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    assert x.grad is not None and torch.equal(x.grad * x, out) and bool((out == 0).any())


def test_the_seed_decides() -> None:
    assert torch.equal(dropped((9, 9), 0.5, seed=3), dropped((9, 9), 0.5, seed=3))
    assert not torch.equal(dropped((9, 9), 0.5, seed=3), dropped((9, 9), 0.5, seed=4))


def test_nothing_happens_in_evaluation_or_without_a_share() -> None:
    x = torch.randn(4, 4)
    assert torch.equal(Dropout(0.5).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, 1 - 1e-6])
def test_what_is_no_share_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=rf"dropout is a share in \[0, 1\), to the nearest 1/65,536, not {p}"):
        Dropout(p)
