"""Calibration measures against scikit-learn and slow versions; scalings against other optimisers and known truths."""

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.evaluation import resampling, temperature
from birthplace_lm.evaluation.calibration import (
    bin_columns,
    calibration_card,
    calibration_error,
    checked,
    ece_if_calibrated,
    equal_mass_bins,
    log_loss,
    probability_card,
    reliability,
    squared_error,
)
from birthplace_lm.evaluation.exact_match import wilson
from birthplace_lm.evaluation.logistic import sigmoid
from birthplace_lm.evaluation.temperature import cross_fitted, fit_logit_scaling, fit_softmax_temperature, logit

probabilities = st.lists(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1)), min_size=1, max_size=120)


def example(n: int, seed: int = 0, sharpness: float = 3.0, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident probabilities: their logits are `sharpness` times the true ones and lie `shift` higher."""
    generator = np.random.default_rng(seed)
    true = generator.normal(-1, 1.2, n)
    return sigmoid(sharpness * true + shift), generator.random(n) < sigmoid(true)


def test_brier_score_and_log_loss_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    p, right = example(300)
    assert squared_error(p, right).mean() == pytest.approx(metrics.brier_score_loss(right, p))
    assert log_loss(p, right).mean() == pytest.approx(metrics.log_loss(right, p))
    card = probability_card(p, right)
    assert card["brier"]["value"] == pytest.approx(metrics.brier_score_loss(right, p))
    assert card["nll"]["value"] == pytest.approx(metrics.log_loss(right, p))
    assert log_loss(np.array([0.0, 1.0]), np.array([True, True])) == pytest.approx([16.118, 0], abs=1e-3)


@given(probabilities, st.integers(1, 15))
def test_bins_are_of_equal_mass_and_ties_stay_together(values: list[float], bins: int) -> None:
    p = np.array(values)
    found = equal_mass_bins(p, bins)
    order = np.argsort(p, kind="stable")
    assert (np.diff(found[order]) >= 0).all() and found.min() >= 0
    most = min(bins, max(1, len(p) // 10))
    assert found.max() < most
    assert all(len(set(found[p == value])) == 1 for value in set(values))
    assert equal_mass_bins(np.r_[np.zeros(30), np.linspace(0.5, 1, 10)], 4).tolist() == [1] * 30 + [3] * 10
    if len(set(values)) == len(values):
        sizes = np.bincount(found, minlength=most)
        assert abs(sizes - len(p) / most).max() <= 1


@given(probabilities, st.integers(0, 2**32 - 1))
def test_calibration_error_follows_the_definition(values: list[float], seed: int) -> None:
    p = np.array(values)
    right = np.random.default_rng(seed).random(len(p)) < p**2
    bin_of = equal_mass_bins(p)
    expected = 0.0
    for k in set(bin_of.tolist()):
        inside = [i for i in range(len(p)) if bin_of[i] == k]
        confidence, accuracy = sum(p[i] for i in inside) / len(inside), sum(right[i] for i in inside) / len(inside)
        expected += len(inside) / len(p) * abs(confidence - accuracy)
    rows = reliability(p, right)
    assert calibration_error((p - right)[None], bin_columns(p))[0] == pytest.approx(expected)
    gaps = [row["questions"] / len(p) * abs(row["mean_probability"] - row["share_right"]) for row in rows]
    assert sum(gaps) == pytest.approx(expected)
    assert sum(row["questions"] for row in rows) == len(p)
    for row, after in pairwise(rows):
        assert row["low"] <= row["high"] < after["low"]
    for row in rows:
        correct = round(row["share_right"] * row["questions"])
        assert tuple(row["wilson95"]) == wilson(correct, row["questions"])


def test_what_a_calibrated_model_shows_by_chance() -> None:
    generator = np.random.default_rng(1)
    p = generator.uniform(size=200)
    floor = ece_if_calibrated(p)
    fresh = [
        calibration_error((p - (generator.random(200) < p))[None], bin_columns(p))[0] for _ in range(400)
    ]  # other draws of the same
    assert floor.low is not None and floor.high is not None
    inside = np.mean([floor.low <= each <= floor.high for each in fresh])
    assert inside == pytest.approx(0.95, abs=0.04)
    assert floor.value == pytest.approx(np.mean(fresh), rel=0.05)
    wrong = calibration_error((p - (generator.random(200) < p**4))[None], bin_columns(p))[0]
    assert wrong > floor.high


def test_what_shows_by_chance_is_the_same_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    probability, _ = example(40)
    whole = ece_if_calibrated(probability)
    monkeypatch.setattr(resampling, "_AT_A_TIME", 40 * 7)
    assert ece_if_calibrated(probability) == whole


def test_platt_scaling_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    p, right = example(400)
    wins = right.sum()
    high, low = (wins + 1) / (wins + 2), 1 / (len(right) - wins + 2)  # the targets of Platt 1999
    target = np.where(right, high, low)
    theirs = linear.LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.r_[logit(p), logit(p)][:, None], np.r_[np.ones(400), np.zeros(400)], np.r_[target, 1 - target]
    )
    ours = fit_logit_scaling(p, right)
    assert (1 / ours.temperature, ours.bias) == pytest.approx((theirs.coef_[0, 0], theirs.intercept_[0]), abs=1e-5)


def test_a_temperature_alone_is_the_best_one() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    p, right = example(400, shift=0.0)
    wins = right.sum()
    target = np.where(right, (wins + 1) / (wins + 2), 1 / (len(right) - wins + 2))

    def loss(slope: float) -> float:
        q = sigmoid(slope * logit(p))
        return float(-(target * np.log(q) + (1 - target) * np.log(1 - q)).sum())

    ours = fit_logit_scaling(p, right, with_bias=False)
    best = optimize.minimize_scalar(loss, bounds=(0.01, 5), method="bounded", options={"xatol": 1e-9}).x
    assert 1 / ours.temperature == pytest.approx(best, rel=1e-5) and ours.bias == 0
    assert ours(np.array([0.5])) == pytest.approx([0.5])


def test_the_truth_is_found() -> None:
    p, right = example(40_000)
    ours = fit_logit_scaling(p, right)  # true logit = (logit p − 1)/3
    assert ours.temperature == pytest.approx(3, rel=0.05) and ours.bias == pytest.approx(-1 / 3, abs=0.05)


@settings(max_examples=60)
@given(probabilities.filter(lambda values: len(values) >= 10), st.integers(0, 2**32 - 1))
@case([0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25, 0.0, 0.25, 0.0], 1)  # steps from where σ is flat are wild
@case([0.0] * 10 + [1.0] * 10, 1)
@case([1e-300] * 12, 1)
def test_any_probabilities_get_a_finite_scaling_that_keeps_their_order(values: list[float], seed: int) -> None:
    p = np.array(values)
    right = np.random.default_rng(seed).random(len(p)) < 0.5
    right[:2] = False, True
    for with_bias in (True, False):
        scaling = fit_logit_scaling(p, right, with_bias)
        assert 0.01 - 1e-12 <= scaling.temperature <= 100 + 1e-9 and np.isfinite(scaling.bias)
        after = scaling(p)
        assert ((after > 0) & (after < 1)).all()
        assert (np.diff(after[np.argsort(p, kind="stable")]) >= -1e-12).all()


def test_scalings_at_their_limits() -> None:
    right = np.arange(40) % 4 == 0
    separated = fit_logit_scaling(np.where(right, 1.0, 0.0), right)
    assert separated(np.array([0.0, 1.0])) == pytest.approx([1 / 32, 11 / 12], abs=1e-3)  # Platt's targets
    reversed_ = fit_logit_scaling(np.where(right, 0.1, 0.9), right)
    share = reversed_(np.array([0.1, 0.9]))
    assert reversed_.temperature == pytest.approx(100) and share == pytest.approx([0.25, 0.25], abs=0.03)
    constant = fit_logit_scaling(np.full(40, 0.999), right)
    assert constant.temperature == pytest.approx(1, abs=1e-3) and constant(np.array([0.999])) == pytest.approx(
        [0.25], abs=0.02
    )
    # hardly more than a constant, far from ½: the steepest slope allowed has its bias far out
    near = sigmoid(np.random.default_rng(0).normal(-4.24, 4e-4, 40) + 1e-3 * right)
    with np.errstate(all="raise"):
        steepest = fit_logit_scaling(near, right)
    assert steepest.temperature == pytest.approx(0.01) and 420 < steepest.bias < 428
    assert steepest(near).mean() == pytest.approx(right.mean(), abs=0.03)
    with pytest.raises(ValueError, match="all 40 answers are wrong"):
        fit_logit_scaling(np.linspace(0, 1, 40), np.zeros(40, dtype=bool))


def test_cross_fitting_keeps_fit_and_use_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    p = np.linspace(0.01, 0.99, 41)  # all different: a probability names its question
    right = np.arange(41) % 3 == 0
    fits: list[tuple[set[float], int]] = []
    uses: list[set[float]] = []

    def recorded(probability: np.ndarray, right: np.ndarray, bias: bool) -> Callable[[np.ndarray], np.ndarray]:
        fits.append((set(probability), int(right.sum())))
        scaling = fit_logit_scaling(probability, right, bias)

        def use(asked: np.ndarray) -> np.ndarray:
            uses.append(set(asked))
            return scaling(asked)

        return use

    monkeypatch.setattr(temperature, "fit_logit_scaling", recorded)
    calibrated = cross_fitted(p, right, seed=4)
    assert len(fits) == len(uses) == 2 and np.isfinite(calibrated).all()
    for (fitted, correct), used in zip(fits, uses, strict=True):
        assert not fitted & used and fitted | used == set(p)
        assert correct == 7
    here = np.isin(p, list(uses[0]))
    assert calibrated[here] == pytest.approx(fit_logit_scaling(p[~here], right[~here])(p[here]))


def test_softmax_temperature_is_the_most_likely_one() -> None:
    optimize, special = pytest.importorskip("scipy.optimize"), pytest.importorskip("scipy.special")
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(3000, 8)) * 4
    scores[generator.random(scores.shape) < 0.2] = -np.inf
    scores[:, 0] = 1.0
    place = np.array([generator.choice(8, p=row) for row in special.softmax(scores / 2.5, axis=1)])
    ours = fit_softmax_temperature(scores, place)
    assert ours.temperature == pytest.approx(2.5, rel=0.05) and (ours.fitted_on, ours.left_out) == (3000, 0)

    def loss(t: float) -> float:
        return -special.log_softmax(scores / t, axis=1)[np.arange(3000), place].sum()

    best = optimize.minimize_scalar(loss, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-9}).x
    assert ours.temperature == pytest.approx(best, rel=1e-5)
    assert np.exp(ours(scores)) == pytest.approx(special.softmax(scores / ours.temperature, axis=1))

    scores[5, place[5]] = -np.inf  # cannot be, at any temperature
    place[7] = -1  # not among the places
    again = fit_softmax_temperature(scores, place)
    rest = np.delete(np.arange(3000), [5, 7])
    assert (again.fitted_on, again.left_out) == (2998, 2)
    assert again.temperature == pytest.approx(fit_softmax_temperature(scores[rest], place[rest]).temperature)


def test_softmax_temperature_at_its_limits() -> None:
    scores = np.array([[2.0, 1.0], [5.0, 0.0]])
    assert 0.01 <= fit_softmax_temperature(scores, np.array([0, 0])).temperature < 0.1
    assert fit_softmax_temperature(np.zeros((4, 3)), np.arange(4) % 3).temperature == pytest.approx(1)
    assert fit_softmax_temperature(scores, np.array([1, 1])).temperature == pytest.approx(100)
    with pytest.raises(ValueError, match="none of 2 questions"):
        fit_softmax_temperature(scores, np.array([-1, -1]))
    with pytest.raises(ValueError, match="1 of 4 scores are NaN"):
        fit_softmax_temperature(np.array([[2.0, np.nan], [5.0, 0.0]]), np.array([0, 0]))
    with pytest.raises(ValueError, match="do not fit"):
        fit_softmax_temperature(scores, np.array([0, 2]))


@pytest.mark.parametrize(("n", "kind", "why"), [(8, True, "8 questions"), (20, True, "all 20"), (20, False, "all 20")])
def test_a_constant_that_has_nothing_to_tell_apart_has_no_score(n: int, kind: bool, why: str) -> None:
    base = calibration_card(np.full(n, 0.7), np.full(n, kind))["base_rate"]
    for name in ("brier", "nll"):
        assert base[name]["value"] is None and base[name]["why"].startswith(why)


def test_a_constant_s_score_and_interval_follow_from_the_share_alone() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    _, right = example(400)
    base = calibration_card(np.full(400, 0.7), right)["base_rate"]
    share = right.mean()
    assert base["brier"]["value"] == pytest.approx(metrics.brier_score_loss(right, np.full(400, share)))
    assert base["nll"]["value"] == pytest.approx(metrics.log_loss(right, np.full(400, share)))
    spread = abs(1 - 2 * share) * (share * (1 - share) / 400) ** 0.5  # of r(1 − r) by that of r
    assert base["brier"]["high"] - base["brier"]["low"] == pytest.approx(2 * 1.96 * spread, rel=0.2)


def test_calibration_on_held_out_questions() -> None:
    p, right = example(500)
    card = calibration_card(p, right, *example(500, seed=1))
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["fitted_on"] == "held-out questions" and card["calibration"]["questions"] == 500
    raw, tempered, after = card["raw"], card["temperature_scaled"], card["calibrated"]
    for name in ("ece", "brier", "nll"):
        assert max(after[name]["value"], tempered[name]["value"]) < raw[name]["value"]
        assert raw[name]["low"] < raw[name]["value"] < raw[name]["high"]
    assert raw["ece"]["value"] > raw["ece_if_calibrated"]["high"]
    assert (
        after["brier"]["value"]
        < card["base_rate"]["brier"]["value"]
        == pytest.approx(right.mean() * (1 - right.mean()))
    )
    scaling = fit_logit_scaling(*example(500, seed=1))
    assert (card["calibration"]["temperature"], card["calibration"]["bias"]) == (scaling.temperature, scaling.bias)
    alone = fit_logit_scaling(*example(500, seed=1), with_bias=False)
    assert card["calibration"]["temperature_alone"] == alone.temperature != scaling.temperature
    assert tempered == probability_card(alone(p), right)
    earned = {t: row["score"]["value"] for t, row in after["abstaining"].items()}
    given_ = scaling(p) > 0.75
    assert earned["0.75"] == pytest.approx((right[given_].sum() - 3 * (~right[given_]).sum()) / 500)
    assert after["abstaining"]["0.75"]["answered"]["value"] == pytest.approx(given_.mean())
    assert after["abstaining"]["0.9"]["always"]["value"] == pytest.approx(right.mean() - 9 * (1 - right.mean()))


def test_calibration_without_held_out_questions() -> None:
    p, right = example(500)
    card = calibration_card(p, right, seed=2)
    assert card["fitted_on"] == "halves of the same questions, crosswise"
    assert card["calibrated"] == probability_card(cross_fitted(p, right, seed=2), right, seed=2)
    assert card["temperature_scaled"] == probability_card(
        cross_fitted(p, right, seed=2, with_bias=False), right, seed=2
    )
    assert card["calibration"]["temperature"] == fit_logit_scaling(p, right).temperature


def test_what_cannot_be_calibrated_has_a_reason() -> None:
    p, right = example(30)
    card = calibration_card(p, right, p, np.zeros(30, dtype=bool))
    assert card["calibrated"] is card["temperature_scaled"] is card["calibration"]["temperature_alone"] is None
    assert card["raw"]["ece"]["value"] is not None
    assert card["calibration"]["temperature"] is None
    assert card["calibration"]["why"] == "no scaling can be fitted: all 30 answers are wrong"
    short = calibration_card(p[:9], right[:9])
    assert short["raw"]["brier"]["why"] == "9 questions: at least 10 are needed" and short["raw"]["reliability"] is None
    assert short["raw"]["abstaining"]["0.5"]["score"]["value"] is None
    broken = calibration_card(np.r_[p[:29], np.nan], right)
    assert broken["raw"]["ece"]["why"] == "1 of 30 scores are not finite"
    for each in (card, short, broken, calibration_card(p[:0], right[:0])):
        json.dumps(each, allow_nan=False)
    with pytest.raises(ValueError, match="30 of 30 are no probabilities, the first is -"):
        calibration_card(np.log(p), right)
    assert checked(np.array([1 + 1e-7, -1e-7, 0.3])).tolist() == [1.0, 0.0, 0.3]
