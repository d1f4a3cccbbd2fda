"""Do the model's probabilities mean what they say: of the answers it gives 70 %, are 70 % right?

`calibration_card` is the entrance. Legend: R draws, N questions, K bins; counts (R, N) as in `resampling`.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from birthplace_lm.evaluation.exact_match import wilson
from birthplace_lm.evaluation.resampling import (
    RESAMPLES,
    Array,
    Measure,
    interval,
    measures,
    one_class,
    portions,
    why_undefined,
)
from birthplace_lm.evaluation.selective import ABSTAINING, payoff
from birthplace_lm.evaluation.temperature import CLIP, LogitScaling, cross_fitted, fit_logit_scaling

BINS = 10


def squared_error(probability: Array, right: Array) -> Array:
    """(p − y)² an answer (N,), y = 1 if right: its mean is the Brier score (Brier 1950), 0 at best, ¼ for always ½."""
    return (np.asarray(probability, dtype=float) - np.asarray(right, dtype=float)) ** 2


def log_loss(probability: Array, right: Array) -> Array:
    """−log p if right, −log(1 − p) if wrong, nats an answer (N,): its mean is the negative log-likelihood.

    Probabilities are kept 1e-7 away from 0 and 1, so that an answer that is sure and wrong costs 16.1 nats, not ∞.
    """
    p = np.clip(np.asarray(probability, dtype=float), CLIP, 1 - CLIP)
    return -np.where(np.asarray(right, dtype=bool), np.log(p), np.log1p(-p))


def equal_mass_bins(probability: Array, bins: int = BINS) -> Array:
    """The bin (N,) of each probability, 0 the lowest, each of about N/bins questions; equal ones share a bin.

    A question goes by the mean place of those equal to it in ascending order: bin ⌊bins · (place + ½)/N⌋. Many equal
    ones may fill several bins' worth, then there are fewer bins. There are at most N/10, so that none holds a handful.

    >>> equal_mass_bins(np.array([0.1, 0.9, 0.2, 0.9] * 10), bins=4).tolist()[:4]
    [0, 3, 1, 3]
    """
    probability = np.asarray(probability, dtype=float)
    n = len(probability)
    _, inverse, counts = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2  # (distinct,): the mean place + ½
    return (min(bins, max(1, n // 10)) * middle[inverse] / n).astype(int)


def bin_columns(probability: Array, bins: int = BINS) -> Array:
    """Which question is in which bin, as ones and zeros (N, K): sums over bins are products with it."""
    bin_of = equal_mass_bins(probability, bins)
    return (bin_of[:, None] == np.unique(bin_of)).astype(float)


def calibration_error(gap: Array, columns: Array) -> Array:
    """Expected calibration error of every draw (R,), from weighted gaps p − y (R, N) and the bins' columns (N, K).

    ECE = Σ_k n_k/N · |mean p of bin k − share right in bin k| = 1/N Σ_k |Σ_{n in k} (p_n − y_n)| (Naeini et al. 2015),
    here with bins of equal mass, none of which is nearly empty (Nguyen & O'Connor 2015, arXiv 1508.05154).
    """
    return np.abs(gap @ columns).sum(1) / len(columns)


def reliability(probability: Array, right: Array, bins: int = BINS) -> list[dict[str, Any]]:
    """One row a bin for a reliability diagram: its range, size, mean probability, share right, Wilson interval."""
    probability, right = np.asarray(probability, dtype=float), np.asarray(right, dtype=bool)
    bin_of = equal_mass_bins(probability, bins)
    rows = []
    for k in np.unique(bin_of):
        p, y = probability[bin_of == k], right[bin_of == k]
        rows.append(
            {
                "low": float(p.min()),
                "high": float(p.max()),
                "questions": len(p),
                "mean_probability": float(p.mean()),
                "share_right": float(y.mean()),
                "wilson95": list(wilson(int(y.sum()), len(p)) or ()),
            }
        )
    return rows


def ece_if_calibrated(probability: Array, seed: int = 0, bins: int = BINS) -> Measure:
    """The ECE that these probabilities show if each is exactly right: the mean and the middle 95 % of a thousand draws.

    Chance alone lifts every ECE above 0. Here each answer is right with just its probability; an ECE inside the range
    is no sign of miscalibration (Bröcker & Smith 2007, Weather and Forecasting 22:651–661).
    """
    generator, columns = np.random.default_rng(seed), bin_columns(probability, bins)
    gaps = (probability - (generator.random((n, len(probability))) < probability) for n in portions(len(probability)))
    drawn = np.concatenate([calibration_error(gap, columns) for gap in gaps])
    low, high = interval(drawn).tolist()
    return Measure(float(drawn.mean()), low, high)


def probability_card(probability: Array, right: Array, seed: int = 0) -> dict[str, Any]:
    """ECE, Brier score, negative log-likelihood, the score that rewards abstaining, and the reliability rows.

    `probability` (N,) in [0, 1] is that of the answer given. The interval of the ECE is the value's scatter, see
    `centred`; noise only adds to an ECE, and `ece_if_calibrated` says how much noise alone makes.
    `abstaining` has, for each t of `payoff`: what a question earns (`score`), the share answered, and what always
    answering earns.
    """
    names = ("ece", "brier", "nll")
    if why := why_undefined(probability, right):
        nothing = Measure(None, why=why).to_json()
        abstaining = {str(t): {"score": nothing, "answered": nothing, "always": nothing} for t in ABSTAINING}
        return {n: nothing for n in (*names, "ece_if_calibrated")} | {"abstaining": abstaining, "reliability": None}
    probability, n = checked(probability), len(probability)
    gap, columns = probability - np.asarray(right, dtype=float), bin_columns(probability)
    means = {"brier": squared_error(probability, right), "nll": log_loss(probability, right)}
    for t in ABSTAINING:
        means[f"score {t}"] = payoff(probability, right, t)
        means[f"answered {t}"] = probability > t
        means[f"always {t}"] = payoff(np.ones(n), right, t)

    def statistics(counts: Array) -> dict[str, Array]:
        return {"ece": calibration_error(counts * gap, columns)} | {k: counts @ v / n for k, v in means.items()}

    measured = measures(statistics, n, seed, distances=("ece",))
    found = {name: measure.to_json() for name, measure in measured.items()}
    abstaining = {str(t): {k: found[f"{k} {t}"] for k in ("score", "answered", "always")} for t in ABSTAINING}
    return {
        **{name: found[name] for name in names},
        "ece_if_calibrated": ece_if_calibrated(probability, seed).to_json(),
        "abstaining": abstaining,
        "reliability": reliability(probability, right),
    }


def calibration_card(
    probability: Array,
    right: Array,
    held_out_probability: Array | None = None,
    held_out_right: Array | None = None,
    seed: int = 0,
    apart: Array | None = None,
) -> dict[str, Any]:
    """The probabilities of answers (N,) as they are and calibrated, ready for JSON.

    The scaling is fitted on the held-out questions: people whose questions were not trained on. Without them it is
    cross-fitted (`cross_fitted`, which says what `apart` is), and `fitted_on` says so. Returns

        questions, right, resamples   N, how many are right, of the intervals
        fitted_on                     "held-out questions" or "halves of the same questions, crosswise"
        calibration                   temperature, bias, and on how many questions they were fitted; or why not.
                                      `temperature_alone` is the one without a bias. When cross-fitted: of all
                                      questions, to be used on others, not in the figures here
        raw, temperature_scaled,      `probability_card` before, after temperature scaling (Guo et al. 2017, arXiv
        calibrated                    1706.04599), and after Platt scaling (1999), which has a bias, too
        base_rate                     Brier score and log-loss of giving everybody the share of right answers
    """
    crosswise = held_out_probability is None or held_out_right is None
    right, probability = np.asarray(right), checked(probability)
    fit_right = right if held_out_right is None or crosswise else np.asarray(held_out_right)
    fit_probability = probability if held_out_probability is None or crosswise else checked(held_out_probability)
    fitted, scaled, why = dict[str, LogitScaling](), dict[str, Array](), ""
    try:
        for name, with_bias in (("temperature_scaled", False), ("calibrated", True)):
            fitted[name] = scaling = fit_logit_scaling(fit_probability, fit_right, with_bias)
            scaled[name] = scaling(probability)
            if crosswise:
                scaled[name] = cross_fitted(probability, right, seed, with_bias, apart)
        numbers = asdict(fitted["calibrated"]) | {"temperature_alone": fitted["temperature_scaled"].temperature}
    except ValueError as error:
        why, scaled = str(error), {}
        numbers = {"temperature": None, "bias": None, "temperature_alone": None}
    return {
        "questions": len(right),
        "right": int(right.sum()),
        "resamples": RESAMPLES,
        "fitted_on": "halves of the same questions, crosswise" if crosswise else "held-out questions",
        "calibration": numbers | {"questions": len(fit_right), "right": int(fit_right.sum()), "why": why},
        "raw": probability_card(probability, right, seed),
        **{
            n: probability_card(scaled[n], right, seed) if scaled else None
            for n in ("temperature_scaled", "calibrated")
        },
        "base_rate": _base_rate(probability, right, seed),
    }


def checked(probability: Array) -> Array:
    """Probabilities (N,) with what rounding put outside of [0, 1] moved back, and NaN for what is not finite.

    Raises ValueError for anything more than 1e-6 outside: log-probabilities, most likely.
    """
    p = np.asarray(probability, dtype=float)
    p = np.where(np.isfinite(p), p, np.nan)
    outside = (p < -1e-6) | (p > 1 + 1e-6)
    if outside.any():
        raise ValueError(f"{int(outside.sum())} of {len(p)} are no probabilities, the first is {p[outside][0]:.6g}")
    return np.clip(p, 0.0, 1.0)


def _base_rate(probability: Array, right: Array, seed: int) -> dict[str, Any]:
    """What a constant reaches that is the share r of right answers: r(1 − r) and −r log r − (1 − r) log(1 − r).

    A model's probabilities should beat it. Where there is one class or nothing to measure it reaches 0, or nothing:
    then it has no value, and `why` says so.
    """
    if why := why_undefined(probability, right) or one_class(right):
        nothing = Measure(None, why=why).to_json()
        return {"brier": nothing, "nll": nothing}
    y, n = np.asarray(right, dtype=float), len(right)

    def statistics(counts: Array) -> dict[str, Array]:
        share = counts @ y / n
        of_right, of_wrong = log_loss(share, np.ones_like(share)), log_loss(share, np.zeros_like(share))
        return {"brier": share * (1 - share), "nll": share * of_right + (1 - share) * of_wrong}

    return {name: found.to_json() for name, found in measures(statistics, n, seed).items()}
