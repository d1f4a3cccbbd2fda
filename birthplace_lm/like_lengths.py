"""Rows of unlike length in calls of one length, or of like length: little padding, few calls.

Legend: R rows.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import accumulate

import torch
from torch import Tensor

_CALL = 64  # positions that take as long as a call: 9.5 ms for 120, 36 for 640 (3 million parameters, two threads)


def of_one_length(rows: Sequence[Sized], most: int, which: Iterable[int] | None = None) -> Iterator[list[int]]:
    """The places of rows of one length, at most so many at a time, short rows first; of all rows or those of `which`.

    Raises ValueError for groups of fewer than 1 row.

    >>> list(of_one_length(["ab", "c", "de", "fg"], most=2))
    [[1], [0, 2], [3]]
    """
    _check(most)
    places = list(range(len(rows)) if which is None else which)
    for length in sorted({len(rows[place]) for place in places}):
        alike = [place for place in places if len(rows[place]) == length]
        yield from (alike[start : start + most] for start in range(0, len(alike), most))


def like_lengths(lengths: Tensor, most: int, call: int = _CALL) -> list[Tensor]:
    """Rows in groups of at most `most`, short rows first: lengths (R,) -> the rows of each group.

    Every group is as wide as its longest row and costs rows times width, and a call costs as much as `call` positions:
    the sum of these costs is the least that groups of neighbouring lengths have, by dynamic programming over where a
    group ends; a group of more than `most` rows is cut in pieces that are all counted as wide as it is.

    Raises ValueError for groups of fewer than 1 row.

    >>> [rows.tolist() for rows in like_lengths(torch.tensor([2, 9, 2, 9, 3]), most=9, call=4)]
    [[0, 2, 4], [1, 3]]
    """
    _check(most)
    order = torch.argsort(lengths, stable=True)
    widths, counts = (found.tolist() for found in lengths.unique(return_counts=True))
    ends = list(accumulate(counts, initial=0))
    least, begins = [0], [0]  # of the rows up to each width, and where the last group of them begins
    for last, width in enumerate(widths):
        costs = []
        for first in range(last + 1):
            rows = ends[last + 1] - ends[first]
            costs.append(least[first] + rows * width + call * -(-rows // most))
        best = min(range(last + 1), key=costs.__getitem__)
        least.append(costs[best])
        begins.append(best)
    groups, last = list[Tensor](), len(widths)
    while last:
        first = begins[last]
        groups[:0] = order[ends[first] : ends[last]].split(most)
        last = first
    return groups


def _check(most: int) -> None:
    if most < 1:
        raise ValueError(f"groups of at most {most} rows hold none: use 1 or more")
