"""Numbers that have to be finite: looked at as they come on a processor, before anything is written on a GPU."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from birthplace_lm.finiteness import FiniteNumbers, NonFiniteLossError


def on_gpu(value: float) -> Any:
    """As much of a scalar on a GPU as is looked at."""
    return SimpleNamespace(device=SimpleNamespace(type="cuda"), float=lambda: torch.tensor(value))


def test_on_a_processor_a_number_is_looked_at_as_it_comes() -> None:
    numbers = FiniteNumbers()
    numbers.see("the loss", torch.tensor(2.5), 1)
    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 2: nothing of it was saved"):
        numbers.see("the loss", torch.tensor(float("nan")), 2)


def test_on_a_gpu_the_first_that_is_not_finite_is_found_when_they_are_looked_at() -> None:
    numbers = FiniteNumbers()
    for step, value in enumerate((2.5, float("inf"), float("nan")), start=4):
        numbers.see("the gradient's norm", on_gpu(value), step)
    with pytest.raises(NonFiniteLossError, match="the gradient's norm is inf at step 5"):
        numbers.look()
    numbers.see("the loss", on_gpu(1.0), 7)
    numbers.look()  # what was told once is not told again
