"""From how sure a model is to how often it is right: one or two numbers, fitted on questions kept for it.

Fit on questions whose answers the model was not trained on, and report on others: it is surer of what it was told.
Legend: N questions, P places.
"""

from dataclasses import dataclass

import numpy as np

from birthplace_lm.evaluation.logistic import fit_logistic, sigmoid
from birthplace_lm.evaluation.resampling import Array, halves, of_a_half, one_class, why_undefined

CLIP = 1e-7  # probabilities of 0 and 1 count as this far from them: about what float32 can tell from 1
HOTTEST, COLDEST = 100.0, 0.01
_PULL = 1e-6  # towards temperature 1: decides where the data say nothing and nowhere else


def logit(probability: Array) -> Array:
    """log p/(1 − p) of probabilities kept within CLIP of 0 and 1."""
    p = np.clip(np.asarray(probability, dtype=float), CLIP, 1 - CLIP)
    return np.log(p) - np.log1p(-p)


@dataclass(frozen=True)
class LogitScaling:
    """p -> σ(logit(p)/temperature + bias): above 1 the temperature makes less sure, a bias below 0 more often wrong.

    >>> LogitScaling(temperature=2.0, bias=0.0)(np.array([0.1, 0.5, 0.9])).round(2).tolist()
    [0.25, 0.5, 0.75]
    """

    temperature: float
    bias: float

    def __call__(self, probability: Array) -> Array:
        return sigmoid(logit(probability) / self.temperature + self.bias)


def fit_logit_scaling(probability: Array, right: Array, with_bias: bool = True) -> LogitScaling:
    """The scaling under which right answers (N,) of these probabilities (N,) are most likely (Platt 1999).

    With the bias, which is the default: a sequence probability is that of one string among very many, so that nothing
    makes ½ the point where as many are right as wrong, and a temperature alone would keep it there. Without it, it is
    temperature scaling (Guo et al. 2017, arXiv 1706.04599) of the two classes right and wrong.

    Platt's targets, (R + 1)/(R + 2) for the R right ones and 1/(W + 2) for the W wrong ones, keep the answer finite
    where a threshold separates them. The temperature stays in [0.01, 100]: a signal that points the wrong way gets 100,
    which is to say no weight. ValueError where `why_unfit` gives a reason.
    """
    if why := why_unfit(probability, right):
        raise ValueError(f"no scaling can be fitted: {why}")
    z, yes = logit(probability), np.asarray(right, dtype=bool)
    wins = int(yes.sum())
    targets = np.where(yes, (wins + 1) / (wins + 2), 1 / (len(yes) - wins + 2))
    features = np.stack([z, np.ones_like(z)], axis=1)[:, : 1 + with_bias]
    weights, _ = fit_logistic(features, targets, *np.array([[_PULL, 0.0], [1.0, 0.0]])[:, : 1 + with_bias])
    slope = float(np.clip(weights[0], 1 / HOTTEST, 1 / COLDEST))
    if with_bias and slope != weights[0]:  # convex: the best allowed point lies on the bound, with its own bias
        middle = slope * np.median(z)  # from where σ is steep for somebody, or the first step would be wild
        bias, _ = fit_logistic(features[:, 1:], targets, np.zeros(1), offset=slope * z - middle)
        weights = np.r_[slope, bias - middle]
    return LogitScaling(1 / slope, float(weights[1]) if with_bias else 0.0)


def why_unfit(probability: Array, right: Array) -> str:
    """The reason why no scaling can be fitted on these questions, "" where one can."""
    return why_undefined(probability, right) or one_class(right)


def cross_fitted(
    probability: Array, right: Array, seed: int = 0, with_bias: bool = True, apart: Array | None = None
) -> Array:
    """Calibrated probabilities (N,) of questions that have to calibrate themselves: each half with the other's scaling.

    The halves are drawn by the seed, with as many right answers in either as can be. No question is among those that
    its scaling is fitted on, yet labels of the same split are used: say so beside the figure. Probabilities that were
    themselves made of the other half's labels bring `apart` (N,), the same made of none but each half's own: it is that
    which a scaling is fitted on, or a question's label would come back to it by the other half. ValueError where a half
    cannot be fitted.
    """
    probability, right = np.asarray(probability, dtype=float), np.asarray(right, dtype=bool)
    calibrated, told = np.empty(len(right)), probability if apart is None else np.asarray(apart, dtype=float)
    with of_a_half():
        for fit, asked in halves(right, seed):
            calibrated[asked] = fit_logit_scaling(told[fit], right[fit], with_bias)(probability[asked])
    return calibrated


@dataclass(frozen=True)
class SoftmaxTemperature:
    """A temperature for distributions over places, and the number of questions it was and was not fitted on."""

    temperature: float
    fitted_on: int
    left_out: int

    def __call__(self, log_scores: Array) -> Array:
        """Log-probabilities (N, P) of the places: log softmax(scores / temperature)."""
        return _log_softmax(np.asarray(log_scores, dtype=float) / self.temperature)


def fit_softmax_temperature(log_scores: Array, place: Array) -> SoftmaxTemperature:
    """The temperature T of softmax(s/T) under which the true places are most likely (Guo et al. 2017).

    `log_scores` (N, P) may hold −∞ for places that cannot be; `place` (N,) is the index of the true one, −1 where it is
    not among them. With β = 1/T the slope of the negative log-likelihood, Σ_n (E_β[s_n] − s_n,place), rises with β:
    its root is found by bisection of log β, T within [0.01, 100], and T = 1 where the scores say nothing. Questions
    whose true place is missing or at −∞ are equally unlikely at every temperature: they are left out and counted.
    ValueError for NaN or +∞, or where no question is left.
    """
    scores, place = np.asarray(log_scores, dtype=float), np.asarray(place)
    if scores.ndim != 2 or place.shape != scores.shape[:1] or (place >= scores.shape[1]).any():
        raise ValueError(f"scores {scores.shape} and places {place.shape} up to {place.max(initial=-1)} do not fit")
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise ValueError(f"{int((~(scores < np.inf)).sum())} of {scores.size} scores are NaN or ∞")
    true = np.where(place >= 0, scores[np.arange(len(place)), place], -np.inf)
    kept = np.isfinite(true)
    if not kept.any():
        raise ValueError(f"none of {len(place)} questions has its place among those scored: nothing to fit")
    scores, true = scores[kept], true[kept]
    finite = np.where(np.isfinite(scores), scores, 0.0)  # 0 · −∞ would be NaN
    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(50):
        middle = (low + high) / 2
        beta = np.exp(middle)
        slope = (np.exp(_log_softmax(beta * scores)) * finite).sum() - true.sum() + _PULL * (beta - 1)
        low, high = (middle, high) if slope < 0 else (low, middle)
    return SoftmaxTemperature(float(np.exp(-(low + high) / 2)), int(kept.sum()), int((~kept).sum()))


def _log_softmax(scores: Array) -> Array:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
