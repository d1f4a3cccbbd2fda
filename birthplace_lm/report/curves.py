"""How the loss fell: a variant's curve is the mean over its seeds, by the characters that the model had seen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from birthplace_lm.report.comparing import Variant
from birthplace_lm.report.looks import GREY, SERIES, short, shown
from birthplace_lm.runs import STAGES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 120  # of a curve: as many as a screen shows


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` values at every place, fewer at the beginning."""
    sums = np.cumsum(values)
    first = np.maximum(np.arange(len(values)) - width, -1)  # the last value that is no longer counted
    return (sums - np.where(first < 0, 0, sums[first])) / (np.arange(len(values)) - first)


def mean_curve(curves: Sequence[np.ndarray], points: int = POINTS) -> np.ndarray | None:
    """(2, points) characters and loss: each curve smoothed over its twentieth, then their mean, where all have one.

    `curves` are (2, steps) each. None where there is none, where one has no characters noted, or where they do not
    overlap.
    """
    if not curves or not all(np.isfinite(curve).all() and curve.shape[1] for curve in curves):
        return None
    low, high = max(curve[0, 0] for curve in curves), min(curve[0, -1] for curve in curves)
    if low > high:
        return None
    grid = np.linspace(low, high, points)
    smooth = [np.interp(grid, x, running_mean(y, max(len(y) // 20, 1))) for x, y in curves]
    return np.stack([grid, np.mean(smooth, axis=0)])


def stage_curves(variants: Sequence[Variant], stage: str) -> dict[str, np.ndarray]:
    """The mean curve of every variant all of whose seeds have one of that stage, by label."""
    found = {}
    for variant in variants:
        own = [run.curves[stage] for run in variant.runs if stage in run.curves]
        curve = mean_curve(own) if len(own) == len(variant.runs) else None
        if curve is not None:
            found[variant.label] = curve
    return found


def stages_with_curves(variants: Sequence[Variant]) -> list[str]:
    """The stages that have something to draw, in the order of training."""
    return [stage for stage in STAGES if stage_curves(variants, stage)]


def loss_curves(variants: Sequence[Variant], stage: str, baseline: str) -> "Figure":
    """Loss over characters seen: the best variants and the baseline in colour, the others as thin grey lines."""
    from matplotlib.figure import Figure

    curves = stage_curves(variants, stage)
    looks = zip(shown([v for v in variants if v.label in curves], baseline), SERIES, strict=False)
    coloured = {variant.label: look for variant, look in looks}
    figure = Figure(figsize=(7.4, 3.9), layout="constrained")
    axes = figure.subplots()
    for label in [label for label in curves if label not in coloured]:
        axes.plot(curves[label][0] / 1e6, curves[label][1], color=GREY, linewidth=0.6, alpha=0.6, zorder=1)
    for label, (_, colour, style, _) in coloured.items():
        axes.plot(curves[label][0] / 1e6, curves[label][1], color=colour, linestyle=style, label=short(label), zorder=2)
    values = np.concatenate([curve[1] for curve in curves.values()])
    axes.set(xlabel="million characters seen", ylabel="loss, nats a target", ylim=(0, _top(values)))
    axes.grid(axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    return figure


def _top(values: np.ndarray) -> float:
    """Where the axis ends: the first fall of the loss may leave the picture, the rest may not."""
    return float(min(values.max(), 1.6 * np.quantile(values, 0.9)) * 1.05) or 1.0
