"""Ranking measures against slow versions that follow the definitions, and intervals against resampling by hand."""

import json
from collections.abc import Callable
from itertools import groupby, permutations, product
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.evaluation.ranking import Ranking
from birthplace_lm.evaluation.resampling import RESAMPLES, draws, measures
from birthplace_lm.evaluation.selective import auroc, confidence_card, payoff, risk_coverage_curve

Answers = list[tuple[int, bool]]
answers = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40)  # few signals: many ties


def split(pairs: Answers) -> tuple[np.ndarray, np.ndarray]:
    return np.array([signal for signal, _ in pairs], dtype=float), np.array([right for _, right in pairs])


def measure_of(name: str, signal: np.ndarray, right: np.ndarray) -> float:
    ranking = Ranking(signal, right)
    return float(ranking.measures(ranking.tally())[name][0])


def orders(pairs: Answers) -> list[list[bool]]:
    """The answers from the surest on, in every order that the signal allows."""
    descending = sorted(pairs, key=lambda pair: -pair[0])
    blocks = [[right for _, right in block] for _, block in groupby(descending, key=lambda pair: pair[0])]
    return [[r for block in choice for r in block] for choice in product(*(permutations(block) for block in blocks))]


def risks(order: list[bool]) -> list[float]:
    """The share of wrong ones among the first 1, 2, … n."""
    return [sum(not right for right in order[:k]) / k for k in range(1, len(order) + 1)]


def generalized(order: list[bool]) -> float:
    """The area under the share answered wrongly, as trapezoids from coverage 0 on."""
    n = len(order)
    height = [0.0] + [risk * k / n for k, risk in enumerate(risks(order), start=1)]
    return sum((height[k] + height[k + 1]) / 2 / n for k in range(n))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=7))
def test_ties_are_the_mean_over_their_orders(pairs: Answers) -> None:
    signal, right = split(pairs)
    every = orders(pairs)
    assert measure_of("aurc", signal, right) == pytest.approx(np.mean([np.mean(risks(order)) for order in every]))
    assert measure_of("augrc", signal, right) == pytest.approx(np.mean([generalized(order) for order in every]))
    assert risk_coverage_curve(signal, right)[1] == pytest.approx(np.mean([risks(order) for order in every], axis=0))


@given(answers)
def test_auroc_is_scikit_learns_and_augrc_follows_from_it(pairs: Answers) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    signal, right = split(pairs)
    found, risk = measure_of("auroc", signal, right), float(1 - right.mean())
    if len(set(right)) == 1:
        assert np.isnan(found) and np.isnan(measure_of("e_aurc", signal, right))
        return
    assert found == pytest.approx(metrics.roc_auc_score(right, signal))
    expected = (1 - found) * risk * (1 - risk) + risk**2 / 2  # Traub et al. 2024
    assert measure_of("augrc", signal, right) == pytest.approx(expected)


@given(answers, st.sampled_from([np.exp, np.cbrt, lambda x: 7 * x - 3, lambda x: -1 / (1 + x)]))
def test_only_the_order_counts(pairs: Answers, rising: Callable[[np.ndarray], np.ndarray]) -> None:
    signal, right = split(pairs)
    one, other = Ranking(signal, right), Ranking(rising(signal), right)
    expected = one.measures(one.tally())
    for name, value in other.measures(other.tally()).items():
        assert value == pytest.approx(expected[name], nan_ok=True), name
    assert measure_of("auroc", -signal, right) == pytest.approx(1 - expected["auroc"], nan_ok=True)


@pytest.mark.parametrize("correct", range(7))
def test_best_and_random_orders(correct: int) -> None:
    right = np.arange(6) < correct
    every = [list(order) for order in permutations(right.tolist())]
    card_like = Ranking(np.arange(6), right)
    best = min(np.mean(risks(order)) for order in every)
    assert card_like.best_aurc(card_like.tally())[0] == pytest.approx(best)
    if 0 < correct < 6:
        assert measure_of("e_aurc", right.astype(float), right) == pytest.approx(0, abs=1e-12)
        worst = max(np.mean(risks(order)) for order in every)
        assert measure_of("e_aurc", -right.astype(float), right) == pytest.approx(worst - best)
    risk = 1 - correct / 6
    assert measure_of("aurc", np.zeros(6), right) == pytest.approx(np.mean([np.mean(risks(order)) for order in every]))
    assert measure_of("aurc", np.zeros(6), right) == pytest.approx(risk)
    assert measure_of("augrc", np.zeros(6), right) == pytest.approx(risk / 2)


