"""Pictures of how well a model knows what it knows, drawn from the cards that `evaluation` makes.

Every curve has a colour, a line style and a marker of its own, so that it is told apart in grey and by any eye; the
colours are those of Okabe & Ito. Each function returns a figure to be saved.
"""

from collections.abc import Iterable, Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Card = Mapping[str, Any]
_LOOKS = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", (0, (1, 1)), "D"),
    ("#000000", (0, (5, 1, 1, 1, 1, 1)), "v"),
)
_GREY = "0.45"


def risk_coverage(card: Card, names: Iterable[str] | None = None) -> "Figure":
    """Selective risk over coverage for some signals of a `confidence_card`, between a random and the best order.

    By default the five signals of the least AURC. The band is the 95 % interval, coverage by coverage, of the first.
    ValueError where none of the signals has a curve.
    """
    signals = {name: signal for name, signal in card["signals"].items() if signal["curve"] is not None}
    chosen = sorted(signals, key=lambda name: signals[name]["aurc"]["value"])[: len(_LOOKS)] if names is None else names
    drawn = [name for name in chosen if name in signals]
    if not drawn:
        raise ValueError(f"none of {len(card['signals'])} signals has a risk–coverage curve: there is nothing to draw")
    figure, axes = _figure(7.6, 4.0)
    for i, name in enumerate(drawn):
        curve, (colour, style, marker) = signals[name]["curve"], _LOOKS[i % len(_LOOKS)]
        label = f"{name}: {signals[name]['aurc']['value']:.3f}"
        x = 100 * np.array(curve["coverage"])
        axes.plot(x, 100 * np.array(curve["risk"]), color=colour, linestyle=style, marker=marker, markevery=(2 * i, 10),
                  markersize=5, label=label)  # fmt: skip
        if i == 0:
            axes.fill_between(x, 100 * np.array(curve["low"]), 100 * np.array(curve["high"]), color=colour, alpha=0.15)
    _bounds(axes, card)
    axes.set(xlabel="coverage: questions answered, surest first, %", ylabel="selective risk: wrong among them, %")
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.legend(title="signal: AURC (lower is better)", loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8)
    axes.set_title(f"Risk and coverage, {card['questions']} questions, {card['right']} answered right", fontsize=10)
    return figure


def _bounds(axes: "Axes", card: Card) -> None:
    """The curves of a random order and of the best one, which has all right answers first."""
    right, total, areas = card["right"], card["questions"], card["reference"]
    k = np.arange(1, total + 1)
    axes.axhline(100 * (1 - right / total), color=_GREY, linestyle=":", label=f"chance: {areas['chance']['aurc']:.3f}")
    best = 100 * np.maximum(0, k - right) / k
    label = f"best order: {areas['best']['aurc']:.3f}"
    axes.plot(100 * k / total, best, color=_GREY, linewidth=2.5, clip_on=False, label=label)


def auroc_bars(card: Card) -> "Figure":
    """AUROC of every signal of a `confidence_card` with its interval, the best on top; chance is the dashed line.

    Bars start at chance, so that one to the left is a signal which points the wrong way. A signal without AUROC keeps
    its row and says why.
    """
    auroc = {name: signal["auroc"] for name, signal in card["signals"].items()}
    defined = [name for name in auroc if auroc[name]["value"] is not None]
    names = [name for name in auroc if name not in defined] + sorted(defined, key=lambda name: auroc[name]["value"])
    figure, axes = _figure(7.2, 1.3 + 0.34 * max(len(names), 1))
    for row, name in enumerate(names):
        value, low, high, why = (auroc[name][key] for key in ("value", "low", "high", "why"))
        if value is None:
            axes.text(0.505, row, f"not defined: {why}", va="center", fontsize=8, color=_GREY)
            continue
        axes.barh(row, value - 0.5, left=0.5, height=0.62, color="#56B4E9", edgecolor="black", linewidth=0.7)
        at, inside = value, ""
        if low is not None:
            axes.plot([low, high], [row, row], color="black", linewidth=1.4, marker="|", markersize=7)
            at, inside = max(value, high), f" ({low:.2f}–{high:.2f})"
        axes.text(max(at, 0.5) + 0.012, row, f"{value:.3f}{inside}", va="center", fontsize=8)
    axes.axvline(0.5, color="black", linestyle="--", linewidth=1)
    left = min([0.45, *(auroc[name]["low"] - 0.03 for name in defined if auroc[name]["low"] is not None)])
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(left, 1.2), ylim=(-0.7, len(names) - 0.3))
    axes.set_xticks([tick for tick in np.arange(0, 1.01, 0.1).round(1) if tick >= left])
    axes.set_xlabel("AUROC of right against wrong answers, 95 % interval; 0.5 is chance")
    figure.suptitle(f"How well each signal tells right from wrong, {card['questions']} questions", fontsize=10)
    return figure


