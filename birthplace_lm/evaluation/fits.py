"""What is fitted on answers, a detector, a calibration and thresholds: on other people's, or crosswise on the same.

Legend: N questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from birthplace_lm.evaluation.calibration import calibration_card
from birthplace_lm.evaluation.crosswise import crosswise_detector, thresholds, thresholds_from
from birthplace_lm.evaluation.detector import Detector, fit_detector
from birthplace_lm.evaluation.ranking import RISKS
from birthplace_lm.evaluation.resampling import Array
from birthplace_lm.evaluation.selective import confidence_card


@dataclass(frozen=True)
class Told:
    """Some people's answers: whose they are, and (N,) each every signal, the answer's probability, right or not."""

    whose: str
    signals: Mapping[str, Array]
    probability: Array
    right: Array


def fits_card(asked: Told, left_out: Mapping[str, str], held_out: Told | None = None, seed: int = 0) -> dict[str, Any]:
    """Signals with a detector of all of them, calibration and thresholds, ready for JSON; what cannot be had says why.

    Fitted on people `held_out` of training, where there are some; else on those asked, and every figure is crosswise,
    each half with the fit of the other. `fitted_on` says whose answers it were, `left_out` names signals that could not
    be had, with the reason.
    """
    signals, left_out, by = dict(asked.signals), dict(left_out), held_out or asked
    try:
        detector, signals["detector"] = _detector(asked, held_out, seed)
        combined = detector.to_json()
    except ValueError as error:
        left_out["detector"] = str(error)
        combined = {"why": str(error)}
    rule = _thresholds(asked, held_out, seed)
    probability, right = (held_out.probability, held_out.right) if held_out else (None, None)
    calibration = calibration_card(asked.probability, asked.right, probability, right, seed)
    return {
        "confidence": {**confidence_card(signals, asked.right, seed), "left_out": left_out},
        "detector": {**combined, "fitted_on": by.whose},
        "probabilities": calibration,
        "calibration": {**calibration["calibration"], "fitted_on": by.whose},
        "thresholds": {risk: row["threshold"] for risk, row in rule.items()},
        "thresholds_hold": rule,
    }


def _detector(asked: Told, held_out: Told | None, seed: int) -> tuple[Detector, Array]:
    """The detector to be used on others, and what one says of those asked, (N,), that knows no answer of theirs."""
    if held_out:
        detector = fit_detector(held_out.signals, held_out.right)
        return detector, detector(asked.signals) if len(asked.right) else np.empty(0)
    probability = crosswise_detector(asked.signals, asked.right, seed)
    return fit_detector(asked.signals, asked.right), probability


def _thresholds(asked: Told, held_out: Told | None, seed: int) -> dict[str, Any]:
    try:
        if held_out:
            return thresholds_from(held_out.probability, held_out.right, asked.probability, asked.right)
        return thresholds(asked.probability, asked.right, seed)
    except ValueError as error:
        return {str(risk): {"threshold": None, "why": str(error)} for risk in RISKS}
