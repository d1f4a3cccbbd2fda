"""One attention layer, forward and backward: what every variant takes against vanilla, measured and by its arithmetic.

The arithmetic is told twice: by the number of operations, all alike, and by the time they take at this machine's own
rates, since a processor does many times more multiplications a second in a matrix product than number by number. Where
measured time and that part, it goes elsewhere than into arithmetic: into memory, or into many small operations.

Legend: B batch, T time, D width, H heads.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from birthplace_lm.benchmarks.arithmetic import Arithmetic, count, forward_backward
from birthplace_lm.benchmarks.matmul import MatmulRate
from birthplace_lm.positions.learned import LearnedPositions

BASELINE = "vanilla"
Factory = Callable[..., nn.Module]


@dataclass(frozen=True)
class Size:
    """The reference layer: width, heads, layers of the model it stands in, and how many tokens a batch has at any T."""

    d_model: int = 256
    n_heads: int = 8
    n_layers: int = 4
    tokens: int = 4096

    def rows(self, length: int) -> int:
        """B, such that B·T stays the same as far as it divides."""
        return max(1, self.tokens // length)

    def inputs(self, length: int) -> Tensor:
        """Random numbers (B, T, D), like what a norm hands to a layer."""
        draw = torch.Generator().manual_seed(length)
        return torch.randn(self.rows(length), length, self.d_model, generator=draw)


@dataclass(frozen=True)
class Rates:
    """Operations a second of this machine, measured: in the matrix products of a layer, and number by number."""

    products: float
    elementwise: float

    @classmethod
    def measured(cls, size: Size, repetitions: int = 5) -> "Rates":
        """Products of the layer's projections; sums of 2¹⁶ numbers, few enough to stay near the processor."""
        matmul = MatmulRate(nn.Linear(size.d_model, size.d_model), [size.tokens])
        numbers = torch.rand(2**16)
        pairs = [(matmul.measure(), _sums_a_second(numbers)) for _ in range(repetitions)]
        return cls(*(median(rates) for rates in zip(*pairs, strict=True)))

    def seconds(self, arithmetic: Arithmetic) -> float:
        """How long so much arithmetic takes, nothing else being in the way."""
        return arithmetic.products / self.products + arithmetic.elementwise / self.elementwise


def _sums_a_second(numbers: Tensor, times: int = 100) -> float:
    out = torch.empty_like(numbers)
    begin = time.perf_counter()
    for _ in range(times):
        torch.add(numbers, numbers, out=out)
    return times * numbers.numel() / (time.perf_counter() - begin)


def kinds_of_layers(factory: Factory, size: Size, length: int) -> list[tuple[nn.Module, float]]:
    """The different layers that a model of this attention has, at this length, and each one's share of the layers.

    One layer for most; several where a factory alternates. Only one of a kind is kept: tables of T × T are large.
    """
    small = LearnedPositions(32, size.d_model, size.n_heads)
    spare = max(32 - _layer(factory, size, 32, small).max_length for _ in range(size.n_layers))
    positions = LearnedPositions(length, size.d_model, size.n_heads)  # one object a model, as a model has it
    layers: dict[Any, nn.Module] = {}
    found: list[Any] = []
    for _ in range(size.n_layers):
        layer = _layer(factory, size, length + spare, positions)
        found.append(_kind(layer))
        layers.setdefault(found[-1], layer)
    return [(layer, found.count(kind) / len(found)) for kind, layer in layers.items()]


def _layer(factory: Factory, size: Size, block_size: int, positions: LearnedPositions) -> Any:
    return factory(
        d_model=size.d_model, n_heads=size.n_heads, block_size=block_size, dropout=0.0, positions=positions
    )  # fmt: skip


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    """What tells two layers apart: the classes of their modules and the numbers these hold."""
    return tuple(
        (type(module), *((name, value) for name, value in vars(module).items() if isinstance(value, int | float)))
        for module in layer.modules()
    )