@given(answers, st.sampled_from([0.0, 0.05, 0.1, 0.2, 1 / 3, 0.5]))
def test_coverage_at_risk_is_the_best_threshold(pairs: Answers, risk: float) -> None:
    signal, right = split(pairs)
    allowed = [t for t in set(signal) if (~right[signal >= t]).mean() <= risk + 1e-12]
    ranking = Ranking(signal, right)
    expected = max(((signal >= t).mean() for t in allowed), default=0.0)
    assert ranking.coverage(ranking.tally(), risk)[0] == pytest.approx(expected)
    assert ranking.threshold(risk) == min(allowed, default=None)
    steps = ranking.risk_steps()
    reached = [step for step in steps if step["risk"] <= risk + 1e-9]
    assert (reached[-1]["threshold"] if reached else None) == ranking.threshold(risk)
    assert [step["answered"] for step in steps] == [(signal >= step["threshold"]).sum() for step in steps]
    for name, rising in (("risk", 1), ("threshold", -1), ("answered", 1)):
        values = [rising * step[name] for step in steps]
        assert values == sorted(set(values)), name
    assert steps[-1]["answered"] == len(signal)


def test_a_risk_that_is_just_met_is_met() -> None:
    right = np.arange(100) < 71  # 29 wrong of 100 are 29 %; in floats 0.29 · 100 is less than 29
    ranking = Ranking(-np.arange(100.0), right)
    assert ranking.coverage(ranking.tally(), 0.29)[0] == 1.0
    assert ranking.threshold(0.29) == -99.0
    assert ranking.coverage(ranking.tally(), 0.28)[0] == 0.98


@settings(max_examples=60)
@given(answers, st.integers(0, 2**32 - 1))
def test_counts_are_repeated_questions(pairs: Answers, seed: int) -> None:
    signal, right = split(pairs)
    ranking = Ranking(signal, right)
    counts = next(draws(len(right), seed, resamples=3))
    t = ranking.tally(counts)
    places = np.arange(1, len(right) + 1)
    found = ranking.measures(t) | {"curve": ranking.selective_risk(t, places)}
    for row, times in enumerate(counts.astype(int)):
        again = Ranking(np.repeat(signal, times), np.repeat(right, times))
        expected = again.measures(again.tally()) | {"curve": again.selective_risk(again.tally(), places)}
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value[0], nan_ok=True), name


