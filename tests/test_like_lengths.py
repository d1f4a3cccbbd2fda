"""Groups of like length: the cheapest there are, by trying all of them."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from birthplace_lm.like_lengths import like_lengths, of_one_length


def cost(groups: list[Tensor], lengths: Tensor, call: int) -> int:
    return sum(len(rows) * int(lengths[rows].max()) + call for rows in groups)


def every_way(lengths: list[int], most: int, call: int) -> int:
    """The least cost over all 2^(R-1) ways to cut the sorted rows into runs."""
    rows, least = sorted(lengths), 10**9
    for cuts in range(2 ** (len(rows) - 1)):
        ends = [0, *(i for i in range(1, len(rows)) if cuts >> (i - 1) & 1), len(rows)]
        runs = [rows[begin:end] for begin, end in pairwise(ends)]
        if max(map(len, runs)) <= most:
            least = min(least, sum(len(run) * run[-1] + call for run in runs))
    return least


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 20))
def test_no_other_groups_cost_less(lengths: list[int], call: int) -> None:
    found = like_lengths(torch.tensor(lengths), most=len(lengths), call=call)
    assert sorted(torch.cat(found).tolist()) == list(range(len(lengths)))
    assert cost(found, torch.tensor(lengths), call) == every_way(lengths, len(lengths), call)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 4))
def test_groups_keep_to_their_size_and_short_rows_come_first(lengths: list[int], most: int) -> None:
    found = like_lengths(torch.tensor(lengths), most, call=3)
    assert sorted(torch.cat(found).tolist()) == list(range(len(lengths))) and max(map(len, found)) <= most
    widths = [lengths[row] for rows in found for row in rows.tolist()]
    assert widths == sorted(widths)


def test_no_rows_are_no_groups_and_groups_of_none_are_refused() -> None:
    assert like_lengths(torch.tensor([], dtype=torch.int64), 4, 1) == []
    with pytest.raises(ValueError, match="at most 0 rows"):
        like_lengths(torch.tensor([1]), 0, 1)
    with pytest.raises(ValueError, match="at most -1 rows"):
        list(of_one_length(["a"], -1))


@given(st.lists(st.integers(1, 4), max_size=12), st.integers(1, 3), st.data())
def test_rows_of_one_length_come_together_once_each(lengths: list[int], most: int, data: st.DataObject) -> None:
    rows = ["x" * length for length in lengths]
    which = data.draw(st.lists(st.sampled_from(range(len(rows))), unique=True)) if rows else []
    found = list(of_one_length(rows, most, which))
    assert sorted(place for group in found for place in group) == sorted(which)
    assert all(len(group) <= most and len({lengths[place] for place in group}) == 1 for group in found)
    assert sum(len(group) < most for group in found) <= len({lengths[place] for place in which})
    everything = sorted(place for group in of_one_length(rows, most) for place in group)
    assert everything == list(range(len(rows)))
