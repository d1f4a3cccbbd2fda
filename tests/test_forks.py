"""Rows that fork from a cache say what rows that were copied say, for every attention."""

import pytest
import torch
from torch import Tensor

from birthplace_lm.attention_maps import listening
from birthplace_lm.decoding import cache_rows, fork_cache
from birthplace_lm.layer_memory import LayerMemory, Trunk
from birthplace_lm.transformer import Cache, Transformer
from tests.helpers import PAIRS, roughened, tiny

FIRST, SECOND = torch.tensor([2, 0, 0, 2, 0, 2]), torch.tensor([5, 1, 1, 0, 3])  # the second of the first's rows


def characters(rows: int, length: int, seed: int) -> Tensor:
    return torch.randint(20, (rows, length), generator=torch.Generator().manual_seed(seed))


def said(model: Transformer, way: object) -> list[Tensor]:
    """Logits of two forks one after the other, with one character and with several behind them."""
    cache = model.new_cache()
    out = [model(characters(3, 7, 0), cache, 0)]
    for number, rows in enumerate((FIRST, SECOND)):
        cache = way(cache, rows)  # type: ignore[operator]
        for length, seed in ((1, 1), (3, 2), (1, 3)):
            offset = 7 + 5 * number + sum((1, 3)[: seed - 1])
            out.append(model(characters(len(rows), length, seed), cache, offset))
    return out


@pytest.mark.parametrize(("attention", "positions"), PAIRS)
def test_forked_rows_say_what_copied_ones_say(attention: str, positions: str) -> None:
    model = roughened(tiny(attention, positions)).double().eval()
    with torch.inference_mode():
        for one, other in zip(said(model, fork_cache), said(model, cache_rows), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("attention", ["vanilla", "vanilla_qk_norm", "grouped_query", "multi_query", "single_head"])
def test_who_listens_hears_the_weights_of_all_positions(attention: str) -> None:
    model = roughened(tiny(attention)).double().eval()
    heard = []
    for way in (fork_cache, cache_rows):
        cache = model.new_cache()
        model(characters(3, 7, 0), cache, 0)
        with listening(model) as weights:
            model(characters(len(FIRST), 2, 1), way(cache, FIRST), 7)
        heard.append([tensor.clone() for of_layer in weights for tensor in of_layer])
    for one, other in zip(*heard, strict=True):
        assert one.shape[-1] == 9
        torch.testing.assert_close(one, other)


@torch.inference_mode()
def test_nothing_is_copied_that_rows_share() -> None:
    def numbers(cache: Cache) -> int:
        return sum(tensor.numel() for memory in cache for tensor in memory.values())

    model = tiny("vanilla").eval()
    cache = model.new_cache()
    model(characters(3, 7, 0), cache, 0)
    forked = fork_cache(cache, FIRST)
    assert numbers(forked) == 0 and forked[0].length("k") == 7
    model(characters(len(FIRST), 2, 1), forked, 7)
    again = fork_cache(forked, SECOND)
    assert numbers(again) * 3 * 7 == numbers(cache) * len(SECOND) * 2 and again[0].length("k") == 9
    trunk = again[0].trunk
    assert trunk is not None and trunk.kept["k"].data_ptr() == cache[0]["k"].data_ptr()


@pytest.mark.parametrize("of", [[0], [1, 1, 1], [2, 0, 2, 2, 1, 0], [0, 1, 2]])
def test_a_trunk_multiplies_every_row_with_its_own(of: list[int]) -> None:
    draw = torch.Generator().manual_seed(0)
    kept = {name: torch.randn(3, 2, 5, 4, generator=draw, dtype=torch.float64) for name in ("k", "v")}
    trunk, rows = Trunk(kept, torch.tensor(of)), torch.tensor(of)
    q = torch.randn(len(of), 2, 6, 4, generator=draw, dtype=torch.float64)
    scores = trunk.scores(q)
    torch.testing.assert_close(scores, q @ kept["k"][rows].mT)
    torch.testing.assert_close(trunk.mixed(scores), scores @ kept["v"][rows])
    some = torch.tensor([len(of) - 1, 0])
    torch.testing.assert_close(trunk.rows(some).scores(q[some]), scores[some])


def test_without_rows_nothing_is_multiplied() -> None:
    kept = {name: torch.randn(3, 2, 5, 4) for name in ("k", "v")}
    trunk = Trunk(kept, torch.tensor([], dtype=torch.long))
    assert trunk.scores(torch.randn(0, 2, 6, 4)).shape == (0, 2, 6, 5)


def test_rows_of_nothing_begin_anew() -> None:
    forked = LayerMemory(forks=True).fork(FIRST)
    assert forked.length("k") == 0 and forked.trunk is None


def test_a_memory_that_does_not_fork_copies() -> None:
    memory = LayerMemory({"k": torch.randn(3, 2, 5, 4)})
    forked = memory.fork(FIRST)
    assert forked.trunk is None and torch.equal(forked["k"], memory["k"][FIRST])
