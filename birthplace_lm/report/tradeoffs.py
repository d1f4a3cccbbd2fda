"""What accuracy costs: exact match against minutes of training, or against parameters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from birthplace_lm.report.comparing import Variant
from birthplace_lm.report.looks import BLUE, GREY, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = {"minutes": "minutes of training, mean over seeds", "parameters": "million parameters"}


def cost(variant: Variant, of: str) -> float:
    """Minutes of training, or million parameters: the mean over seeds."""
    value = variant.mean("seconds" if of == "minutes" else "parameters")
    assert value is not None  # every finished run has both
    return value / 60 if of == "minutes" else value / 1e6


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points (cost, gain) that no other beats: none costs as little and gains more, or gains as much for less.

    Cheapest first; of equal points the first.

    >>> front([(2, 0.5), (1, 0.2), (3, 0.4), (2, 0.5)])
    [1, 0]
    """
    best, found = float("-inf"), []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[i][1] > best:
            best = points[i][1]
            found.append(i)
    return found


def tradeoff(variants: Sequence[Variant], of: str) -> "Figure":
    """A ring a variant; those that none beats are numbered, cheapest first, and joined by steps."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    points = [(cost(variant, of), variant.exact_match) for variant in variants]
    best = front(points)
    figure = Figure(figsize=(7.4, 3.9), layout="constrained")
    axes = figure.subplots()
    x, y = zip(*points, strict=True)
    axes.plot(x, y, "o", markerfacecolor="none", markeredgecolor=GREY, markersize=7, label="beaten by another")
    xs, ys = [x[i] for i in best], [y[i] for i in best]
    axes.plot(xs, ys, drawstyle="steps-post", color=BLUE, linewidth=1, alpha=0.7)
    for number, i in enumerate(best, start=1):
        label = f"{number}  {short(variants[i].label)}" if number <= 12 else None
        axes.plot(x[i], y[i], "o", color=BLUE, markersize=8, label=label)
        axes.annotate(str(number), (x[i], y[i]), (-4, 6), textcoords="offset points", ha="right", fontsize=10)
    axes.set(xlabel=COSTS[of], ylabel="exact match", ylim=(0, None))
    axes.margins(x=0.12, y=0.15)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.grid()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False, title="none is better for less",
        alignment="left",
    )  # fmt: skip
    return figure
