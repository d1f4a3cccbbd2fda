"""Questions among documents: how many an epoch has, which they are, and that nothing but seed and epoch decides it."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from birthplace_lm.mixtures import Mixture

SHARES = st.lists(st.floats(0, 0.9), min_size=1, max_size=4)


@given(st.integers(1, 60), st.integers(1, 30), SHARES, st.integers(1, 12))
def test_an_epoch_has_the_share_that_its_place_in_the_training_says(
    n_documents: int, n_questions: int, shares: list[float], epochs: int
) -> None:
    assume(epochs > 1 or len(shares) == 1)
    mixture = Mixture(n_documents, n_questions, tuple(shares), epochs, seed=0)
    assert len(mixture.sizes) == epochs
    for epoch, size in enumerate(mixture.sizes):
        at = epoch * (len(shares) - 1) / max(1, epochs - 1)
        left = min(int(at), len(shares) - 1)
        right = min(left + 1, len(shares) - 1)
        wanted = shares[left] + (at - left) * (shares[right] - shares[left])
        # rounded to a whole question: half a question more or less
        assert size - n_documents == pytest.approx(n_documents * wanted / (1 - wanted), abs=0.5 + 1e-6)


@given(st.integers(1, 40), st.integers(1, 15), SHARES, st.integers(1, 8), st.integers(0, 3))
def test_every_question_takes_its_turn_before_any_comes_again(
    n_documents: int, n_questions: int, shares: list[float], epochs: int, seed: int
) -> None:
    assume(epochs > 1 or len(shares) == 1)
    mixture = Mixture(n_documents, n_questions, tuple(shares), epochs, seed)
    asked: list[int] = []
    for epoch, size in enumerate(mixture.sizes):
        documents, questions = mixture.split(torch.arange(size))
        assert documents.tolist() == list(range(n_documents)) and questions.tolist() == list(range(n_documents, size))
        places = questions - n_documents
        if len(places):
            whole = mixture.questions(epoch, places)
            asked += whole.tolist()
            # asked for one by one, in any order, they are the same
            assert [int(mixture.questions(epoch, place[None])) for place in places] == whole.tolist()
    for start in range(0, len(asked) - n_questions + 1, n_questions):
        assert sorted(asked[start : start + n_questions]) == list(range(n_questions))
    counts = Counter(asked)
    assert max(counts.values(), default=0) - min((counts[i] for i in range(n_questions)), default=0) <= 1


def test_a_turn_has_an_order_of_its_own() -> None:
    mixture = Mixture(30, 30, (0.5,), 4, seed=0)
    orders = [mixture.questions(epoch, torch.arange(30)).tolist() for epoch in range(4)]
    assert all(one != other for one, other in pairwise(orders))
    assert Mixture(30, 30, (0.5,), 4, seed=1).questions(0, torch.arange(30)).tolist() != orders[0]


def test_without_questions_there_are_documents_alone() -> None:
    assert Mixture(7, 0, (0.5,), 3, seed=0).sizes == (7, 7, 7)


def test_a_schedule_needs_epochs_to_change_between() -> None:
    with pytest.raises(ValueError, match="2 values for 1 epoch"):
        Mixture(7, 3, (0.0, 0.5), 1, seed=0)
