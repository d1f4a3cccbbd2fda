"""The pictures show the numbers of the cards, every line told apart without colour, and say what is missing."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from birthplace_lm.evaluation.calibration import calibration_card
from birthplace_lm.evaluation.logistic import sigmoid
from birthplace_lm.evaluation.selective import confidence_card, risk_coverage_curve
from birthplace_lm.knowledge_figures import auroc_bars, reliability_diagram, risk_coverage, signal_reliability


def example(n: int = 200) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(0)
    true = generator.normal(-1, 1.5, n)
    right = generator.random(n) < sigmoid(true)
    signals = {f"signal_{i}": true + i * generator.normal(size=n) for i in range(6)}
    return {**signals, "reversed": -true, "broken": np.full(n, np.nan)}, right


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def inside(figure: Figure) -> bool:
    """Whether nothing that is drawn reaches beyond the edge of the picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    return bool(box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01)


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """The labelled lines in percent, (points, 2)."""
    found = {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.get_lines()}
    return {label: points for label, points in found.items() if not label.startswith("_")}


def test_curves_lie_between_chance_and_the_best_order() -> None:
    signals, right = example()
    card = confidence_card(signals, right)
    figure = risk_coverage(card)
    drawn = lines(figure.axes[0])
    assert len(drawn) == 5 + 2
    risk = 100 * (1 - right.mean())
    (best,) = (points for label, points in drawn.items() if label.startswith("best order"))
    (chance,) = (points for label, points in drawn.items() if label.startswith("chance"))
    assert (chance[:, 1] == pytest.approx([risk, risk])) and best[-1] == pytest.approx([100, risk])
    assert best == pytest.approx(100 * np.stack(risk_coverage_curve(right, right), axis=1))
    aurc = {name: signal["aurc"]["value"] for name, signal in card["signals"].items() if name != "broken"}
    least = sorted(aurc, key=aurc.__getitem__)[:5]
    for name, signal in card["signals"].items():
        shown = [points for label, points in drawn.items() if label.startswith(f"{name}:")]
        assert len(shown) == (name in least), name
        for points in shown:
            assert points == pytest.approx(100 * np.c_[signal["curve"]["coverage"], signal["curve"]["risk"]])
            assert (points[:, 1] >= np.interp(points[:, 0], best[:, 0], best[:, 1]) - 1e-9).all()
    curves = figure.axes[0].get_lines()[:5]
    assert len({line.get_marker() for line in curves}) == len({line.get_color() for line in curves}) == 5
    assert (
        len({str(line._unscaled_dash_pattern) for line in curves}) == 5
    )  # get_linestyle says "--" for every dashed one
    assert inside(figure)


def test_chosen_curves_only() -> None:
    signals, right = example()
    card = confidence_card(signals, right)
    drawn = lines(risk_coverage(card, names=["reversed", "broken"]).axes[0])
    assert [label.split(":")[0] for label in drawn] == ["reversed", "chance", "best order"]
    with pytest.raises(ValueError, match="none of 8 signals"):
        risk_coverage(card, names=["broken"])


def test_bars_are_sorted_and_say_what_is_not_defined() -> None:
    signals, right = example()
    card = confidence_card(signals, right)
    figure = auroc_bars(card)
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == "broken" and names[1] == "reversed" and names[-1] == "signal_0"
    value = {name: signal["auroc"]["value"] for name, signal in card["signals"].items()}
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends == pytest.approx([value[name] for name in names[1:]])
    intervals = [tuple(line.get_xdata()) for line in axes.get_lines()[:-1]]
    expected = [(card["signals"][name]["auroc"]["low"], card["signals"][name]["auroc"]["high"]) for name in names[1:]]
    assert intervals == expected
    assert "not defined: 200 of 200 scores are not finite" in texts(figure)
    assert inside(figure)
    assert (
        texts(auroc_bars(confidence_card(signals, np.ones(200)))).count("not defined: all 200 answers are right") == 7
    )


def test_reliability_before_and_after(tmp_path: Path) -> None:
    signals, right = example()
    p = sigmoid(3 * signals["signal_0"] + 1)
    card = calibration_card(p, right)
    figure = reliability_diagram(card)
    for axes, key in zip(figure.axes, ("raw", "calibrated"), strict=True):
        points = np.concatenate([line.get_xydata() for line in axes.get_lines() if line.get_marker() == "o"])
        rows = card[key]["reliability"]
        assert points == pytest.approx(100 * np.array([[r["mean_probability"], r["share_right"]] for r in rows]))
        uprights = [line.get_ydata() for line in axes.get_lines() if len(set(line.get_xdata())) == 1][0::2]
        assert np.array(uprights) == pytest.approx(100 * np.array([r["wilson95"] for r in rows]))
    assert inside(figure)
    figure.savefig(tmp_path / "reliability.png")
    assert imread(tmp_path / "reliability.png").std() > 0.05


def test_reliability_that_is_not_defined_says_why() -> None:
    signals, right = example()
    p = sigmoid(signals["signal_0"])
    without = reliability_diagram(calibration_card(p, right, p, np.zeros(200)))
    assert any("not defined" in text and "200 answers are wrong" in " ".join(text.split()) for text in texts(without))
    assert inside(without)
    few = texts(reliability_diagram(calibration_card(p[:5], right[:5])))
    assert sum("not defined" in text for text in few) == 2


def test_every_signal_has_a_panel_with_its_three_states_the_least_error_first() -> None:
    signals, right = example()
    cards = {f"signal {scale}": calibration_card(sigmoid(scale * signals["signal_0"]), right) for scale in (5, 1, 3)}
    cards["few"] = calibration_card(np.full(9, 0.5), right[:9])
    figure = signal_reliability(cards)
    panels = [axes for axes in figure.axes if axes.get_title()]
    titles = [axes.get_title().splitlines() for axes in panels]
    assert [name for name, _ in titles] == ["signal 1", "signal 3", "signal 5", "few"]
    for axes, (name, errors) in zip(panels[:3], titles, strict=False):
        states = [cards[name][state] for state in ("raw", "temperature_scaled", "calibrated")]
        assert errors == "ECE " + " → ".join(f"{100 * state['ece']['value']:.1f}" for state in states) + " %"
        drawn = lines(axes)
        assert list(drawn) == ["as the signal says", "after temperature scaling", "after Platt scaling"]
        for points, state in zip(drawn.values(), states, strict=True):
            rows = [[row["mean_probability"], row["share_right"]] for row in state["reliability"]]
            assert points == pytest.approx(100 * np.array(rows))
    assert titles[3][1] == "ECE not defined" and any("9 questions" in text.replace("\n", " ") for text in texts(figure))
    assert inside(figure)
    p = sigmoid(signals["signal_0"])
    unscaled = texts(signal_reliability({"one": calibration_card(p, right, p, np.ones(200))}))
    assert any("all 200 answers are right" in text.replace("\n", " ") for text in unscaled)
    with pytest.raises(ValueError, match="nothing to draw"):
        signal_reliability({})
