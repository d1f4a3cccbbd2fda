"""Votes against a ballot counted by hand, and what no vote may depend on."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthplace_lm.evaluation.voting import majority_vote

ballots = st.integers(1, 4).flatmap(
    lambda n: st.lists(
        st.lists(st.sampled_from(["Oslo", "Bern", "Rome"]), min_size=n, max_size=n), min_size=1, max_size=6
    )
)


@given(ballots, st.randoms(use_true_random=False))
def test_no_answer_has_more_votes_and_of_equals_none_has_a_surer_voter(
    ballots: list[list[str]], random: object
) -> None:
    sure = [[-random.random() for _ in row] for row in ballots]  # type: ignore[attr-defined]
    for n, chosen in enumerate(majority_vote(ballots, sure)):
        count = Counter(row[n] for row in ballots)
        assert count[chosen] == max(count.values())
        best = {answer: max(sure[s][n] for s, row in enumerate(ballots) if row[n] == answer) for answer in count}
        assert all(best[chosen] >= best[answer] for answer in count if count[answer] == count[chosen])


@given(ballots)
def test_many_copies_of_one_model_say_what_it_says(ballots: list[list[str]]) -> None:
    assert majority_vote([ballots[0]] * 5 + ballots[:4]) == ballots[0]


def test_equal_votes_without_confidence_go_to_the_first_model() -> None:
    assert majority_vote([["Bern"], ["Oslo"]]) == ["Bern"] and majority_vote([["Oslo"], ["Bern"]]) == ["Oslo"]


@pytest.mark.parametrize(
    ("predictions", "sure", "found"),
    [([], None, "no model at all"), ([["a"], ["a", "b"]], None, "1, 2, 1, 2"), ([["a"]], [[-1.0, -2.0]], "1, 2"),
     ([["a"], ["b"]], [[-1.0]], "1, 1, 1")],
)  # fmt: skip
def test_a_ballot_with_gaps_is_refused(
    predictions: list[list[str]], sure: list[list[float]] | None, found: str
) -> None:
    with pytest.raises(ValueError, match=f"same questions, got {found}$"):
        majority_vote(predictions, sure)
