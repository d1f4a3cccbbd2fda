"""Learning rates over a run: factors of the peak by positions seen, so that another batch size keeps the shape."""

import math
from collections.abc import Callable
from dataclasses import dataclass

# (target positions seen, the running batch included; target positions of the whole run) -> share of the peak rate
Schedule = Callable[[float, float], float]


@dataclass(frozen=True)
class Constant:
    """The peak rate throughout."""

    def __call__(self, seen: float, total: float) -> float:
        return 1.0


@dataclass(frozen=True)
class WarmupCosine:
    """A linear warm-up, then one half-cosine that reaches its floor before the run ends: max(floor, ½(1 + cos πp)).

    >>> schedule = WarmupCosine(warmup_positions=100)
    >>> [round(schedule(seen, 1100), 3) for seen in (50, 100, 600, 1100)]
    [0.5, 1.0, 0.5, 0.1]
    """

    warmup_positions: float = 10_240
    floor: float = 0.1

    def __post_init__(self) -> None:
        _check(self.warmup_positions, floor=self.floor)

    def __call__(self, seen: float, total: float) -> float:
        if seen < self.warmup_positions:
            return seen / self.warmup_positions
        progress = (seen - self.warmup_positions) / max(1.0, total - self.warmup_positions)
        return max(self.floor, _half_cosine(min(1.0, progress)))


@dataclass(frozen=True)
class HandoutCosine:
    """The course handout's cosine, with its trap: it ends at `final_positions` and not with the run, then rises again.

    The rate is back at its peak at twice `final_positions`, falls, and so on. The handout's 200 epochs' worth put that
    second peak at 62 % of a run of 650 epochs, and the run ends rising. Kept to reproduce the published figures.
    """

    warmup_positions: float
    final_positions: float
    floor: float = 0.1

    def __post_init__(self) -> None:
        _check(self.warmup_positions, floor=self.floor)
        if self.final_positions <= self.warmup_positions:
            raise ValueError(
                f"a cosine that ends at {self.final_positions:,} positions would be over before its warm-up of "
                f"{self.warmup_positions:,}: raise final_positions"
            )

    def __call__(self, seen: float, total: float) -> float:
        if seen < self.warmup_positions:
            return seen / self.warmup_positions
        progress = (seen - self.warmup_positions) / max(1.0, self.final_positions - self.warmup_positions)
        return max(self.floor, _half_cosine(progress))


@dataclass(frozen=True)
class WarmupLinearDecay:
    """A linear warm-up, the peak, then linearly to 0 over the last `decay_share` of the run (a trapezoid).

    >>> schedule = WarmupLinearDecay(warmup_positions=100, decay_share=0.2)
    >>> [schedule(seen, 1000) for seen in (50, 500, 800, 900, 1000)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    warmup_positions: float = 10_240
    decay_share: float = 0.2

    def __post_init__(self) -> None:
        _check(self.warmup_positions, decay_share=self.decay_share)

    def __call__(self, seen: float, total: float) -> float:
        if seen < self.warmup_positions:
            return seen / self.warmup_positions
        left = total - seen
        return min(1.0, max(0.0, left / max(1.0, self.decay_share * total)))


def _check(warmup_positions: float, **shares: float) -> None:
    """Raise ValueError for a warm-up of fewer than 0 positions and for what is no share of 1."""
    if warmup_positions < 0:
        raise ValueError(f"a warm-up of {warmup_positions:,} positions: use 0 or more")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is a share in 0 … 1, not {share}")


def _half_cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))