def example(n: int = 80, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    signal = generator.normal(size=n)
    return signal.round(1), generator.random(n) < 1 / (1 + np.exp(1 - 1.5 * signal))


def test_the_interval_is_the_percentile_bootstrap() -> None:
    stats, metrics = pytest.importorskip("scipy.stats"), pytest.importorskip("sklearn.metrics")
    signal, right = example()
    theirs = stats.bootstrap(
        (right, signal),
        metrics.roc_auc_score,
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    found = auroc(signal, right)
    assert found.value == pytest.approx(metrics.roc_auc_score(right, signal))
    expected = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert found == auroc(signal, right) != auroc(signal, right, seed=1)


def test_resamples_are_questions_drawn_with_replacement() -> None:
    counts = np.concatenate(list(draws(700, seed=5, resamples=300)))  # several blocks of draws
    assert counts.shape == (300, 700) and (counts.sum(1) == 700).all()
    assert len({row.tobytes() for row in counts}) == 300
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.01)  # (1 − 1/N)^N of them are not picked
    found = measures(lambda counts: {"mean": counts @ np.arange(700) / 700}, 700)["mean"]
    error = np.arange(700).std() / np.sqrt(700)
    assert (found.low, found.high) == pytest.approx((349.5 - 1.96 * error, 349.5 + 1.96 * error), abs=0.3 * error)


def test_resamples_without_a_wrong_answer_are_left_out() -> None:
    signal, right = np.arange(20.0), np.arange(20) != 4
    counts = np.concatenate(list(draws(20)))
    without = int((counts[:, 4] == 0).sum())
    found = auroc(signal, right)
    assert found.left_out == without > 300
    assert found.value == pytest.approx(15 / 19) and found.low is not None and found.high is not None
    values = [measure_of("auroc", np.repeat(signal, row), np.repeat(right, row)) for row in counts.astype(int)]
    assert (found.low, found.high) == pytest.approx(tuple(np.nanquantile(values, [0.025, 0.975])))


UNDEFINED = {
    "all 12 answers are right": (np.arange(12.0), np.ones(12, dtype=bool)),
    "all 12 answers are wrong": (np.arange(12.0), np.zeros(12, dtype=bool)),
    "9 questions: at least 10 are needed": (np.arange(9.0), np.arange(9) > 4),
    "0 questions: at least 10 are needed": (np.array([]), np.array([], dtype=bool)),
    "2 of 12 scores are not finite": (np.r_[np.nan, np.inf, np.arange(10.0)], np.arange(12) > 4),
}


@pytest.mark.parametrize("why", UNDEFINED)
def test_what_is_not_defined_has_a_reason(why: str) -> None:
    signal, right = UNDEFINED[why]
    found = auroc(signal, right)
    assert (found.value, found.low, found.high, found.why) == (None, None, None, why)
    row = json.loads(json.dumps(confidence_card({"margin": signal}, right), allow_nan=False))["signals"]["margin"]
    assert row["auroc"]["why"] == row["e_aurc"]["why"] == why
    one_class_only = why.startswith("all")  # the risk of every share is then known all the same
    assert (row["aurc"]["value"] is not None) == (row["curve"] is not None) == one_class_only
    assert (row["coverage_at_risk"]["0.1"]["value"] is not None) == one_class_only


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(12,\) for answers of shape \(11,\)"):
        auroc(np.arange(12.0), np.arange(11) > 4)
    with pytest.raises(ValueError, match="right or wrong, not 2"):
        auroc(np.arange(12.0), np.arange(12))


def test_the_card_holds_every_measure_with_its_interval() -> None:
    signal, right = example(500)
    start = process_time()
    card = confidence_card({f"signal {i}": signal * (i + 1) for i in range(8)}, right)
    assert process_time() - start < 10  # about 0.3 s
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["questions"] == 500 and card["right"] == right.sum() and card["resamples"] == RESAMPLES
    row = card["signals"]["signal 0"]
    assert row["auroc"] == auroc(signal, right).to_json() == card["signals"]["signal 7"]["auroc"]
    for measure in (*(row[name] for name in ("auroc", "aurc", "e_aurc", "augrc")), *row["coverage_at_risk"].values()):
        assert measure["low"] <= measure["value"] <= measure["high"] and measure["low"] < measure["high"]
    chance, best = card["reference"]["chance"], card["reference"]["best"]
    for name in ("auroc", "aurc", "augrc"):
        assert min(chance[name], best[name]) < row[name]["value"] < max(chance[name], best[name])
    assert row["aurc"]["value"] - row["e_aurc"]["value"] == pytest.approx(best["aurc"])
    assert chance["aurc"] == pytest.approx(measure_of("aurc", np.zeros(500), right))
    assert chance["augrc"] == pytest.approx(measure_of("augrc", np.zeros(500), right))
    assert best["augrc"] == pytest.approx(measure_of("augrc", right.astype(float), right))
    at_risk = row["coverage_at_risk"]["0.2"]
    given_ = signal >= at_risk["threshold"]
    assert given_.mean() == at_risk["value"] and (~right[given_]).mean() <= 0.2
    curve = row["curve"]
    coverage, risk = risk_coverage_curve(signal, right)
    assert curve["coverage"] == coverage[9::10].tolist() and curve["risk"] == pytest.approx(risk[9::10])
    assert all(low <= r <= high for low, r, high in zip(curve["low"], curve["risk"], curve["high"], strict=True))


@pytest.mark.parametrize("t", [0.5, 0.75, 0.9])
def test_abstaining_below_t_is_the_best_policy(t: float) -> None:
    probability = np.linspace(0.005, 0.995, 100)  # calibrated: so many of the answers with it are right
    earned = probability * payoff(np.ones(100), np.ones(100), t) + (1 - probability) * payoff(
        np.ones(100), np.zeros(100), t
    )
    expected = probability * payoff(probability, np.ones(100), t) + (1 - probability) * payoff(
        probability, np.zeros(100), t
    )
    assert expected == pytest.approx(np.maximum(earned, 0))
    with pytest.raises(ValueError, match="between 0 and 1"):
        payoff(probability, probability > t, 1.0)
