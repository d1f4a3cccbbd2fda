"""A layer's memory is what torch.cat would have made of everything, whatever room it has."""

import pytest
import torch
from torch import Tensor

from birthplace_lm.layer_memory import _ROOM, LayerMemory


def part(length: int, seed: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, 3, length, 4, generator=torch.Generator().manual_seed(seed))


def grown(*lengths: int) -> LayerMemory:
    memory = LayerMemory()
    for seed, length in enumerate(lengths):
        memory.append("k", part(length, seed))
    return memory


LENGTHS = [[5, 1, 1, 1], [1] * (2 * _ROOM + 5), [1, _ROOM + 3, 1, 2 * _ROOM, 1], [7]]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_what_is_appended_stands_behind_what_was_there(mode: type, lengths: list[int]) -> None:
    memory, parts = LayerMemory(), [part(length, seed) for seed, length in enumerate(lengths)]
    told = []
    with mode():
        for number, new in enumerate(parts, start=1):
            so_far = memory.append("k", new)
            assert torch.equal(so_far, torch.cat(parts[:number], dim=2)) and memory["k"] is so_far
            told.append((so_far, so_far.clone()))
    assert all(torch.equal(one, as_it_was) for one, as_it_was in told)


@torch.inference_mode()
def test_while_there_is_room_nothing_is_copied() -> None:
    memory = grown(5, 1, 1)
    at = memory["k"].data_ptr()
    for number in range(_ROOM):
        assert memory.append("k", part(1, number)).data_ptr() == at
    assert memory.append("k", part(1, 0)).data_ptr() != at


@torch.inference_mode()
def test_rows_go_on_by_themselves() -> None:
    memory = grown(4, 1, 1)
    before = memory["k"].clone()
    some, others = memory.rows(torch.tensor([1, 1, 0])), memory.rows(torch.tensor([1]))
    for one in (some, others, memory):
        one.append("k", part(1, 9, rows=len(one["k"])))
    assert torch.equal(some["k"][:, :, :6], before[[1, 1, 0]]) and torch.equal(others["k"][:, :, :6], before[[1]])
    assert torch.equal(some["k"][:, :, 6:], part(1, 9, rows=3)) and torch.equal(memory["k"][:, :, 6:], part(1, 9))


@torch.inference_mode()
def test_what_was_put_there_by_hand_is_what_is_gone_on_from() -> None:
    """As a sliding window does, which lets go of the first positions."""
    memory, last = grown(5, 1, 1), part(3, 2)
    kept = memory["k"][:, :, 2:].clone()
    memory["k"] = memory["k"][:, :, 2:]
    assert torch.equal(memory.append("k", last), torch.cat((kept, last), dim=2))
    memory["k"] = last[:, :, :1]
    assert torch.equal(memory.append("k", last), torch.cat((last[:, :, :1], last), dim=2))
    assert torch.equal(last, part(3, 2))


def test_gradients_reach_everything() -> None:
    parts = [part(length, seed).requires_grad_() for seed, length in enumerate((3, 1, 2, 1, 1))]
    memory = LayerMemory()
    losses = [memory.append("k", new).square().sum() for new in parts]
    torch.stack(losses).sum().backward()
    for times, new in zip((5, 4, 3, 2, 1), parts, strict=True):
        torch.testing.assert_close(new.grad, 2 * times * new.detach())
