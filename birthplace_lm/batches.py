"""Which examples, in which order, with which chance: pure functions of (seed, epoch, example).

Nothing here keeps a state, so a batch is the same on every machine, for any number of workers or ranks, and after any
interruption. All the state that the data has is two integers: the seed and the step.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the odd 64-bit number nearest to 2^64 / golden ratio
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_SEEDS_AT_ONCE = 1024  # made together they cost next to nothing each


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch shifts signed integers arithmetically."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def scramble(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014, figure 15): a bijection of 64-bit integers."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def stream(*words: int | Tensor) -> Tensor:
    """A 64-bit number for a tuple of integers; tensors among them broadcast."""
    state = torch.zeros((), dtype=torch.int64)
    for word in words:
        word = torch.as_tensor(word, dtype=torch.int64)
        state = scramble(state.to(word.device) + (word + 1) * _GOLDEN)
    return state


def uniforms(seed: int, epoch: int | Tensor, index: Tensor, n: int) -> Tensor:
    """The n uniform random numbers of each example: index (B,) -> (B, n), float64 in [0, 1).

    >>> bool((uniforms(0, 3, torch.tensor([5, 9]), 4)[1] == uniforms(0, 3, torch.tensor([9]), 4)[0]).all())
    True
    """
    slots = torch.arange(n, device=index.device)
    bits = stream(seed, epoch, index[:, None], slots[None, :])
    return _shift_right(bits, 11).to(torch.float64) * 2.0**-53


def epoch_order(seed: int, epoch: int, n: int) -> Tensor:
    """The order in which an epoch visits n examples: a permutation (n,)."""
    return torch.argsort(stream(seed, epoch, torch.arange(n), -1), stable=True)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """What the random generator of dropout is set to before a step, so that a resumed step repeats the lost one."""
    return _step_seeds(seed, step // _SEEDS_AT_ONCE, rank)[step % _SEEDS_AT_ONCE]


@lru_cache(maxsize=4)
def _step_seeds(seed: int, block: int, rank: int) -> list[int]:
    steps = torch.arange(block * _SEEDS_AT_ONCE, (block + 1) * _SEEDS_AT_ONCE)
    return (stream(seed, steps, rank, -2) & ((1 << 63) - 1)).tolist()


@dataclass(frozen=True)
class Plan:
    """The batches of a training: epochs of some examples, shuffled unless told not to, the last batch of each short."""

    sizes: tuple[int, ...]  # how many examples every epoch has
    batch_size: int
    seed: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"a plan has epochs of at least 1 example, not {len(self.sizes)} of {set(self.sizes)}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")

    @property
    def epochs(self) -> int:
        return len(self.sizes)

    @property
    def total_steps(self) -> int:
        return self._steps_before[-1]

    @cached_property
    def _steps_before(self) -> list[int]:
        """The first step of every epoch, and behind the last the number of all."""
        return list(accumulate((-(-size // self.batch_size) for size in self.sizes), initial=0))

    @cached_property
    def _examples_before(self) -> list[int]:
        return list(accumulate(self.sizes, initial=0))

    def _place(self, step: int) -> tuple[int, int]:
        """(epoch, how many of its steps come before); behind the last step an epoch that there is not."""
        epoch = bisect_right(self._steps_before, step) - 1
        return epoch, step - self._steps_before[epoch]

    def examples_before(self, step: int) -> int:
        """How many examples the steps 0 … step-1 take."""
        epoch, within = self._place(step)
        return min(self._examples_before[epoch] + within * self.batch_size, self._examples_before[-1])

    def epochs_before(self, step: int) -> float:
        """How many epochs the steps 0 … step-1 are, with the share of the one that they end in."""
        epoch, within = self._place(step)
        return epoch + (within and within / (self._steps_before[epoch + 1] - self._steps_before[epoch]))

    def batches(self, start_step: int = 0) -> Iterator[tuple[int, Tensor]]:
        """(epoch, example indices (B,)) for every step from start_step to the end."""
        first_epoch, within = self._place(start_step)
        for epoch in range(first_epoch, self.epochs):
            size = self.sizes[epoch]
            order = epoch_order(self.seed, epoch, size) if self.shuffle else torch.arange(size)
            for index in order.split(self.batch_size)[within:]:
                yield epoch, index
            within = 0


def by_length(lengths: Tensor, parts: int) -> list[Tensor]:
    """Rows of a batch in `parts` groups of like length, longest first: lengths (B,) -> rows of each group.

    Trimmed to about its own longest row, a group holds little padding; the sum of the groups' losses has the batch's
    gradient.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    return [rows for rows in order.tensor_split(min(parts, len(order))) if len(rows)]


def rounded_up(length: int) -> int:
    """A multiple of 4: a quarter as many shapes, for which products are compiled and memory is looked for."""
    return -(-length // 4) * 4


def dealt(lengths: Tensor, ranks: int) -> list[Tensor]:
    """Rows of a batch for each of some ranks, from the longest on, back and forth: lengths (B,) -> rows of each rank.

    Ranks wait for the slowest of them, so their shares hold about as many characters.
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    turn, place = torch.arange(len(order)) // ranks, torch.arange(len(order)) % ranks
    whose = torch.where(turn % 2 == 0, place, ranks - 1 - place)
    return [order[whose == rank] for rank in range(ranks)]
