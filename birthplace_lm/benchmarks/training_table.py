"""What the timings of ways to train amount to: medians, ratios, shares, and a table of them."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from birthplace_lm.benchmarks.training import BARE, LAYOUTS, LIGHTNING, PEERS, TEXTBOOK, Timing, names_of

Row = Mapping[str, Any]
MEBIBYTE = 2**20
COLUMNS = (
    ("real characters/s", "characters_per_second", "{:,.0f}"),
    ("ms a step", "step_milliseconds", "{:,.0f}"),
    ("to the textbook loop", "ratio", "{:.2f} x"),
    ("to the best padded peer", "ratio_to_best_padded_peer", "{:.2f} x"),
    ("to the best length-aware peer", "ratio_to_best_length_aware_peer", "{:.2f} x"),
    ("of the matmul rate", "share_of_matmul_rate", "{:.0%}"),
    ("peak memory, MiB", "peak_memory", "{:,.0f}"),
    ("of it while training", "memory_of_training", "{:,.0f}"),
    ("weights", "parameters", "{:,}"),
)


def rows(
    timings: Sequence[Timing], matmul_rates: Sequence[float], memory: Mapping[str, Mapping[str, int]]
) -> list[Row]:
    """A row a way, None where something was not measured or has nothing to be compared with.

    Ratios are medians of those repetition by repetition, so that the machine's drift cancels; the best peer of a layout
    is the one with the highest median. `memory` holds bytes: the peak of a process, and what it had before training.
    """
    by_name = {timing.name: timing for timing in timings}
    best = [_fastest([by_name[n] for way in PEERS for n in names_of(way) if n in by_name and n.endswith(layout)])
            for layout in LAYOUTS]  # fmt: skip
    return [
        {
            "name": own.name,
            "parameters": own.parameters,
            "characters_per_second": median(own.rates),
            "step_milliseconds": 1000 * median(own.seconds) / own.steps,
            "ratio": ratio(own, by_name.get(TEXTBOOK)),
            "ratio_to_best_padded_peer": ratio(own, best[0]),
            "ratio_to_best_length_aware_peer": ratio(own, best[1]),
            "products_a_step": own.products,
            "share_of_matmul_rate": own.products * own.steps / median(own.seconds) / median(matmul_rates),
            **_memory(memory.get(own.name)),
        }
        for own in timings
    ]


def _fastest(timings: Sequence[Timing]) -> Timing | None:
    return max(timings, key=lambda timing: median(timing.rates), default=None)


def ratio(own: Timing, other: Timing | None) -> float | None:
    """How many times the other's rate, the median of the repetitions' ratios; None without another."""
    return None if other is None else median(a / b for a, b in zip(own.rates, other.rates, strict=True))


def _memory(found: Mapping[str, int] | None) -> dict[str, float | None]:
    """In MiB: the peak, and how far above what stood there before the first step."""
    if found is None:
        return {"peak_memory": None, "memory_of_training": None}
    before, peak = found["before"], found["peak"]
    return {"peak_memory": peak / MEBIBYTE, "memory_of_training": (peak - before) / MEBIBYTE}


def lightning_overhead(timings: Sequence[Timing]) -> float | None:
    """How much longer a step takes through Lightning than bare, as a share; None unless both were measured."""
    by_name = {timing.name: timing for timing in timings}
    if BARE not in by_name or LIGHTNING not in by_name:
        return None
    pairs = zip(by_name[LIGHTNING].seconds, by_name[BARE].seconds, strict=True)
    return median(one / other for one, other in pairs) - 1


def cells(row: Row) -> list[str]:
    """A row as text, "–" where it has no figure."""
    return [row["name"], *("–" if row[key] is None else form.format(row[key]) for _, key, form in COLUMNS)]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    head = ["way", *(title for title, _, _ in COLUMNS)]
    lines = [head, ["---", *["---:"] * len(COLUMNS)], *(cells(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def text(rows: Sequence[Row]) -> str:
    """The rows as lines for a terminal, columns aligned, their titles in two lines."""
    halves = [_halves(title) for title in ("way", *(title for title, _, _ in COLUMNS))]
    lines = [[half[0] for half in halves], [half[1] for half in halves], *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "".join(f"{'  '.join(_aligned(line, widths)).rstrip()}\n" for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, figures to the right."""
    return [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]


def _halves(title: str) -> tuple[str, str]:
    """A title in two lines of about the same length.

    >>> _halves("to the best padded peer")
    ('to the best', 'padded peer')
    """
    words = title.split()
    cut = min(range(1, len(words) + 1), key=lambda i: max(len(" ".join(words[:i])), len(" ".join(words[i:]))))
    return " ".join(words[:cut]), " ".join(words[cut:])
