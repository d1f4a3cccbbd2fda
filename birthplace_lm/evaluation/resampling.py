"""How every measure is reported: a value with an interval over questions, or the reason why there is none.

The interval is the percentile bootstrap (Efron 1979, Annals of Statistics 7:1–26): the questions are drawn anew with
replacement, as many as there are, the measure is taken of every draw, and the middle 95 % of what comes out is the
interval. A draw is a row of counts (how often each question was picked), so that a measure is written once, for counts:
with ones it is the value, with draws the resamples, all of them at a time.

Legend: R draws, N questions.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Array = np.ndarray
# What is measured of counts (R, N): by name one value a draw (R, …), NaN where the draw leaves it undefined.
Statistics = Callable[[Array], dict[str, Array]]

RESAMPLES = 1000
CONFIDENCE = 0.95
FEWEST = 10  # of fewer questions nothing is reported: an interval over nine answers says whatever one likes
_AT_A_TIME = 50_000  # counts held at once: few enough for the processor's cache, however many questions there are


@dataclass(frozen=True)
class Measure:
    """A value with the ends of its 95 % interval; where it is not defined, None three times and the reason.

    `left_out` counts the resamples in which the measure was undefined (all answers right, say): the interval is of the
    others, and it is None when there are no others.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """The five fields, null where there is no value."""
        return asdict(self)


def why_undefined(scores: Array, right: Array) -> str:
    """The reason why nothing can be measured of these questions, "" where something can.

    A score a question is needed, all finite, of at least ten questions. ValueError if there are not as many scores as
    answers, or if `right` holds anything besides false and true.
    """
    scores, right = np.asarray(scores), np.asarray(right)
    if scores.ndim != 1 or scores.shape != right.shape:
        raise ValueError(f"scores of shape {scores.shape} for answers of shape {right.shape}: one a question is needed")
    if right.size and not np.isin(right, (0, 1)).all():
        raise ValueError(f"answers are right or wrong, not {right[~np.isin(right, (0, 1))][0]}")
    if len(right) < FEWEST:
        return f"{len(right)} questions: at least {FEWEST} are needed"
    bad = int((~np.isfinite(scores.astype(float))).sum())
    return f"{bad} of {len(right)} scores are not finite" if bad else ""


def one_class(right: Array) -> str:
    """The reason why right cannot be told from wrong, "" where both occur."""
    found = np.unique(np.asarray(right, dtype=bool))
    return "" if len(found) > 1 else f"all {len(right)} answers are {'right' if found.all() else 'wrong'}"


def measures(
    statistics: Statistics,
    questions: int,
    seed: int = 0,
    why: str = "",
    resamples: int = RESAMPLES,
    distances: Collection[str] = (),
) -> dict[str, Measure]:
    """Every statistic as a Measure: its value on the questions as they are, its interval over resamples.

    `why` is the reason given where the value itself is undefined; `distances` are the statistics whose interval is
    `centred`. The same seed draws the same questions, so that
    measures of two signals move together from draw to draw.
    """
    values = statistics(np.ones((1, questions)))
    drawn = resampled(statistics, questions, seed, resamples)
    return {
        name: centred(float(value[0]), drawn[name]) if name in distances else measure(float(value[0]), drawn[name], why)
        for name, value in values.items()
    }


def resampled(statistics: Statistics, questions: int, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Array]:
    """The statistics of every draw, by name (R, …), computed a bounded number of draws at a time."""
    parts = [statistics(counts) for counts in draws(questions, seed, resamples)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def draws(questions: int, seed: int = 0, resamples: int = RESAMPLES) -> Iterator[Array]:
    """Counts (r, N) of how often each question was picked; every row adds up to N, the r to `resamples`."""
    generator = np.random.default_rng(seed)
    for r in portions(questions, resamples):
        picked = generator.integers(0, questions, (r, questions)) + questions * np.arange(r)[:, None]
        yield np.bincount(picked.ravel(), minlength=r * questions).reshape(r, questions).astype(float)


def portions(questions: int, resamples: int = RESAMPLES) -> Iterator[int]:
    """How many draws to hold at once, so that (r, N) numbers are few enough; together `resamples`.

    >>> list(portions(20_000, resamples=5)), list(portions(1_000_000, resamples=2))
    ([2, 2, 1], [1, 1])
    """
    rows = max(1, _AT_A_TIME // max(1, questions))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def interval(values: Array, confidence: float = CONFIDENCE) -> Array:
    """The lower and the upper end of the middle `confidence` of resampled values (R, …) -> (2, …)."""
    return np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)


def measure(value: float, drawn: Array, why: str = "") -> Measure:
    """A value and what it came to in resamples (R,), put together; NaN is undefined."""
    if np.isnan(value):
        return Measure(None, why=why or "not defined for these answers")
    defined = drawn[~np.isnan(drawn)]
    low, high = interval(defined).tolist() if len(defined) else (None, None)
    return Measure(value, low, high, left_out=len(drawn) - len(defined))


def centred(value: float, drawn: Array) -> Measure:
    """A distance in [0, 1] and its scatter: the middle 95 % of resamples (R,), moved so that their mean is the value.

    What lies between 0 and 1 and is 0 only for the best, such as a calibration error, is raised by chance, and a
    resample has the chance twice: unmoved, the interval would lie above the value. Moved, it says how the value
    scatters from sample to sample; the chance that is in the value itself it leaves in it.
    """
    low, high = np.clip(value + interval(drawn) - drawn.mean(), 0.0, 1.0).tolist()
    return Measure(value, min(low, value), max(high, value))


def halves(right: Array, seed: int = 0) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(fit, asked), (fit, asked): the two halves of the questions in both roles, with as many right answers in each.

    >>> (fit, asked), (again, _) = halves(np.array([True] * 4 + [False] * 6))
    >>> sorted([*fit, *asked]) == list(range(10)) and list(again) == list(asked)
    True
    """
    right = np.asarray(right, dtype=bool)
    shuffled = np.random.default_rng(seed).permutation(len(right))
    dealt = shuffled[np.argsort(right[shuffled], kind="stable")]  # wrong ones, then right ones, both shuffled
    one, other = dealt[::2], dealt[1::2]
    return (one, other), (other, one)


@contextmanager
def of_a_half() -> Iterator[None]:
    """Have a ValueError say that it is about a half of the questions: all of a half may be right where not all are."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"of one half of the questions: {error}") from error
