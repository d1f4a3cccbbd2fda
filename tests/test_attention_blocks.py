"""Long sequences are computed tile by tile: the same function, with no tile seeing more than it may."""

import pytest
import torch
from torch import Tensor, nn

from birthplace_lm.attention import fused, scored, sliding_window
from birthplace_lm.attention.fused_terms import attend_fused
from birthplace_lm.attention.terms import Terms
from birthplace_lm.attention_maps import listening
from tests.helpers import PAIRS, roughened, tiny

KINDS = [pair for pair in PAIRS if pair[1] in {"learned", "rotary", "alibi"}]
SHORT = {"sliding_window": {"window": 4}}
LENGTH = 23


def outputs_and_gradients(attention: str, positions: str) -> list[Tensor]:
    """What a layer makes of three texts, and the gradients of all its parameters."""
    model = roughened(tiny(attention, positions, knobs=SHORT.get(attention))).double().eval()
    x = torch.randn(3, LENGTH, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for block in model.blocks:
        layer = block.attention
        assert isinstance(layer, nn.Module)
        out = layer(x)
        out.square().sum().backward()
        found += [out.detach(), *(p.grad for p in layer.parameters() if p.grad is not None)]
    return found


@pytest.mark.parametrize("texts", [1, 2, 3])
@pytest.mark.parametrize(("attention", "positions"), KINDS)
def test_tiles_change_nothing(attention: str, positions: str, texts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = outputs_and_gradients(attention, positions)
    for module in (scored, sliding_window):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(scored, "NUMBERS_AT_ONCE", texts * 4 * 5 * LENGTH)  # four heads
    tiles = outputs_and_gradients(attention, positions)
    assert len(whole) == len(tiles) > 2
    for one, other in zip(whole, tiles, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("attention", "positions"), KINDS)
def test_the_fused_kernel_changes_nothing(attention: str, positions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((scored, "LONG"), (fused, "_FEW")):
        monkeypatch.setattr(module, name, LENGTH + 1)
    tiles = outputs_and_gradients(attention, positions)
    for module, name in ((scored, "LONG"), (fused, "_FEW")):
        monkeypatch.setattr(module, name, 0)
    by_kernel = outputs_and_gradients(attention, positions)
    assert len(tiles) == len(by_kernel) > 2
    for one, other in zip(tiles, by_kernel, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("attention", "positions", "length", "taken"),
    [
        ("synthesizer", "learned", scored.LONG, True),
        ("differential", "rotary", scored.LONG, True),
        ("synthesizer", "learned", scored.LONG - 1, False),
        ("differential", "rotary", scored.LONG - 1, False),
        ("differential", "alibi", scored.LONG, False),  # has a table
        ("synthesizer_dense_vanilla", "learned", scored.LONG, False),  # would need wider values
        ("synthesizer_factorized_random", "learned", scored.LONG, False),  # one product for all texts
        ("synthesizer_factorized_dense", "learned", scored.LONG, False),  # has a grid
    ],
)
def test_who_goes_by_the_fused_kernel(
    attention: str, positions: str, length: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def spy(terms: Terms, v: Tensor) -> Tensor:
        calls.append(v.shape[2])
        return attend_fused(terms, v)

    monkeypatch.setattr(scored, "attend_fused", spy)
    knobs = {"rank": 2} if attention == "synthesizer_factorized_random" else None  # narrower than a head
    model = tiny(attention, positions, knobs=knobs, block_size=scored.LONG + 1)
    x = torch.randint(0, 20, (2, length))
    model(x)
    assert calls == ([length] * len(model.blocks) if taken else [])
    monkeypatch.setattr(scored, "LONG", 0)
    cache = model.new_cache()
    model(x[:, :-2], cache, 0)
    calls.clear()
    model(x[:, -2:], cache, length - 2)  # the kernel would take these two for the first
    with listening(model) as heard:
        model(x)
    assert all(heard)
    tiny(attention, positions, knobs=knobs, block_size=length + 1, dropout=0.1).train()(x)
    assert not calls


@pytest.mark.parametrize(("attention", "positions"), KINDS)
def test_tiles_are_causal_and_go_on_from_a_cache(
    attention: str, positions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (scored, sliding_window):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(scored, "NUMBERS_AT_ONCE", 2 * 4 * 5 * LENGTH)  # two texts of the three, then one
    model = roughened(tiny(attention, positions, knobs=SHORT.get(attention))).double().eval()
    x = torch.randint(0, 20, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    before = model(x)
    for at in (4, 5, 12):
        changed = x.clone()
        changed[:, at:] = (changed[:, at:] + 5) % 20
        assert torch.equal(before[:, :at], model(changed)[:, :at])
    cache = model.new_cache()
    parts = [model(x[:, :3], cache, 0), model(x[:, 3:16], cache, 3), model(x[:, 16:], cache, 16)]
    torch.testing.assert_close(torch.cat(parts, 1), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("attention", "positions"), KINDS)
def test_a_text_is_read_by_itself_whatever_else_is_in_its_batch(attention: str, positions: str) -> None:
    model = roughened(tiny(attention, positions, knobs=SHORT.get(attention))).double().eval()
    x = torch.randint(0, 20, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    alone = torch.cat([model(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x), alone, rtol=1e-12, atol=1e-12)
