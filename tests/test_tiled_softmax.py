"""The softmax whose gradient is written out, against the formula in one piece."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from birthplace_lm.attention import scored
from birthplace_lm.attention.terms import Terms
from birthplace_lm.attention.tiled_softmax import attend
from tests.helpers import roughened, tiny

B, H, T, S, M, W = 3, 2, 7, 9, 4, 5
KINDS = {
    "products": {"q", "k"},
    "products of keys that all share": {"q", "common k"},
    "products and what keys have of their own": {"q", "k", "key_bias"},
    "products of shared keys and what these have of their own": {"q", "common k", "key_bias"},
    "a table": {"table"},
    "a scaled table": {"table", "scale"},
    "products and a table": {"q", "k", "table"},
    "everything": {"q", "k", "key_bias", "table", "scale"},
    "products that all texts share": {"one q", "one k"},
    "shared products and a table": {"one q", "one k", "table", "scale"},
    "a grid": {"outer", "inner"},
    "a grid and a scaled table": {"outer", "inner", "table", "scale"},
    "a grid and everything": {"outer", "inner", "q", "k", "key_bias", "table", "scale"},
}


def terms_of(kinds: set[str], first_row: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=draw, requires_grad=True)

    shapes: dict[str, tuple[int, ...]] = {
        "q": (B, H, T, M), "one q": (1, H, T, M), "k": (B, H, S, M), "one k": (1, H, S, M), "common k": (1, 1, S, M),
        "key_bias": (S,), "table": (H, first_row + T + 1, S + 2), "scale": (),
        "outer": (B, H, T, 4), "inner": (B, H, T, 3),
    }  # fmt: skip
    return {kind.rpartition(" ")[2]: normal(*shapes[kind]) for kind in sorted(kinds)}


def in_one_piece(terms: Terms, v: Tensor) -> Tensor:
    scores = torch.zeros(B, H, T, S, dtype=v.dtype)
    if terms.q is not None and terms.k is not None:
        scores = scores + terms.q @ terms.k.mT
    if terms.key_bias is not None:
        scores = scores + terms.key_bias
    if terms.table is not None:
        cut = terms.table[:, terms.first_row : terms.first_row + T, :S]
        scores = scores + (cut if terms.scale is None else terms.scale * cut)
    if terms.outer is not None and terms.inner is not None:
        scores = scores + torch.stack([terms.outer[..., j // 3] * terms.inner[..., j % 3] for j in range(S)], dim=-1)
    future = torch.ones(T, S, dtype=torch.bool).triu(S - T + 1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v


def gradients(out: Tensor, of: Iterator[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    return list(torch.autograd.grad((out * weights).sum(), list(of)))


@pytest.mark.parametrize("numbers", [1, 2 * H * 3 * S, 10**6])
@pytest.mark.parametrize("rows", [1, 3, 50])
@pytest.mark.parametrize("first_row", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_formula_and_so_is_its_gradient(kind: str, first_row: int, rows: int, numbers: int) -> None:
    parts = terms_of(KINDS[kind], first_row)
    terms = Terms(**parts, first_row=first_row)  # type: ignore[arg-type]
    v = torch.randn(B, H, S, W, dtype=torch.float64, requires_grad=True)
    found, expected = attend(terms, v, T, rows, numbers), in_one_piece(terms, v)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    learning = [*parts.values(), v]
    both = (gradients(out, iter(learning)) for out in (found, expected))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_its_tiles_are_the_scores(kind: str) -> None:
    terms = Terms(**terms_of(KINDS[kind], 2), first_row=2)  # type: ignore[arg-type]
    expected = in_one_piece(terms, torch.eye(S, dtype=torch.float64).expand(B, H, -1, -1))  # the weights
    begins = range(0, T, 3)
    texts = [slice(0, B)] if terms.shared else [slice(0, 2), slice(2, B)]
    tiles = terms.tiles(B, T, S, texts[0].stop, 3)
    for some in texts:
        for begin in begins:
            scores = next(tiles)
            n, end = scores.shape[-2:]
            weights = scores.masked_fill(torch.ones(n, end, dtype=torch.bool).triu(end - n + 1), -torch.inf).softmax(-1)
            rows = expected[some, :, begin : begin + n, :end]
            torch.testing.assert_close(weights.expand_as(rows), rows)
    assert next(tiles, None) is None


def test_a_gradient_can_be_asked_for_twice() -> None:
    parts = terms_of(KINDS["everything"], 0)
    out = attend(Terms(**parts), torch.randn(B, H, S, W, dtype=torch.float64), T, 3, 1).sum()  # type: ignore[arg-type]
    first, second = (torch.autograd.grad(out, list(parts.values()), retain_graph=True) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_learns_nothing_gets_no_gradient() -> None:
    """A fixed table, as of ALiBi or of a random synthesizer that is not trained."""
    parts = {name: part.detach() for name, part in terms_of(KINDS["products and a table"], 0).items()}
    v = torch.randn(B, H, S, W, dtype=torch.float64, requires_grad=True)
    terms = Terms(**parts)  # type: ignore[arg-type]
    found, expected = (gradients(out, iter([v])) for out in (attend(terms, v, T, 3, 1), in_one_piece(terms, v)))
    torch.testing.assert_close(found, expected)


def test_a_table_learns_behind_a_factor_that_does_not() -> None:
    """A mixture whose α is held fixed: what the table gets is still multiplied by it."""
    parts = terms_of(KINDS["everything"], 2)
    parts["scale"] = parts["scale"].detach()
    terms, v = Terms(**parts, first_row=2), torch.randn(B, H, S, W, dtype=torch.float64)  # type: ignore[arg-type]
    learning = [part for name, part in parts.items() if name != "scale"]
    found, expected = (gradients(out, iter(learning)) for out in (attend(terms, v, T, 3, 1), in_one_piece(terms, v)))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_under_autocast_scores_stay_in_float32() -> None:
    parts = {name: part.float() for name, part in terms_of(KINDS["everything"], 0).items()}
    terms, v = Terms(**parts), torch.randn(B, H, S, W)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(terms, v, T, 3, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, in_one_piece(terms, v))


@pytest.mark.parametrize("attention", ["synthesizer", "synthesizer_random_vanilla", "synthesizer_factorized_random"])
def test_dropped_weights_go_the_other_way(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The written-out gradient knows no dropout: in training with it the layer must not take that way."""
    monkeypatch.setattr(scored, "attend", None)
    model = roughened(tiny(attention, dropout=0.1))
    x = torch.randint(0, 20, (3, T))
    model.train()(x)
    with pytest.raises(TypeError, match="not callable"):
        model.eval()(x)
