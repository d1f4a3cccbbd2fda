"""Does the model know when it is wrong: the measures of its signals, with intervals, as one card.

`confidence_card` is the entrance; `ranking` holds the definitions of the measures and says how ties are treated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from birthplace_lm.evaluation.exact_match import wilson
from birthplace_lm.evaluation.ranking import RISKS, Ranking
from birthplace_lm.evaluation.resampling import (
    RESAMPLES,
    Array,
    Measure,
    interval,
    measure,
    measures,
    one_class,
    resampled,
    why_undefined,
)

ABSTAINING = (0.5, 0.75, 0.9)  # the t of `payoff`
_GRID = np.arange(1, 51) / 50  # the coverages at which a card keeps the curve
_AREAS = ("auroc", "aurc", "e_aurc", "augrc")


def auroc(signal: Array, right: Array, seed: int = 0) -> Measure:
    """How well a signal (N,) tells two kinds (N,) apart, with its interval: ½ by chance, 1 if it always does.

    For known against unknown people the signal is that of both, `right` whether the person is known. See
    `Ranking.auroc`. Not defined below ten questions, for one kind only or for signals that are not finite.
    """
    if why := why_undefined(signal, right):
        return Measure(None, why=why)
    ranking = Ranking(signal, right)
    return measures(lambda counts: {"": ranking.auroc(ranking.tally(counts))}, len(right), seed, one_class(right))[""]


def risk_coverage_curve(signal: Array, right: Array) -> tuple[Array, Array]:
    """Coverage k/N for k = 1 … N and the selective risk of the k surest answers, the mean over the orders of ties.

    >>> coverage, risk = risk_coverage_curve(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, False, True, False]))
    >>> coverage.tolist(), risk.round(3).tolist()
    ([0.25, 0.5, 0.75, 1.0], [0.0, 0.25, 0.333, 0.5])
    """
    ranking, places = Ranking(signal, right), np.arange(1, len(right) + 1)
    return places / len(right), ranking.selective_risk(ranking.tally(), places)[0]


def payoff(probability: Array, right: Array, t: float) -> Array:
    """What each answer (N,) earns where abstaining is rewarded: +1 if right, −t/(1−t) if wrong, 0 if not given.

    It is given if its `probability` of being right is above t: with calibrated probabilities that is the best policy,
    since p − (1 − p)·t/(1 − t) > 0 just when p > t (Kalai et al. 2025, arXiv 2509.04664). Always answering earns less
    than 0 a question unless the share of right answers is above t. Raises ValueError unless 0 < t < 1.

    >>> payoff(np.array([0.9, 0.8, 0.3]), np.array([True, False, True]), t=0.75).tolist()
    [1.0, -3.0, 0.0]
    """
    if not 0 < t < 1:
        raise ValueError(f"t={t}: it has to lie between 0 and 1, or abstaining is never or always best")
    given = np.asarray(probability) > t
    return given * np.where(np.asarray(right, dtype=bool), 1.0, -t / (1 - t))


def confidence_card(signals: Mapping[str, Array], right: Array, seed: int = 0) -> dict[str, Any]:
    """Every measure of every signal with its interval, ready for JSON.

    `signals` are numbers an answer (N,), higher when surer; `right` (N,) is which answers are right. Returns

        questions, right, share_right     N, how many are right, their share with its Wilson interval
        resamples                         of the intervals; the same for all signals
        reference                         AUROC, AURC and AUGRC of a random order ("chance") and of the best one
        signals                           a name: auroc, aurc, e_aurc, augrc, coverage_at_risk with its thresholds,
                                          and the curve: coverage, risk, low, high (each coverage by itself)

    A measure is {value, low, high, why, left_out}: see `Measure`. Coverage at a risk is the largest share that can be
    answered by a threshold without more than that share of them being wrong, the threshold the signal from which on
    one answers; it is chosen on these very questions, so it flatters: fit it elsewhere before relying on it.
    """
    right = np.asarray(right)
    total, correct = len(right), int(np.asarray(right, dtype=bool).sum())
    low, high = wilson(correct, total) or (None, None)
    why = why_undefined(np.zeros(total), right)
    share = Measure(None, why=why) if why else Measure(correct / total, low, high)
    return {
        "questions": total,
        "right": correct,
        "share_right": share.to_json(),
        "resamples": RESAMPLES,
        "reference": None if why else _reference(right),
        "signals": {name: _signal_card(np.asarray(signal), right, seed) for name, signal in signals.items()},
    }


def _reference(right: Array) -> dict[str, dict[str, float]]:
    """The areas of a random order and of the best one: what those of a signal lie between, if it is of any use."""
    risk = 1 - float(np.mean(right))
    ranking = Ranking(right, right)
    best = float(ranking.best_aurc(ranking.tally())[0])
    return {
        "chance": {"auroc": 0.5, "aurc": risk, "augrc": risk / 2},
        "best": {"auroc": 1.0, "aurc": best, "augrc": risk**2 / 2},
    }


def _signal_card(signal: Array, right: Array, seed: int) -> dict[str, Any]:
    """The measures of one signal; all of them without value, and no curve, where the signal cannot be measured."""
    if why := why_undefined(signal, right):
        nothing = Measure(None, why=why).to_json()
        at_risk = {str(risk): nothing | {"threshold": None} for risk in RISKS}
        return {name: nothing for name in _AREAS} | {"coverage_at_risk": at_risk, "curve": None}
    ranking, n = Ranking(signal, right), len(right)
    places = np.unique(np.ceil(_GRID * n - 1e-9)).astype(int)

    def statistics(counts: Array) -> dict[str, Array]:
        t = ranking.tally(counts)
        return ranking.measures(t) | {"curve": ranking.selective_risk(t, places)}

    values, drawn = statistics(np.ones((1, n))), resampled(statistics, n, seed)
    low, high = interval(drawn.pop("curve"))
    risk = values.pop("curve")[0]
    curve = {"coverage": places / n, "risk": risk, "low": low, "high": high}
    found = {name: measure(float(values[name][0]), drawn[name], one_class(right)).to_json() for name in values}
    at_risk = {str(r): found[f"coverage {r}"] | {"threshold": ranking.threshold(r)} for r in RISKS}
    return {
        **{name: found[name] for name in _AREAS},
        "coverage_at_risk": at_risk,
        "curve": {name: points.tolist() for name, points in curve.items()},
    }
