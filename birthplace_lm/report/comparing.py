"""Runs that differ by their seed alone are one variant: means with intervals, and differences from a baseline.

Legend: S seeds of a variant, N questions.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from birthplace_lm.composing import ConfigError, differences
from birthplace_lm.evaluation.exact_match import seed_interval, welch, wilson
from birthplace_lm.evaluation.resampling import draws, interval
from birthplace_lm.evaluation.voting import majority_vote
from birthplace_lm.report.collecting import FinishedRun

RESAMPLES = 4_000


@dataclass(frozen=True)
class Difference:
    """Exact match of a variant minus that of the baseline, its 95 % interval and two-sided p.

    p is None where one of the two has a single seed: that may tell two models apart, but not two variants.
    """

    value: float
    low: float
    high: float
    p: float | None


@dataclass(frozen=True)
class Variant:
    """The runs of one setting, one a seed.

    `exact_match` is their mean. `interval` is the wider, at either end, of Student's t over the seeds, which says where
    other seeds would land, and Wilson's over the questions that each of them was asked, which says what other questions
    would do: a few seeds that agree by chance shall not look exact. With a single seed it is Wilson's alone.
    """

    label: str
    runs: tuple[FinishedRun, ...]
    exact_match: float
    interval: tuple[float, float]
    difference: Difference | None = None

    @property
    def seeds(self) -> int:
        return len(self.runs)

    @cached_property
    def vote(self) -> float | None:
        """Exact match of the answers that most seeds give: a figure of its own, since that is as many models.

        None for fewer than three seeds: no two can outvote the third.
        """
        asked = list(self.runs[0].said)
        if self.seeds < 3 or any(run.said.keys() != set(asked) for run in self.runs):
            return None
        said = [[run.said[question] for question in asked] for run in self.runs]
        answers = majority_vote(
            [[text for text, _ in row] for row in said], [[sure for _, sure in row] for row in said]
        )
        right = [
            any(run.right[question] for run in self.runs if run.said[question][0] == answer)
            for question, answer in zip(asked, answers, strict=True)
        ]
        return sum(right) / len(right)

    def mean(self, name: str) -> float | None:
        """The mean over seeds of a number of the runs, None where one of them has none."""
        values = [getattr(run, name) for run in self.runs]
        return None if None in values else float(np.mean(values))

    @property
    def pace(self) -> float | None:
        """Characters of text that were trained on a second, the median over seeds; None where nothing was trained.

        A seed that ran beside other work does not count for more than its place among the others.
        """
        paces = [run.characters / run.seconds for run in self.runs if run.seconds and run.characters]
        return float(np.median(paces)) if len(paces) == len(self.runs) else None


def compare(runs: Sequence[FinishedRun], baseline: str = "vanilla", mix: bool = False) -> list[Variant]:
    """Variants, the best first, each with its difference from the one whose label is `baseline` (if there is one).

    Raises ConfigError where runs that would be averaged differ in commit or data, unless `mix` allows it, and where two
    of them have the same seed.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(comparable(run.settings), sort_keys=True), []).append(run)
    labels = _labels(list(groups.values()))
    variants = []
    for label, group in zip(labels, groups.values(), strict=True):
        group.sort(key=lambda run: run.seed)
        _check_alike(label, group, mix)
        variants.append(_variant(label, group))
    base = next((variant for variant in variants if variant.label == baseline), None)
    variants = [v if v is base or base is None else _against(v, base) for v in variants]
    return sorted(variants, key=lambda variant: (-variant.exact_match, variant.label))


