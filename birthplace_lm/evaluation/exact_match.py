"""Exact match, its intervals, and the files in which predictions are exchanged."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, mean, stdev, variance
from typing import Any

from birthplace_lm.corpus import Question
from birthplace_lm.replacing import replace_file


def score(predictions: Sequence[str], questions: Sequence[Question]) -> dict[str, Any]:
    """Count the predictions that are the answer, character for character; nothing is stripped, folded or normalised.

    Of no questions the share and its interval are None: they are not defined. Raises ValueError when there are more or
    fewer predictions than questions, or when a question has no answer to compare with.

    >>> questions = [Question("Where was Ada Byrne born?", "Cork"), Question("Where was Jon Vik born?", "Oslo")]
    >>> {key: value for key, value in score(["Cork", "oslo"], questions).items() if key != "wilson95"}
    {'exact_match': 0.5, 'correct': 1, 'total': 2}
    """
    check_pairs(predictions, questions)
    correct = sum(prediction == question.answer for prediction, question in zip(predictions, questions, strict=True))
    total = len(questions)
    interval = wilson(correct, total)
    share = correct / total if total else None
    return {
        "exact_match": share,
        "correct": correct,
        "total": total,
        "wilson95": None if interval is None else list(interval),
    }


def check_pairs(predictions: Sequence[str], questions: Sequence[Question]) -> None:
    """Raise ValueError unless every question has an answer and exactly one prediction."""
    if len(predictions) != len(questions):
        raise ValueError(
            f"{len(predictions)} predictions for {len(questions)} questions: one a question is needed, in their order"
        )
    for number, question in enumerate(questions, start=1):
        if question.answer is None:
            raise ValueError(
                f"question {number} of {len(questions)} has no answer ({question.text!r}): "
                "a split without answers can be predicted, not scored"
            )


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """Score interval of a binomial share, without continuity correction; None when `total` is 0.

    Unlike p ± z·s it stays inside [0, 1] and keeps a width at 0 and at 1, which is where small slices lie:
    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n), z the normal quantile (Wilson 1927, JASA 22:209–212).
    """
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} correct of {total}: the first has to lie between 0 and the second")
    if total == 0:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / total
    centre = p + z * z / (2 * total)
    reach = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    lo = 0.0 if correct == 0 else (centre - reach) / scale  # the formula's exact values, free of rounding
    hi = 1.0 if correct == total else (centre + reach) / scale
    return lo, hi


def seed_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None, float | None]:
    """Mean over seeds with its Student-t interval, mean ± t·s/√n; (mean, None, None) for a single seed.

    It answers how far another handful of seeds may land from these; the interval over questions (`wilson`) does not.
    Raises ValueError without any value.
    """
    if not values:
        raise ValueError("0 values: an interval over seeds needs at least one seed, and two for the interval itself")
    centre = mean(values)
    if len(values) == 1:
        return centre, None, None
    reach = t_quantile((1 + confidence) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return centre, centre - reach, centre + reach


@dataclass(frozen=True)
class Welch:
    """An interval of a difference between two means, and the two-sided p of there being none."""

    low: float
    high: float
    p: float


def welch(one: Sequence[float], other: Sequence[float], confidence: float = 0.95) -> Welch:
    """mean(one) - mean(other) ± t·√(s²/n + s'²/n') for samples whose variances may differ (Welch 1947).

    t has the degrees of freedom of Welch and Satterthwaite rounded down, so it is a little wider than with a fraction.
    Without any spread the interval is a point. Raises ValueError for fewer than two values on either side.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"{len(one)} and {len(other)} values: an interval of two means needs two of each at least")
    value = mean(one) - mean(other)
    spreads = [(variance(values) / len(values), len(values) - 1) for values in (one, other)]
    total = sum(spread for spread, _ in spreads)
    if total == 0:
        return Welch(value, value, float(value == 0))
    freedom = max(1, math.floor(total**2 / sum(spread**2 / free for spread, free in spreads) + 1e-9))
    reach = t_quantile((1 + confidence) / 2, freedom) * math.sqrt(total)
    p = 1 - _central(math.atan(abs(value) / math.sqrt(total * freedom)), freedom)
    return Welch(value - reach, value + reach, min(max(p, 0.0), 1.0))


def t_quantile(probability: float, freedom: int) -> float:
    """The point below which Student's t with `freedom` degrees falls with this probability (at least 1/2).

    Found by bisection in the angle θ = arctan(t/√ν), in which the distribution is a finite sum.
    """
    lo, hi = 0.0, math.pi / 2
    for _ in range(60):
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if (1 + _central(middle, freedom)) / 2 < probability else (lo, middle)
    return math.sqrt(freedom) * math.tan(lo)


def _central(angle: float, freedom: int) -> float:
    """P(|T| < √ν·tan θ) for whole ν (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= math.cos(angle) ** 2 * k / (k + 1)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def write_predictions(path: str | Path, predictions: Sequence[str]) -> None:
    """Write one prediction a line, in the order of the questions, UTF-8; the file appears whole or not at all.

    The format has no escape: a line break inside a prediction becomes a space, so that line 7 stays question 7.
    """
    replace_file(Path(path), "".join(f"{without_breaks(prediction)}\n" for prediction in predictions))


def without_breaks(prediction: str) -> str:
    """With a space for every line break.

    >>> without_breaks("New\\nYork")
    'New York'
    """
    return re.sub(r"\r\n?|\n", " ", prediction)


def read_predictions(path: str | Path) -> list[str]:
    """Read what `write_predictions` or another program wrote; "\\r\\n" ends a line too, the last needs no ending.

    Lines end at "\\n" and nowhere else: `str.splitlines` would also cut a prediction at U+2028 or U+0085.
    """
    lines = Path(path).read_bytes().decode("utf-8").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
