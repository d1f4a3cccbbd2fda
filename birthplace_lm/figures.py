"""Pictures of a run, drawn from its files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from birthplace_lm.history import read_history
from birthplace_lm.runs import STAGES, RunFolder


def loss_curves(folder: RunFolder) -> Path | None:
    """loss.png in the run folder: every stage's loss over real characters seen, and dev exact match on the way.

    The thin line is the loss of single batches, the thick one a running mean over a twentieth of the curve. None where
    no stage has a history.
    """
    histories = {stage: read_history(folder.stage(stage).history) for stage in STAGES if folder.stage(stage).finished}
    histories = {stage: history for stage, history in histories.items() if history.get("train/loss")}
    if not histories:
        return None
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(figsize=(4.2 * len(histories), 3.4), layout="constrained")
    for axes, (stage, history) in zip(
        figure.subplots(1, len(histories), squeeze=False)[0], histories.items(), strict=True
    ):
        steps, characters = zip(*history["train/characters"], strict=True)
        x = np.interp([step for step, _ in history["train/loss"]], steps, characters) / 1e6
        y = [loss for _, loss in history["train/loss"]]
        axes.plot(x, y, "o-" if len(y) < 20 else "-", color="tab:blue", alpha=0.3, linewidth=0.8, markersize=3)
        axes.plot(x, _running_mean(y, max(len(y) // 20, 1)), color="tab:blue")
        axes.set(
            title=f"{folder.name}\n{stage}", xlabel="million characters", ylabel="loss, nats a target", ylim=(0, None)
        )
        axes.title.set_fontsize(8)
        if matches := history.get("validation/exact_match"):
            right = axes.twinx()
            at = np.interp([step for step, _ in matches], steps, characters) / 1e6
            right.plot(at, [share for _, share in matches], "o-", color="tab:orange", markersize=3)
            right.set(ylabel="dev exact match", ylim=(0, 1))
            right.yaxis.label.set_color("tab:orange")
    path = folder.root / "loss.png"
    figure.savefig(path, dpi=130)
    return path


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of the last `width` values at every place, fewer at the beginning."""
    return [sum(part) / len(part) for i in range(len(values)) if (part := values[max(0, i + 1 - width) : i + 1])]