def comparable(value: Any) -> Any:
    """Settings such that two in which nothing differs (`composing.differences`) are written alike: no null, 0 for 0.0.

    Runs are grouped by that text in one pass; to compare each of them with each variant takes long for a large sweep.
    """
    if isinstance(value, Mapping):
        return {key: comparable(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [comparable(inner) for inner in value]
    return int(value) if isinstance(value, bool | float) and float(value).is_integer() else value


def _check_alike(label: str, group: Sequence[FinishedRun], mix: bool) -> None:
    seeds = [run.seed for run in group]
    if len(set(seeds)) < len(seeds):
        twice = ", ".join(str(run.folder) for run in group if seeds.count(run.seed) > 1)
        raise ConfigError(
            f"{label}: the same seed more than once, which would count it twice: leave out one of {twice}"
        )
    if len({frozenset(run.right) for run in group}) > 1:
        counts = ", ".join(f"{run.folder} {len(run.right)}" for run in group)
        raise ConfigError(
            f"{label}: the runs were not asked the same questions ({counts}); answer them again with "
            "birthplace-evaluate RUN --at-most N, the same N for all"
        )
    for what in () if mix else ("commit", "data"):
        values = {getattr(run, what) for run in group}
        if len(values) > 1:
            raise ConfigError(
                f"{label}: runs of {len(values)} different {what}s ({', '.join(sorted(v[:12] for v in values))}) are "
                "no seeds of one experiment; leave some out, or average them all the same with --mix"
            )


def _variant(label: str, group: Sequence[FinishedRun]) -> Variant:
    mean, low, high = seed_interval([run.exact_match for run in group])
    asked = len(group[0].right)
    ends = wilson(round(mean * asked), asked)
    assert ends is not None  # a run without questions is not collected
    if low is not None and high is not None:
        ends = max(min(low, ends[0]), 0.0), min(max(high, ends[1]), 1.0)
    return Variant(label, tuple(group), mean, ends)


def _labels(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """The attention, and behind it whatever else tells a group from the others."""
    names = ("experiment", "positions", "attention")
    choices = [group[0].choices for group in groups]
    telling = [name for name in names[:2] if len({choice.get(name, "-") for choice in choices}) > 1]
    labels = [
        " ".join([choice.get("attention", "-"), *(choice.get(name, "-") for name in telling)]) for choice in choices
    ]
    for label in {label for label in labels if labels.count(label) > 1}:
        alike = [i for i, other in enumerate(labels) if other == label]
        for i in alike:
            labels[i] = f"{label} ({_what_differs(groups, i, alike)})"
    return _told_apart(labels)


def _told_apart(labels: Sequence[str]) -> list[str]:
    """The labels, numbered from the second on where they are the same: 3 and "3" differ and are written alike."""
    told: list[str] = []
    for label in labels:
        names = (label, *(f"{label} #{number}" for number in range(2, len(labels) + 2)))
        told.append(next(name for name in names if name not in told))
    return told


def _what_differs(groups: Sequence[Sequence[FinishedRun]], index: int, alike: Sequence[int]) -> str:
    own = groups[index][0].settings
    keys = {key: ours for i in alike for key, ours, _ in differences(own, groups[i][0].settings) if i != index}
    return ", ".join(f"{key}={value}" for key, value in sorted(keys.items()))


def _against(variant: Variant, base: Variant) -> Variant:
    difference = paired_difference(_table(variant, base), _table(base, variant))
    return Variant(variant.label, variant.runs, variant.exact_match, variant.interval, difference)


def _table(variant: Variant, other: Variant) -> np.ndarray:
    """(S, N): whether each seed answered each question right, the questions that both variants were asked."""
    asked = sorted(set(variant.runs[0].right).intersection(*(run.right for run in (*variant.runs, *other.runs))))
    return np.array([[run.right[question] for question in asked] for run in variant.runs], dtype=float)


@lru_cache(maxsize=2)
def _shares_drawn(n: int, seed: int) -> np.ndarray:
    """(R, N): the same for every variant that is compared on as many questions."""
    return np.concatenate(list(draws(n, seed, RESAMPLES))) / n


def paired_difference(one: np.ndarray, other: np.ndarray, seed: int = 0) -> Difference | None:
    """Mean of one (S, N) minus mean of the other (S', N), the same N questions; None without questions.

    The interval is the wider, at either end, of two, and p the larger of theirs. One is the percentile bootstrap that
    draws questions and, within each variant, seeds with replacement: both are a sample of those that might have been.
    Questions are drawn for both variants together, since a hard one is hard for both; p is twice the smaller share of
    draws on one side of 0, at least 2 in as many as were drawn (Efron & Tibshirani 1993, chapter 15). Two or three
    seeds drawn from themselves vary too little, so the other is Welch's over the seeds' means. Where one of the two
    has a single seed there is only the first, without p: it says nothing of that one's other seeds.
    """
    n = one.shape[1]
    if not n:
        return None
    generator = np.random.default_rng(seed)
    counts = _shares_drawn(n, seed)  # (R, N)
    drawn = np.zeros(RESAMPLES)
    for table, sign in ((one, 1.0), (other, -1.0)):
        seeds = generator.multinomial(len(table), [1 / len(table)] * len(table), RESAMPLES) / len(table)  # (R, S)
        drawn += sign * ((counts @ table.T) * seeds).sum(axis=1)
    low, high = interval(drawn)
    value = float(one.mean() - other.mean())
    if min(len(one), len(other)) == 1:
        return Difference(value, float(low), float(high), None)
    tail = max(min((drawn <= 0).mean(), (drawn >= 0).mean()), 1 / RESAMPLES)
    of_seeds = welch(one.mean(axis=1).tolist(), other.mean(axis=1).tolist())
    ends = max(min(float(low), of_seeds.low), -1.0), min(max(float(high), of_seeds.high), 1.0)
    return Difference(value, *ends, max(float(min(1, 2 * tail)), of_seeds.p))
