"""Several signals made into one: the probability that an answer is right, by logistic regression.

Fit it on questions that the model was not trained on, ask it about others, and put its probability beside the single
signals in `selective.confidence_card`: it is worth its name only where it beats the best of them.

Legend: N questions, D signals.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from birthplace_lm.evaluation.logistic import fit_logistic, sigmoid
from birthplace_lm.evaluation.resampling import Array, one_class, why_undefined

_REACH = 1.959963984540054  # the normal distribution's middle 95 % ends this many standard deviations from its mean


@dataclass(frozen=True)
class Detector:
    """σ(bias + Σ_d weight_d · (signal_d − mean_d)/scale_d), with the standard errors of its weights.

    `left_out` names the signals it was offered and could not use, with the reasons.
    """

    names: tuple[str, ...]
    mean: Array  # (D,), like the next three
    scale: Array
    weights: Array
    errors: Array
    bias: float
    left_out: Mapping[str, str]

    def __call__(self, signals: Mapping[str, Array]) -> Array:
        """The probability (N,) that each answer is right; NaN where one of the signals used is not finite.

        Raises KeyError where a signal it was fitted on is missing.
        """
        if missing := [name for name in self.names if name not in signals]:
            raise KeyError(f"the detector was fitted on {', '.join(self.names)}; missing: {', '.join(missing)}")
        raw = np.stack([np.asarray(signals[name], dtype=float) for name in self.names], axis=1)  # (N, D)
        raw = np.where(np.isfinite(raw), raw, np.nan)
        return sigmoid((raw - self.mean) / self.scale @ self.weights + self.bias)

    def to_json(self) -> dict[str, Any]:
        """The coefficients, strongest first: what one standard deviation more of a signal adds to the log-odds.

        Their 95 % intervals are Wald's, of the penalised fit: of two signals that say the same the penalty keeps half
        each, so read them together.
        """
        rows = {
            name: {
                "coefficient": float(w),
                "low": float(w - _REACH * e),
                "high": float(w + _REACH * e),
                "mean": float(m),
                "scale": float(s),
            }
            for name, w, e, m, s in zip(self.names, self.weights, self.errors, self.mean, self.scale, strict=True)
        }
        strongest = dict(sorted(rows.items(), key=lambda row: -abs(row[1]["coefficient"])))
        return {"bias": self.bias, "signals": strongest, "left_out": dict(self.left_out)}


def fit_detector(signals: Mapping[str, Array], right: Array, penalty: float = 1.0) -> Detector:
    """The logistic regression of `right` (N,) on standardised `signals` (N, D), with L2 penalty on the weights.

    Minimises Σ log-loss + ½ penalty Σ w_d², the bias free of penalty, as scikit-learn's LogisticRegression does with
    C = 1/penalty. A constant signal gets scale 1 and so weight 0. Signals that are not finite everywhere are left out
    and named. ValueError below ten questions, for one class only, without any usable signal, or unless penalty > 0
    (separable answers would have infinite weights).
    """
    if penalty <= 0:
        raise ValueError(f"penalty={penalty}: more than 0 is needed, or weights may grow without end")
    right = np.asarray(right)
    if why := why_undefined(np.zeros(len(right)), right) or one_class(right):
        raise ValueError(f"no detector can be fitted: {why}")
    reasons = {name: why_undefined(np.asarray(signal), right) for name, signal in signals.items()}
    names = tuple(name for name, reason in reasons.items() if not reason)
    if not names:
        raise ValueError(f"no detector can be fitted: none of {len(reasons)} signals is usable ({reasons})")
    raw = np.stack([np.asarray(signals[name], dtype=float) for name in names], axis=1)  # (N, D)
    mean, scale = raw.mean(0), raw.std(0)
    scale = np.where(scale > 1e-12 * np.abs(raw).max(0), scale, 1.0)  # a constant may differ from its mean by rounding
    features = np.c_[(raw - mean) / scale, np.ones(len(raw))]  # (N, D + 1)
    weights, covariance = fit_logistic(features, right.astype(float), np.r_[np.full(len(names), penalty), 0.0])
    errors = np.sqrt(np.diag(covariance))
    left_out = {name: reason for name, reason in reasons.items() if reason}
    return Detector(names, mean, scale, weights[:-1], errors[:-1], float(weights[-1]), left_out)
