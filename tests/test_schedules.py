"""The schedules at points known by hand, and the handout's trap."""

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthplace_lm.schedules import Constant, HandoutCosine, WarmupCosine, WarmupLinearDecay

EPOCH = 23 * 128 * 127  # the handout's: 2,937 documents in batches of 128, 127 targets each
HANDOUT = HandoutCosine(warmup_positions=512 * 20, final_positions=200 * 2937 * 128)


def test_one_cosine_falls_to_a_tenth_by_the_end_and_stays_there() -> None:
    schedule, total = WarmupCosine(), 650 * EPOCH
    factors = [schedule(epoch * EPOCH, total) for epoch in range(1, 651)]
    assert all(a >= b for a, b in itertools.pairwise(factors))
    assert schedule(5_120, total) == 0.5 and schedule(10_240, total) == 1.0
    assert schedule((total + 10_240) / 2, total) == pytest.approx(0.5)
    assert schedule(total, total) == schedule(2 * total, total) == 0.1
    # minGPT's clamp, not a cosine between 1 and 0.1: at three quarters both would be told apart
    assert schedule(0.75 * total, total) == pytest.approx(0.5 * (1 + math.cos(0.75 * math.pi)), abs=1e-4)


def test_the_handouts_cosine_rises_again_near_62_percent_and_ends_rising() -> None:
    factors = [HANDOUT(epoch * EPOCH, 650 * EPOCH) for epoch in range(1, 651)]
    assert min(factors) == 0.1
    peak = max(range(300, 650), key=factors.__getitem__) + 1
    assert factors[peak - 1] > 0.999
    assert 0.61 < peak / 650 < 0.63
    assert 0.1 < factors[-2] < factors[-1] < 0.2


@given(seen=st.integers(0, 75_000_000))
def test_up_to_its_end_the_handouts_cosine_is_the_one_over_that_many_positions(seen: int) -> None:
    assert HANDOUT(seen, 1) == WarmupCosine(512 * 20)(seen, HANDOUT.final_positions)


def test_trapezoid_and_constant() -> None:
    schedule = WarmupLinearDecay(warmup_positions=10, decay_share=0.5)
    assert [schedule(seen, 100) for seen in (0, 5, 10, 50, 75, 100, 120)] == [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    assert WarmupLinearDecay(0, 0.0)(99, 100) == 1.0
    assert Constant()(1, 2) == 1.0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: WarmupCosine(-5), "a warm-up of -5 positions"),
        (lambda: WarmupCosine(floor=3.0), "floor is a share in 0 … 1, not 3.0"),
        (lambda: HandoutCosine(100, 300, floor=-1), "floor is a share in 0 … 1, not -1"),
        (lambda: HandoutCosine(1000, 300), "a cosine that ends at 300 positions would be over before .* of 1,000"),
        (lambda: WarmupLinearDecay(decay_share=3), "decay_share is a share in 0 … 1, not 3"),
        (lambda: WarmupLinearDecay(decay_share=float("nan")), "decay_share is a share"),
    ],
)
def test_knobs_that_make_no_schedule_are_refused(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


@given(
    schedule=st.sampled_from([Constant(), WarmupCosine(100), HandoutCosine(100, 300), WarmupLinearDecay(100, 0.3)]),
    seen=st.integers(0, 2000),
    total=st.integers(1, 1000),
)
def test_a_factor_is_always_a_share_of_the_peak(schedule: WarmupCosine, seen: int, total: int) -> None:
    assert 0.0 <= schedule(seen, total) <= 1.0
