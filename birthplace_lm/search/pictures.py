"""Pictures of a search: what the trials came to, one after the other and by their values, and which values mattered."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birthplace_lm.replacing import replace_file
from birthplace_lm.report.looks import BLUE, GREY, SERIES, drawing, short
from birthplace_lm.search.space import Options, Range, Space
from birthplace_lm.search.study import SharedStudy
from birthplace_lm.search.table import Row, short_keys, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST = 10  # finished trials below which no importance is drawn
_RED = SERIES[1][1]


def draw(study: SharedStudy, rows: Sequence[Row]) -> list[str]:
    """Write history.png, parameters.png and importance.png beside the journal; a sentence on each that cannot be."""
    if not any(row.reported or row.dev for row in rows):
        return ["no pictures: no trial has been validated yet"]
    title = study.folder.name
    with drawing():
        _history(rows, title, study.folder / "history.png")
        _parameters(rows, study.space, title, study.folder / "parameters.png")
        shares, reason = importance(study)
        if not reason:
            _importance(shares, title, study.folder / "importance.png")
    return [f"importance is not defined: {reason}"] if reason else []


def importance(study: SharedStudy) -> tuple[Mapping[str, float], str]:
    """Each key's share in telling the best finished trials from all (PED-ANOVA, Watanabe et al. 2023); or why not.

    The best are a tenth, but five at least, which the method wants. It needs nothing besides Optuna and NumPy.
    """
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import TrialState

    values = [trial.value for trial in study.optuna.get_trials(deepcopy=False, states=[TrialState.COMPLETE])]
    if len(values) < FEWEST:
        return {}, f"{len(values)} trials are finished, {FEWEST} are needed"
    if len(set(values)) == 1:
        return {}, f"all {len(values)} finished trials have the same exact match"
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / len(values)))
    found = evaluator.evaluate(study.optuna)
    total = sum(found.values())
    if not total:
        return {}, "no value tells the best trials from the others"
    return {key: value / total for key, value in found.items()}, ""


def _history(rows: Sequence[Row], title: str, path: Path) -> None:
    """Exact match by trial, with the best so far; pruned trials stand where they were left, failed ones at 0."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    _points(axes, [(row.number, row) for row in rows], whiskers=True)
    done = sorted((row.number, row.exact_match) for row in rows if row.exact_match is not None)
    if done:
        best = [max(share for _, share in done[: i + 1]) for i in range(len(done))]
        last = max(row.number for row in rows)
        axes.step(
            [*(n for n, _ in done), last], [*best, best[-1]], where="post", color=BLUE, lw=1.2, label="best so far"
        )
    axes.set_title(short(title, 70), fontsize=9)
    axes.set_xlabel("trial")
    axes.set_xlim(0.5, max(row.number for row in rows) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    _save(figure, path)


def _points(axes: "Axes", placed: Sequence[tuple[Any, Row]], whiskers: bool = False) -> None:
    """Trials as points: finished with their 95 % interval if wanted, pruned at their last validation, failed at 0."""
    done = [(x, row.exact_match, row) for x, row in placed if row.exact_match is not None]
    left = [(x, row) for x, row in placed if row.state == "pruned" and row.reported]
    lost = [x for x, row in placed if row.state == "failed"]
    if whiskers:
        for x, _, row in done:
            axes.plot([x, x], row.dev["wilson95"], color=BLUE, alpha=0.3, lw=2, solid_capstyle="butt")
    axes.plot([x for x, _, _ in done], [share for _, share, _ in done], "o", color=BLUE, ms=5, label="finished")
    if left:
        last = [row.reported[max(row.reported)] for _, row in left]
        axes.plot([x for x, _ in left], last, "x", color=GREY, ms=6, mew=1.6, label="pruned, as last validated")
    if lost:
        axes.plot(lost, [0] * len(lost), "^", color=_RED, ms=7, clip_on=False, label="failed")
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("exact match, held-out people")
    axes.grid(axis="y")
    axes.spines[["top", "right"]].set_visible(False)


def _parameters(rows: Sequence[Row], space: Space, title: str, path: Path) -> None:
    """Exact match by the value of every key, a panel each."""
    from matplotlib.figure import Figure

    wide = min(len(space), 3)
    high = math.ceil(len(space) / wide)
    figure = Figure(figsize=(max(3.2 * wide, 4.2), 2.9 * high + 0.5), layout="constrained")
    panels = list(figure.subplots(high, wide, squeeze=False, sharey=True).flat)
    for axes, key, name in zip(panels, space, short_keys(list(space)), strict=False):
        _panel(axes, [row for row in rows if key in row.values], key, space[key])
        axes.set_xlabel(name)
        if not axes.get_subplotspec().is_first_col():
            axes.set_ylabel("")
    for axes in panels[len(space) :]:
        axes.set_visible(False)
    figure.suptitle(short(title, 70), fontsize=9)
    handles = {
        label: line
        for axes in panels[: len(space)]
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    _save(figure, path)


def _panel(axes: "Axes", rows: Sequence[Row], key: str, choice: Range | Options) -> None:
    """Exact match by the value of one key, over all that the search may try: what was left out is seen, too."""
    if isinstance(choice, Options):
        _points(axes, [(choice.options.index(row.values[key]), row) for row in rows])
        names = [short(shown(option), 18) for option in choice.options]
        slanted = len("".join(names)) > 24
        axes.set_xticks(
            range(len(names)), names, rotation=25 * slanted, ha="right" if slanted else "center", fontsize=9
        )
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    _points(axes, [(row.values[key], row) for row in rows])
    low, high = choice.low, choice.high
    if choice.log:
        axes.set_xscale("log")
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [tick for decade in decades for m in (1, 3) if low <= (tick := m * 10.0**decade) <= high]
        axes.set_xticks(ticks if len(ticks) > 1 else [low, high])
        axes.set_xticks([], minor=True)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axes.set_xlim(low * (low / high) ** 0.05, high * (high / low) ** 0.05)
    else:
        axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axes.locator_params(axis="x", nbins=6, integer=isinstance(low, int))


def _importance(shares: Mapping[str, float], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.5 + 0.42 * len(shares)), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(shares.items(), key=lambda pair: pair[1])
    bars = axes.barh([short(key, 40) for key, _ in ordered], [share for _, share in ordered], color=BLUE, height=0.62)
    axes.bar_label(bars, [f"{share:.0%}" for _, share in ordered], padding=4, fontsize=9)
    axes.set_xlim(0, 1.1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_xlabel("share in telling the best trials from all (PED-ANOVA)")
    axes.set_title(short(title, 70), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: "Figure", path: Path) -> None:
    """Moved into place, since another worker may draw the same picture."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=140)
    replace_file(path, content.getvalue())
