"""Where accuracy comes from: the slices of metrics.json, a variant's seeds taken together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from birthplace_lm.evaluation.exact_match import wilson
from birthplace_lm.report.comparing import Variant
from birthplace_lm.report.looks import SERIES, short, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLICES = {
    "train_frequency": ("By train frequency of the place", "train people born in the place that is the answer"),
    "answer_end": ("By where the answer ends", "characters of the biography up to the end of the answer"),
    "answer_in_document": ("By whether the biography holds the answer", "the answer in the person’s biography"),
    "name_script": ("By the script of the name", "letters of the name"),
}


@dataclass(frozen=True)
class Pooled:
    """`correct` of `total` answers; `interval` is Wilson's of 95 %, None where there are none."""

    correct: int
    total: int

    @property
    def share(self) -> float | None:
        return self.correct / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson(self.correct, self.total)


def pooled(variant: Variant, name: str) -> dict[str, Pooled]:
    """Label -> the answers of all seeds; empty where a seed has no such slice.

    Seeds answer the same questions, so their answers are not as many independent ones: the intervals say how sure these
    models' share is, not that of other questions.
    """
    tables = [_counts(run.metrics, name) for run in variant.runs]
    if not all(tables):
        return {}
    labels = dict.fromkeys(label for table in tables for label in table)
    counts = {label: [table.get(label, (0, 0)) for table in tables] for label in labels}
    return {label: Pooled(sum(c for c, _ in own), sum(n for _, n in own)) for label, own in counts.items()}


def _counts(metrics: Mapping[str, Any], name: str) -> dict[str, tuple[int, int]]:
    """Label -> right answers and all; empty where the slice is not there, or not what this version writes."""
    try:
        rows = {str(label): (row["correct"], row["total"]) for label, row in metrics["slices"][name].items()}
        return rows if all(0 <= int(correct) <= int(total) for correct, total in rows.values()) else {}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def slice_labels(variants: Sequence[Variant], name: str) -> list[str]:
    """The labels of a slice in their order, those without any question included; none where no variant has it."""
    return list(dict.fromkeys(label for variant in variants for label in pooled(variant, name)))


def slice_picture(variants: Sequence[Variant], name: str, baseline: str) -> "Figure":
    """Exact match label by label with intervals; a label without questions is a gap."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    labels = slice_labels(variants, name)
    coloured = [v for v in shown([v for v in variants if pooled(v, name)], baseline)]
    figure = Figure(figsize=(7.4, 3.7), layout="constrained")
    axes = figure.subplots()
    for i, (variant, (_, colour, style, marker)) in enumerate(zip(coloured, SERIES, strict=False)):
        own = pooled(variant, name)
        cells = [own.get(label, Pooled(0, 0)) for label in labels]
        x = np.arange(len(labels)) + 0.1 * (i - (len(coloured) - 1) / 2)
        y = np.array([np.nan if cell.share is None else cell.share for cell in cells])
        low, high = np.array([cell.interval or (np.nan, np.nan) for cell in cells]).T
        axes.vlines(x, low, high, color=colour, linewidth=1, alpha=0.8)
        axes.plot(x, y, color=colour, linestyle=style, marker=marker, markersize=6, label=short(variant.label))
    axes.set_xticks(
        range(len(labels)), [f"{short(label, 20)}\n{_questions(coloured[0], name, label)}" for label in labels]
    )
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set(xlabel=f"{SLICES[name][1]}; below, questions", ylabel="exact match", ylim=(-0.02, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    return figure


def _questions(variant: Variant, name: str, label: str) -> int:
    """How many questions a seed was asked of this label."""
    return pooled(variant, name).get(label, Pooled(0, 0)).total // variant.seeds
