"""How every share is reported: with its counts and its interval, or with the reason why there is none."""

from collections.abc import Sequence
from typing import Any

from birthplace_lm.evaluation.exact_match import wilson


def share(count: int, total: int, of: str) -> dict[str, Any]:
    """`count` of `total` as JSON: {"value", "low", "high", "why", "count", "total"}; the interval is Wilson's of 95 %.

    Of nothing value and interval are None and `why` says so, with `of` the things that there are none of. Raises
    ValueError unless 0 <= count <= total.

    >>> share(3, 4, of="answers")["value"], share(0, 0, of="wrong answers")["why"]
    (0.75, 'there are no wrong answers')
    """
    interval = wilson(count, total)
    value, low, high = (None, None, None) if interval is None else (count / total, *interval)
    why = "" if total else f"there are no {of}"
    return {"value": value, "low": low, "high": high, "why": why, "count": count, "total": total}


def share_of(flags: Sequence[bool], of: str) -> dict[str, Any]:
    """The share of the flags that are set, see `share`."""
    return share(sum(flags), len(flags), of)
