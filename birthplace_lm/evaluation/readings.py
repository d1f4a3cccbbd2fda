"""Every signal of confidence read as the probability that the answer is right, to ask whether it means what it says.

A signal orders answers; only a number in [0, 1] can be calibrated or not. The probabilities of the first character and
among all places, the two agreements and the detector's are one already. The others are turned into one by what they
are, an order-preserving formula without anything fitted:

    sequence_log_probability          exp: P(answer)
    log_probability_per_character     exp: the geometric mean of its characters' probabilities
    first_character_negative_entropy  exp(Σ P log P) = 1/perplexity: one over how many characters it hesitates between
    place_negative_entropy            the same over places
    margin_to_other_place             σ(margin) = P(answer)/(P(answer) + P(best other place))

What temperature or Platt scaling then makes of it is `temperature`'s.
"""

from collections.abc import Callable, Mapping

import numpy as np

from birthplace_lm.evaluation.logistic import sigmoid
from birthplace_lm.evaluation.resampling import Array


def _itself(signal: Array) -> Array:
    return signal


_READ_AS: Mapping[str, Callable[[Array], Array]] = {
    "sequence_log_probability": np.exp,
    "log_probability_per_character": np.exp,
    "first_character_probability": _itself,
    "first_character_negative_entropy": np.exp,
    "margin_to_other_place": sigmoid,
    "place_probability": _itself,
    "place_negative_entropy": np.exp,
    "dropout_agreement": _itself,
    "seed_agreement": _itself,
    "detector": _itself,
}


def as_probabilities(signals: Mapping[str, Array]) -> dict[str, Array]:
    """The signals (N,) as probabilities (N,) in [0, 1], by name; NaN for what is not finite.

    Signals of another name than those above have no reading and are left out.

    >>> read = as_probabilities({"margin_to_other_place": np.array([0.0, np.log(3)])})
    >>> read["margin_to_other_place"].round(2).tolist()
    [0.5, 0.75]
    """
    known = {name: np.asarray(signal, dtype=float) for name, signal in signals.items() if name in _READ_AS}
    return {name: np.where(np.isfinite(signal), _READ_AS[name](signal), np.nan) for name, signal in known.items()}
