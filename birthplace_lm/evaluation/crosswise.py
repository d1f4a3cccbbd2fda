"""What is fitted on questions and reported on the same questions, honestly: each half with the fit of the other.

No question's own label enters what is said of it. Labels of the same split do, so a figure made like this is to be
marked as cross-fitted; one that is fitted on other people (`thresholds_from`) needs no such mark. The name and the
reason are those of Chernozhukov et al. 2018 (arXiv 1608.00060), there for estimates. Legend: N questions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from birthplace_lm.evaluation.detector import fit_detector
from birthplace_lm.evaluation.ranking import RISKS, Ranking
from birthplace_lm.evaluation.resampling import Array, halves, of_a_half
from birthplace_lm.evaluation.shares import share, share_of
from birthplace_lm.evaluation.temperature import fit_logit_scaling


class CrosswiseDetector:
    """A detector for each half of the questions, fitted on the other half; ValueError where a half cannot be fitted.

    `own` (N,) is the probability that each answer is right, by the detector that knows no label of its half; `apart()`
    is made likewise within each half alone, for what is fitted on such probabilities in turn. Others, who are in
    neither half, are asked of the two detectors by turns, so that their probabilities are made as these are: a mean of
    both would lie further from the ends, and known people seem surer than others where they are not.
    """

    def __init__(self, signals: Mapping[str, Array], right: Array, seed: int = 0) -> None:
        right = np.asarray(right)
        self._told, self._seed = (signals, right), seed
        self.own, detectors = np.empty(len(right)), []
        with of_a_half():
            for fit, asked in halves(right, seed):
                detector = fit_detector({name: signal[fit] for name, signal in signals.items()}, right[fit])
                self.own[asked] = detector({name: signal[asked] for name, signal in signals.items()})
                detectors.append(detector)
        self._detectors = tuple(detectors)

    def apart(self) -> Array:
        """What is said of each answer (N,) without its label or any of the other half; ValueError for too few."""
        signals, right = self._told
        apart = np.empty(len(right))
        with of_a_half():
            for half, _ in halves(right, self._seed):
                some = {name: signal[half] for name, signal in signals.items()}
                apart[half] = CrosswiseDetector(some, right[half], self._seed).own
        return apart

    def __call__(self, signals: Mapping[str, Array]) -> Array:
        """The probability (M,) that each of others' answers is right."""
        one, other = (detector(signals) for detector in self._detectors)
        return np.where(np.arange(len(one)) % 2, other, one)


def scaled_ranking(probability: Array, right: Array) -> Ranking:
    """Questions (N,) in the order of their calibrated probability, whose thresholds are to be used on others.

    Raises ValueError where no calibration can be fitted.
    """
    right = np.asarray(right, dtype=bool)
    return Ranking(fit_logit_scaling(probability, right)(probability), right)


def thresholds(probability: Array, right: Array, seed: int = 0) -> dict[str, Any]:
    """From which calibrated probability on to answer so that at most a share of the answers is wrong, and does it hold?

    Every risk of `ranking.RISKS` has the `threshold` found on all questions, to be used on others (None where even the
    surest answers are wrong more often), and what came of the same rule crosswise, calibration and threshold from one
    half and the questions of the other: the share `answered` and the share `wrong` of those, as `shares.share`. Raises
    ValueError where a half cannot be fitted.
    """
    probability, right = np.asarray(probability, dtype=float), np.asarray(right, dtype=bool)
    folds = []
    with of_a_half():
        for fit, asked in halves(right, seed):
            scaling = fit_logit_scaling(probability[fit], right[fit])
            folds.append((Ranking(scaling(probability[fit]), right[fit]), scaling(probability[asked]), right[asked]))
    return _found(scaled_ranking(probability, right), folds)


def thresholds_from(fit_probability: Array, fit_right: Array, probability: Array, right: Array) -> dict[str, Any]:
    """The same with calibration and threshold from other people alone: what came of them on all of these questions.

    `fit_probability` and `fit_right` (M,) are theirs. Raises ValueError where they cannot be fitted.
    """
    scaling = fit_logit_scaling(fit_probability, fit_right)
    ranking = scaled_ranking(fit_probability, fit_right)
    return _found(ranking, [(ranking, scaling(probability), np.asarray(right, dtype=bool))])


def _found(rule: Ranking, folds: Sequence[tuple[Ranking, Array, Array]]) -> dict[str, Any]:
    """The thresholds of a rule, and the shares over all folds: what chose the fold's threshold, and who was asked."""
    found = {}
    for risk in RISKS:
        bounds = [ranking.threshold(risk) for ranking, _, _ in folds]
        given = [p >= (np.inf if bound is None else bound) for bound, (_, p, _) in zip(bounds, folds, strict=True)]
        wrong = sum(int((some & ~correct).sum()) for some, (_, _, correct) in zip(given, folds, strict=True))
        answered = np.concatenate(given).tolist()
        found[str(risk)] = {
            "threshold": rule.threshold(risk),
            "answered": share_of(answered, of="questions"),
            "wrong": share(wrong, sum(answered), of="answers given"),
        }
    return found