def arithmetic_of(layers: Sequence[tuple[nn.Module, float]], x: Tensor) -> Arithmetic:
    """Forward and backward of one layer, the mean over the model's layers."""
    counted = [(count(partial(forward_backward, layer, x)), share) for layer, share in layers]
    return Arithmetic(
        round(sum(share * one.products for one, share in counted)),
        round(sum(share * one.elementwise for one, share in counted)),
    )


def seconds_of(layers: Sequence[tuple[nn.Module, float]], x: Tensor) -> float:
    """Forward and backward of one layer, the mean over the model's layers."""
    total = 0.0
    for layer, share in layers:
        begin = time.perf_counter()
        forward_backward(layer, x)
        total += share * (time.perf_counter() - begin)
    return total


def compare(
    factories: Mapping[str, Factory],
    lengths: Sequence[int],
    repetitions: int = 5,
    patience: float = 20.0,
    size: Size = Size(),
) -> Iterator[dict[str, Any]]:
    """A row for every variant and length, as soon as it is measured.

    Vanilla and the variant take turns, so that the machine's drift meets both; the ratio is the median of the pairs'.
    After `patience` seconds no further pair is begun, so that a slow variant is measured less often and not for hours.
    """
    rates = Rates.measured(size)
    for length in lengths:
        x = size.inputs(length)
        vanilla = kinds_of_layers(factories[BASELINE], size, length)
        by_vanilla = arithmetic_of(vanilla, x)
        for name, factory in factories.items():
            layers = kinds_of_layers(factory, size, length)
            own = arithmetic_of(layers, x)
            pairs = _pairs(vanilla, layers, x, repetitions, patience)
            expected = (own.total / by_vanilla.total, rates.seconds(own) / rates.seconds(by_vanilla))
            yield _row(name, length, x.shape[0] * length, expected, pairs)
            del layers  # before the next variant's are built


def _pairs(
    vanilla: Sequence[tuple[nn.Module, float]],
    layers: Sequence[tuple[nn.Module, float]],
    x: Tensor,
    repetitions: int,
    patience: float,
) -> list[tuple[float, float]]:
    """(seconds of vanilla, seconds of the variant) a repetition, after one of each to warm up."""
    seconds_of(vanilla, x)
    seconds_of(layers, x)
    begin = time.perf_counter()
    pairs: list[tuple[float, float]] = []
    while len(pairs) < repetitions and (not pairs or time.perf_counter() - begin < patience):
        pairs.append((seconds_of(vanilla, x), seconds_of(layers, x)))
    return pairs


def _row(
    name: str, length: int, tokens: int, expected: tuple[float, float], pairs: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """`expected` is the ratio that the operations say, by their number and by their time."""
    measured = median(seconds / baseline for baseline, seconds in pairs)
    by_number, by_time = expected
    return {
        "attention": name,
        "length": length,
        "microseconds_a_token": 1e6 * median(seconds for _, seconds in pairs) / tokens,
        "repetitions": len(pairs),
        "ratio": measured,
        "arithmetic_ratio": by_number,
        "over_arithmetic": measured / by_number,
        "arithmetic_time_ratio": by_time,
        "over_arithmetic_time": measured / by_time,
    }


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a variant, a column a length: measured ratio, in brackets what arithmetic says by number and by time."""
    lengths = sorted({row["length"] for row in rows})
    cells = {
        (row["attention"], row["length"]): (
            f"{row['ratio']:.2f} ({row['arithmetic_ratio']:.2f}, {row['arithmetic_time_ratio']:.2f})"
        )
        for row in rows
    }
    names = list(dict.fromkeys(row["attention"] for row in rows))
    lines = [
        f"| attention | {' | '.join(f'T = {length:,}' for length in lengths)} |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(cells.get((name, length), '–') for length in lengths)} |" for name in names]
    return "\n".join(lines) + "\n"
