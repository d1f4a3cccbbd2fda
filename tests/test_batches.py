"""Order and chance: pure functions of (seed, epoch, example), with the statistics of random numbers."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from birthplace_lm.batches import Plan, by_length, dealt, epoch_order, rounded_up, scramble, step_seed, uniforms

seeds = st.integers(0, 2**31)


def splitmix(z: int) -> int:
    """The finaliser with Python's unbounded integers."""
    mask = (1 << 64) - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@given(st.integers(-(2**63), 2**63 - 1))
def test_scramble_is_splitmix(x: int) -> None:
    assert int(scramble(torch.tensor(x))) % 2**64 == splitmix(x % 2**64)


@given(seeds, st.integers(0, 1000), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_an_examples_numbers_do_not_depend_on_its_company(seed: int, epoch: int, index: list[int]) -> None:
    together = uniforms(seed, epoch, torch.tensor(index), 5)
    alone = torch.cat([uniforms(seed, epoch, torch.tensor([i]), 5) for i in index])
    assert torch.equal(together, alone)
    assert torch.equal(together[:, :2], uniforms(seed, epoch, torch.tensor(index), 2))
    assert together.min() >= 0 and together.max() < 1


def test_the_numbers_are_uniform_and_independent() -> None:
    u = uniforms(0, 0, torch.arange(20_000), 3).numpy()
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    others = [uniforms(1, 0, torch.arange(20_000), 1), uniforms(0, 1, torch.arange(20_000), 1)]
    columns = np.column_stack([u, u[:, 0].take(range(1, 20_001), mode="wrap"), *others])
    off_diagonal = np.corrcoef(columns.T)[~np.eye(columns.shape[1], dtype=bool)]
    assert np.abs(off_diagonal).max() < 4 / np.sqrt(20_000)


@given(seeds, st.integers(0, 50), st.integers(1, 300))
def test_an_epoch_visits_every_example_once(seed: int, epoch: int, n: int) -> None:
    assert sorted(epoch_order(seed, epoch, n).tolist()) == list(range(n))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [epoch_order(seed, epoch, 200) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(not torch.equal(a, b) for i, a in enumerate(orders) for b in orders[i + 1 :])
    assert len({step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(2)}) == 300


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@given(SIZES, st.integers(1, 17), st.booleans(), st.data())
def test_a_plan_started_anywhere_goes_on_as_if_it_had_not_stopped(
    sizes: list[int], batch_size: int, shuffle: bool, data: st.DataObject
) -> None:
    plan = Plan(tuple(sizes), batch_size, seed=3, shuffle=shuffle)
    whole = [(epoch, index.tolist()) for epoch, index in plan.batches()]
    assert len(whole) == plan.total_steps
    start = data.draw(st.integers(0, plan.total_steps))
    assert [(epoch, index.tolist()) for epoch, index in plan.batches(start)] == whole[start:]
    assert plan.examples_before(start) == sum(len(index) for _, index in whole[:start])
    for epoch, size in enumerate(sizes):
        seen = [i for e, index in whole if e == epoch for i in index]
        assert sorted(seen) == list(range(size)) and (shuffle or seen == list(range(size)))


@given(SIZES, st.integers(1, 17))
def test_a_plan_knows_how_many_epochs_a_step_has_behind_it(sizes: list[int], batch_size: int) -> None:
    plan = Plan(tuple(sizes), batch_size, seed=0)
    of_epoch = Counter(epoch for epoch, _ in plan.batches())
    within: Counter[int] = Counter()
    for step, (epoch, _) in enumerate(plan.batches()):
        assert plan.epochs_before(step) == pytest.approx(epoch + within[epoch] / of_epoch[epoch])
        within[epoch] += 1
    assert plan.epochs_before(plan.total_steps) == plan.epochs == len(sizes)
    # a learning rate is asked for one step behind the last
    assert plan.examples_before(plan.total_steps + 1) == sum(sizes)


@pytest.mark.parametrize(
    ("sizes", "batch_size", "message"),
    [((), 2, "not 0 of"), ((3, 0), 2, "not 2 of"), ((3, 3), 0, "batch_size must be at least 1, not 0")],
)
def test_an_empty_plan_is_refused(sizes: tuple[int, ...], batch_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(sizes, batch_size, seed=0)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 9))
def test_groups_by_length_hold_every_row_once_from_long_to_short(lengths: list[int], parts: int) -> None:
    groups = by_length(torch.tensor(lengths), parts)
    rows = torch.cat(groups).tolist()
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    assert len(groups) == min(parts, len(lengths))


@given(st.lists(st.integers(1, 100), max_size=40), st.integers(1, 5))
def test_ranks_are_dealt_every_row_once_and_about_as_many_characters(lengths: list[int], ranks: int) -> None:
    shares = [rows.tolist() for rows in dealt(torch.tensor(lengths, dtype=torch.int64), ranks)]
    assert sorted(row for rows in shares for row in rows) == list(range(len(lengths)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    characters = [sum(lengths[row] for row in rows) for rows in shares]
    assert max(characters) - min(characters) <= max(lengths, default=0)


def test_ranks_take_turns_back_and_forth() -> None:
    shares = dealt(torch.tensor([1, 2, 3, 4, 5, 6, 7, 8]), 2)
    assert [[row + 1 for row in rows] for rows in map(torch.Tensor.tolist, shares)] == [[8, 5, 4, 1], [7, 6, 3, 2]]


def test_one_rank_has_the_batch_from_long_to_short() -> None:
    assert [rows.tolist() for rows in dealt(torch.tensor([3, 9, 3, 5]), 1)] == [[1, 3, 0, 2]]


@given(st.integers(0, 10_000))
def test_lengths_are_rounded_up_to_the_next_multiple_of_four(length: int) -> None:
    assert 0 <= rounded_up(length) - length < 4 and rounded_up(length) % 4 == 0