def reliability_diagram(card: Card) -> "Figure":
    """Share of right answers over the mean probability, bin by bin, before and after calibration.

    From a `calibration_card`. A point is a bin, the bar across it the range of its probabilities, the one along its
    Wilson interval; on the diagonal the probabilities are what they say. A panel without measures says why.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    scaling = card["calibration"]
    after = "calibrated"
    if not scaling["why"]:
        after += f": temperature {scaling['temperature']:.2f}, bias {scaling['bias']:+.2f}".replace("-", "−")
    _reliability(left, card["raw"], "as the model says", card["raw"]["ece"]["why"])
    _reliability(right, card["calibrated"], after, scaling["why"])
    left.set_ylabel("share of right answers in the bin, %")
    figure.suptitle(f"{card['questions']} questions; calibration fitted on {card['fitted_on']}", fontsize=10)
    return figure


def _reliability(axes: "Axes", card: Card | None, title: str, why: str) -> None:
    axes.plot([0, 100], [0, 100], color=_GREY, linestyle="--", linewidth=1)
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xlabel="mean probability of the answer in the bin, %")
    axes.set_title(title, fontsize=9)
    if card is None or card["reliability"] is None:
        reason = "not defined:\n" + fill(why, 36)
        axes.text(50, 50, reason, ha="center", va="center", fontsize=9, backgroundcolor="white")
        return
    for row in card["reliability"]:
        x, y = 100 * row["mean_probability"], 100 * row["share_right"]
        axes.plot([100 * row["low"], 100 * row["high"]], [y, y], color="#56B4E9", linewidth=4, solid_capstyle="butt")
        axes.plot([x, x], 100 * np.array(row["wilson95"]), color="black", linewidth=1)
        axes.plot(x, y, "o", color="#0072B2", markeredgecolor="black", markersize=5, clip_on=False, zorder=3)
    ece, alone = card["ece"], card["ece_if_calibrated"]
    text = f"ECE {100 * ece['value']:.1f} % ({100 * ece['low']:.1f}–{100 * ece['high']:.1f})\n"
    text += f"by chance alone {100 * alone['low']:.1f}–{100 * alone['high']:.1f}\nBrier {card['brier']['value']:.3f}"
    axes.text(3, 97, text, va="top", fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8})


def signal_reliability(cards: Mapping[str, Card]) -> "Figure":
    """A panel a signal: share of right answers over the mean probability, as the signal says and calibrated.

    From the `calibration_card` of every signal; by the calibration error of the signals as they are, the least first.
    The title tells that error before, after temperature scaling and after Platt scaling; upright lines are the Wilson
    intervals before. What is not defined says why. ValueError without any signal.
    """
    if not cards:
        raise ValueError("there is no signal that can be read as a probability: there is nothing to draw")
    from matplotlib.figure import Figure

    def error(name: str) -> float:
        value = cards[name]["raw"]["ece"]["value"]
        return float("inf") if value is None else float(value)

    names, columns = sorted(cards, key=error), 5
    rows = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(2.5 * columns, 0.7 + 2.75 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _signal_panel(axes, name, cards[name])
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes in panels[max(len(names) - columns, 0) : len(names)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    handles = {str(line.get_label()): line for axes in panels for line in axes.get_lines()}
    shown = [handles[words] for words, _ in _STATES.values() if words in handles]
    figure.legend(handles=shown, loc="outside upper center", ncols=len(shown) or 1, fontsize=8)
    figure.supxlabel("mean probability in the bin, %", fontsize=9)
    figure.supylabel("share of right answers in the bin, %", fontsize=9)
    return figure


# The states of a probability with its name and its look.
_STATES = {
    "raw": ("as the signal says", _LOOKS[0]),
    "temperature_scaled": ("after temperature scaling", _LOOKS[1]),
    "calibrated": ("after Platt scaling", _LOOKS[2]),
}


def _signal_panel(axes: "Axes", name: str, card: Card) -> None:
    axes.plot([0, 100], [0, 100], color=_GREY, linestyle="--", linewidth=1, label="_")
    axes.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    states = {state: card[state] for state in _STATES if card[state] and card[state]["reliability"]}
    errors = " → ".join(f"{100 * of['ece']['value']:.1f}" for of in states.values())
    axes.set_title(f"{name}\n{f'ECE {errors} %' if errors else 'ECE not defined'}", fontsize=7.5)
    if len(states) < len(_STATES):
        why = card["raw"]["ece"]["why"] or card["calibration"]["why"]
        axes.text(50, 50, fill(why, 22), ha="center", va="center", fontsize=7, backgroundcolor="white")
    for row in states["raw"]["reliability"] if "raw" in states else []:
        at = 100 * row["mean_probability"]
        axes.plot([at, at], 100 * np.array(row["wilson95"]), color=_LOOKS[0][0], linewidth=1, alpha=0.5, label="_")
    for state, of in states.items():
        words, (colour, style, marker) = _STATES[state]
        points = 100 * np.array([[row["mean_probability"], row["share_right"]] for row in of["reliability"]])
        axes.plot(*points.T, color=colour, linestyle=style, marker=marker, markersize=4, linewidth=1, label=words)


def _figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
