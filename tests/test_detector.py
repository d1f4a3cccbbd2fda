"""The combined detector is scikit-learn's logistic regression, and better than each of its parts where they differ."""

import json

import numpy as np
import pytest

from birthplace_lm.evaluation.detector import fit_detector
from birthplace_lm.evaluation.logistic import fit_logistic, sigmoid
from birthplace_lm.evaluation.selective import auroc


def example(n: int = 300, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two signals that each know half of what decides, one that knows nothing."""
    generator = np.random.default_rng(seed)
    a, b, noise = generator.normal(size=(3, n))
    right = generator.random(n) < sigmoid(1.5 * a + 1.5 * b - 1)
    return {"log_probability": 40 * a - 7, "agreement": 0.01 * b, "noise": noise}, right


@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_it_is_scikit_learns(penalty: float) -> None:
    linear, preprocessing = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.preprocessing")
    signals, right = example()
    raw = np.stack(list(signals.values()), axis=1)
    features = preprocessing.StandardScaler().fit_transform(raw)
    theirs = linear.LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=1000).fit(features, right)
    ours = fit_detector(signals, right, penalty)
    assert ours.weights == pytest.approx(theirs.coef_[0], abs=1e-6)
    assert ours.bias == pytest.approx(theirs.intercept_[0], abs=1e-6)
    assert ours(signals) == pytest.approx(theirs.predict_proba(features)[:, 1], abs=1e-6)
    p = theirs.predict_proba(features)[:, 1]
    design = np.c_[features, np.ones(len(p))]
    information = design.T @ np.diag(p * (1 - p)) @ design + np.diag([penalty] * 3 + [0])
    assert ours.errors == pytest.approx(np.sqrt(np.diag(np.linalg.inv(information)))[:3], rel=1e-5)


def test_together_they_know_more_about_other_people() -> None:
    detector = fit_detector(*example())
    signals, right = example(1000, seed=1)
    alone = [auroc(signal, right).value or 0 for signal in signals.values()]
    assert (auroc(detector(signals), right).value or 0) > max(alone) + 0.03


def test_the_units_of_a_signal_do_not_matter() -> None:
    signals, right = example()
    expected = fit_detector(signals, right)(signals)
    moved = {name: 1e4 * signal - 3e4 for name, signal in signals.items()}
    assert fit_detector(moved, right)(moved) == pytest.approx(expected)


def test_a_constant_signal_has_no_weight() -> None:
    signals, right = example()
    with_constant = {"three": np.full(300, 3.0), "a tenth": np.full(300, 0.1), **signals}  # 0.1 is not its mean exactly
    detector = fit_detector(with_constant, right)
    assert detector.weights[:2] == pytest.approx(0, abs=1e-9) and detector.scale[:2].tolist() == [1, 1]
    assert detector(with_constant) == pytest.approx(fit_detector(signals, right)(signals))


def test_what_cannot_be_used_is_named() -> None:
    signals, right = example()
    detector = fit_detector({**signals, "broken": np.r_[np.nan, np.ones(299)]}, right)
    report = json.loads(json.dumps(detector.to_json(), allow_nan=False))
    assert report["left_out"] == {"broken": "1 of 300 scores are not finite"}
    assert list(report["signals"])[2:] == ["noise"]  # strongest first
    row = report["signals"]["agreement"]
    assert row["low"] < row["coefficient"] < row["high"] and row["low"] > 0
    answer = detector({**signals, "noise": np.r_[np.inf, signals["noise"][1:]]})
    assert np.isnan(answer[0]) and np.isfinite(answer[1:]).all()
    with pytest.raises(KeyError, match="missing: noise"):
        detector({name: signals[name] for name in ("log_probability", "agreement")})


def test_what_cannot_be_fitted_is_refused() -> None:
    signals, right = example(40)
    with pytest.raises(ValueError, match="all 40 answers are right"):
        fit_detector(signals, np.ones(40, dtype=bool))
    with pytest.raises(ValueError, match="9 questions"):
        fit_detector({name: signal[:9] for name, signal in signals.items()}, right[:9])
    with pytest.raises(ValueError, match="none of 1 signals is usable"):
        fit_detector({"broken": np.full(40, np.nan)}, right)
    with pytest.raises(ValueError, match="penalty=0"):
        fit_detector(signals, right, penalty=0)


def test_separable_answers_stay_finite() -> None:
    signal = np.linspace(-1, 1, 50)
    detector = fit_detector({"margin": signal}, signal > 0.2)
    assert np.isfinite(detector.weights).all() and ((detector({"margin": signal}) > 0.5) == (signal > 0.2)).mean() > 0.9


def test_newton_reaches_the_minimum_from_far_away() -> None:
    generator = np.random.default_rng(2)
    features = np.c_[generator.normal(size=(60, 2)) * [30, 0.1], np.ones(60)]
    targets, penalty, prior = generator.random(60), np.array([0.5, 0.1, 0.0]), np.array([40.0, -60.0, 0.0])
    offset = np.linspace(-20, 60, 60)
    w, _ = fit_logistic(features, targets, penalty, prior, offset)
    z = features @ w + offset
    assert features.T @ (sigmoid(z) - targets) + penalty * (w - prior) == pytest.approx(np.zeros(3), abs=1e-6)
