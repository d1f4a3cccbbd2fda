"""What is fitted on answers, a detector, a calibration and thresholds: on other people's, or crosswise on the same.

Legend: N questions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from birthplace_lm.evaluation.calibration import calibration_card
from birthplace_lm.evaluation.crosswise import CrosswiseDetector, scaled_ranking, thresholds, thresholds_from
from birthplace_lm.evaluation.detector import Detector, fit_detector
from birthplace_lm.evaluation.ranking import RISKS
from birthplace_lm.evaluation.readings import as_probabilities
from birthplace_lm.evaluation.resampling import Array
from birthplace_lm.evaluation.selective import confidence_card


@dataclass(frozen=True)
class Told:
    """Some people's answers: whose they are, and (N,) each every signal, the answer's probability, right or not.

    `not_read` names signals that mean no probability here, with the reason.
    """

    whose: str
    signals: Mapping[str, Array]
    probability: Array
    right: Array
    not_read: Mapping[str, str] = field(default_factory=dict)


class Detected(NamedTuple):
    """What the detector says of the people asked without any answer of theirs, `own` (N,), and `of_others`.

    `to_calibrate` is what one says of the people it is calibrated on, likewise; ValueError where these are too few.
    """

    own: Array
    of_others: Callable[[Mapping[str, Array]], Array]
    to_calibrate: Callable[[], Array]


class Fits(NamedTuple):
    """What was fitted: the `card`, ready for JSON, and what the detector says; None where there is none."""

    card: dict[str, Any]
    detected: Detected | None


def fit_all(asked: Told, left_out: Mapping[str, str], held_out: Told | None = None, seed: int = 0) -> Fits:
    """Signals with a detector of all of them, calibration and thresholds; what cannot be had says why.

    Fitted on people `held_out` of training, where there are some; else on those asked, and every figure is crosswise,
    each half with the fit of the other. `fitted_on` says whose answers it were, `left_out` names signals that could not
    be had, with the reason. `signals_as_probabilities` has the `calibration_card` of every signal, read as `readings`
    says, but for those that are `not_read`.
    """
    signals, left_out, by = dict(asked.signals), dict(left_out), held_out or asked
    detected = None
    try:
        detector, detected = _detector(asked, held_out, seed)
        signals["detector"], combined = detected.own, detector.to_json()
    except ValueError as error:
        left_out["detector"] = str(error)
        combined = {"why": str(error)}
    rule, steps = _thresholds(asked, held_out, seed)
    probability, right = (held_out.probability, held_out.right) if held_out else (None, None)
    not_read = {**asked.not_read, **by.not_read}
    calibration = calibration_card(asked.probability, asked.right, probability, right, seed)
    card = {
        "confidence": {**confidence_card(signals, asked.right, seed), "left_out": left_out},
        "detector": {**combined, "fitted_on": by.whose},
        "probabilities": calibration,
        "signals_as_probabilities": _calibrations(
            {name: signal for name, signal in signals.items() if name not in not_read},
            detected,
            asked.right,
            held_out,
            seed,
        ),
        "signals_not_read": not_read,
        "calibration": {**calibration["calibration"], "fitted_on": by.whose},
        "thresholds": {risk: row["threshold"] for risk, row in rule.items()},
        "risk_steps": steps,
        "thresholds_hold": rule,
    }
    return Fits(card, detected)


def _detector(asked: Told, held_out: Told | None, seed: int) -> tuple[Detector, Detected]:
    """The detector to be used on others, and what one says of those asked that knows no answer of theirs."""
    if held_out:
        detector = fit_detector(held_out.signals, held_out.right)
        own = detector(asked.signals) if len(asked.right) else np.empty(0)
        return detector, Detected(own, detector, lambda: CrosswiseDetector(held_out.signals, held_out.right, seed).own)
    crosswise = CrosswiseDetector(asked.signals, asked.right, seed)
    return fit_detector(asked.signals, asked.right), Detected(crosswise.own, crosswise, crosswise.apart)


def _calibrations(
    signals: Mapping[str, Array], detected: Detected | None, right: Array, held_out: Told | None, seed: int
) -> dict[str, dict[str, Any]]:
    """The `calibration_card` of every signal; a detector is calibrated on what `to_calibrate` says."""
    fit_right, told, why = right if held_out is None else held_out.right, dict[str, Array](), ""
    nobody = np.full(len(fit_right), np.nan)
    if detected and "detector" in signals:
        try:
            told["detector"] = detected.to_calibrate()
        except ValueError as error:  # parts may be too few where all together are enough
            told["detector"], why = nobody, str(error)
    if held_out is None:
        cards = {
            name: calibration_card(p, right, seed=seed, apart=told.get(name))
            for name, p in as_probabilities(signals).items()
        }
    else:
        fit = as_probabilities({**held_out.signals, **told})
        cards = {
            name: calibration_card(p, right, fit.get(name, nobody), held_out.right, seed)
            for name, p in as_probabilities(signals).items()
        }
    if why:
        cards["detector"]["calibration"]["why"] = why
    return cards


def _thresholds(asked: Told, held_out: Told | None, seed: int) -> tuple[dict[str, Any], list[dict[str, float]] | None]:
    """The rows of the risks that are reported, and the thresholds of every other risk; None where none can be had."""
    by = held_out or asked
    try:
        steps = scaled_ranking(by.probability, by.right).risk_steps()
        if held_out:
            rows = thresholds_from(held_out.probability, held_out.right, asked.probability, asked.right)
        else:
            rows = thresholds(asked.probability, asked.right, seed)
    except ValueError as error:
        return {str(risk): {"threshold": None, "why": str(error)} for risk in RISKS}, None
    return rows, steps
