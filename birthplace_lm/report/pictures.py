"""Variants as a picture."""

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from birthplace_lm.report.comparing import Variant
from birthplace_lm.report.looks import BLUE, GREY, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def exact_match_by_variant(variants: Sequence[Variant], title: str = "exact match on dev") -> "Figure":
    """A row a variant: its mean, its interval as a line, and every seed as a ring."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    labels = [wrap(short(variant.label, 120), 46) for variant in variants]
    lines = max(map(len, labels))
    figure = Figure(figsize=(7, 1.1 + (0.14 + 0.14 * lines) * len(variants)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(variants))[::-1]  # the first on top
    seeds = [(run.exact_match, row) for row, variant in zip(rows, variants, strict=True) for run in variant.runs]
    axes.hlines(rows, *zip(*(variant.interval for variant in variants), strict=True), color=BLUE, linewidth=2)
    axes.plot(*zip(*seeds, strict=True), "o", markerfacecolor="none", markeredgecolor=GREY, markersize=7)
    axes.plot([variant.exact_match for variant in variants], rows, "o", color=BLUE, markersize=5)
    axes.set_yticks(range(len(variants)), ["\n".join(label) for label in reversed(labels)])
    most = max(max(variant.interval[1], *(run.exact_match for run in variant.runs)) for variant in variants)
    axes.set(xlim=(-0.01, min(1.01, 1.1 * most + 0.02)), ylim=(-0.6, len(variants) - 0.4), title=title)
    figure.supxlabel("filled: mean over seeds, ring: one seed, line: 95 % interval", fontsize="medium")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure
