"""The root-mean-square norm with its own way back, against torch's and against the formula."""

import pytest
import torch

from birthplace_lm.rms_norm import RMSNorm


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("eps", [None, 1e-2])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4, 5), (0, 5)])
@pytest.mark.parametrize("size", [1.0, 1e-4, 0.0])
def test_it_is_torchs_and_so_is_its_gradient(
    shape: tuple[int, ...], eps: float | None, dtype: torch.dtype, size: float
) -> None:
    draw = torch.Generator().manual_seed(1)
    data, upstream = (torch.randn(shape, generator=draw, dtype=dtype) for _ in range(2))
    weight = torch.randn(5, generator=draw, dtype=dtype)
    found = []
    for kind in (RMSNorm, torch.nn.RMSNorm):
        norm, x = kind(5, eps=eps).to(dtype), (data * size).requires_grad_()
        norm.get_parameter("weight").data.copy_(weight)
        out = norm(x)
        found.append((out, *torch.autograd.grad(out, (x, norm.weight), upstream)))
    tight = {"rtol": 1e-11, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-5}
    for ours, theirs in zip(*found, strict=True):
        scale = theirs.detach().abs().amax().clamp(min=1) if theirs.numel() else 1.0
        torch.testing.assert_close(ours / scale, theirs / scale, **tight)


def test_it_is_the_formula_for_heads_that_lie_across_memory() -> None:
    """(B, H, T, K) as split_heads hands them out: strided, and not contiguous."""
    wide = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    norm = RMSNorm(4).double()
    torch.nn.init.normal_(norm.weight)

    def of(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return norm(x.unflatten(-1, (3, 4)).transpose(1, 2)) + 0 * w.sum()

    heads = wide.unflatten(-1, (3, 4)).transpose(1, 2)
    expected = heads * (heads.square().mean(-1, keepdim=True) + torch.finfo(torch.float64).eps).rsqrt() * norm.weight
    torch.testing.assert_close(norm(heads), expected)
    assert torch.autograd.gradcheck(of, (wide, norm.weight))


def test_under_autocast_it_stays_in_float32() -> None:
    norm, x = RMSNorm(64), torch.randn(9, 64, requires_grad=True)
    expected = torch.autograd.grad(norm(x).square().sum(), (x, norm.weight))
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x)
        found = torch.autograd.grad(out.square().sum(), (x, norm.weight))
    assert out.dtype == torch.float32
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_weights_and_names_are_torchs() -> None:
    ours, theirs = RMSNorm(5), torch.nn.RMSNorm(5)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
