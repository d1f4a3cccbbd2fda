"""Places scored through the tree: against every place read from the start, one at a time, in float64."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from birthplace_lm.decoding import answer_questions
from birthplace_lm.layer_memory import LayerMemory
from birthplace_lm.prefix_tree import PlaceScores, constrained_answers, score_places
from birthplace_lm.radix_tree import RadixTree
from birthplace_lm.tokenizer import MASK, MASK_ID, PAD, CharTokenizer, UnknownCharacterError
from birthplace_lm.transformer import Cache, Transformer
from tests.helpers import PAIRS, roughened, rows_at_once, tiny

LETTERS = "abcdefghijklmnopqr"
TOKENIZER = CharTokenizer((PAD, MASK, *LETTERS))
# beginnings shared by many, a place that another begins with, long tails, a place of one character
PLACES = ("abc", "abd", "ab", "abcdefg", "b", "bca", "bcaqqqqq", "q", "ran", "a", "rano", "cccccccc")
questions = st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=1, max_size=7)
places = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=14, unique=True)


@torch.no_grad()
def slow_scores(model: nn.Module, asked: list[str], candidates: tuple[str, ...] | list[str]) -> np.ndarray:
    """The definition: read question ⁇ place from the start, add up what the model said of each character and the ⁇."""
    rows = []
    for question, place in itertools.product(asked, candidates):
        prompt, rest = [*TOKENIZER.encode(question), MASK_ID], [*TOKENIZER.encode(place), MASK_ID]
        following = model(torch.tensor([prompt + rest[:-1]]))[0].log_softmax(-1)  # (T, V)
        rows.append(sum(float(following[len(prompt) - 1 + i, character]) for i, character in enumerate(rest)))
    return np.array(rows).reshape(len(asked), len(candidates))


def sharp(seed: int, attention: str = "vanilla", positions: str = "learned") -> Transformer:
    """A model with opinions, in float64."""
    model = roughened(tiny(attention, positions, seed=seed)).double().eval()
    with torch.no_grad():
        model.head.weight.mul_(4)
    return model


def check_bounds(scores: PlaceScores, expected: np.ndarray, tolerance: float, exact: int) -> None:
    """Everything that `score_places` promises of what it found and of what it left out."""
    found = scores.log_probability > -np.inf
    np.testing.assert_allclose(scores.log_probability[found], expected[found], atol=1e-10, rtol=0)
    left_out = np.where(found, -np.inf, expected)
    assert (np.exp(left_out).sum(axis=1) <= scores.neglected + 1e-12).all()
    assert (scores.neglected <= tolerance).all()
    assert (left_out.max(axis=1) <= scores.highest_neglected + 1e-12).all()
    for row, truth in enumerate(expected):
        best = np.argsort(-truth)[:exact]
        assert found[row, best].all()


class Table(nn.Module):
    """A model by hand: what follows depends on the answer so far alone, whatever the question; the rest is equal."""

    def __init__(self, table: dict[str, dict[str, float]]):
        super().__init__()
        self.max_length, self.table, self.unused = 40, table, nn.Parameter(torch.zeros(1))

    def new_cache(self) -> Cache:
        return [LayerMemory()]

    def forward(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        offset: int = 0,
        last: int | None = None,
    ) -> Tensor:
        if cache is not None:
            tokens = torch.cat([*([cache[0]["seen"]] if cache[0] else []), tokens], dim=1)
            cache[0]["seen"] = tokens
        texts = [TOKENIZER.decode(row) for row in tokens.tolist()]
        return torch.tensor(
            [[self._after(text[: end + 1]) for end in range(offset, len(text))] for text in texts], dtype=torch.float64
        ).log()[:, -(last or len(texts[0])) :]

    def _after(self, text: str) -> list[float]:
        said = self.table.get(text.partition(MASK)[2], {})
        rest = (1 - sum(said.values())) / (len(TOKENIZER) - len(said))
        return [said.get(character, rest) for character in TOKENIZER.characters]


@pytest.mark.parametrize(("attention", "positions"), PAIRS)
def test_every_variant_scores_as_if_read_from_the_start(attention: str, positions: str) -> None:
    model, asked = sharp(1, attention, positions), ["abcdef", "q", "bcdefa", "ponmlkjihgf"]
    expected = slow_scores(model, asked, PLACES)
    scores = score_places(model, TOKENIZER, asked, PLACES, tolerance=0)
    np.testing.assert_allclose(scores.log_probability, expected, atol=1e-10, rtol=0)
    assert not scores.neglected.any() and (scores.highest_neglected == -np.inf).all()
    check_bounds(score_places(model, TOKENIZER, asked, PLACES, tolerance=0.05), expected, 0.05, 2)


@settings(max_examples=60)
@given(
    asked=questions,
    candidates=places,
    tolerance=st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 0.9]),
    exact=st.integers(1, 4),
    max_rows=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_bounds_hold_and_the_best_are_exact(
    asked: list[str], candidates: list[str], tolerance: float, exact: int, max_rows: int, seed: int
) -> None:
    model = sharp(seed)
    scores = score_places(model, TOKENIZER, asked, candidates, tolerance, exact, max_rows)
    check_bounds(scores, slow_scores(model, asked, candidates), tolerance, min(exact, len(candidates)))


def test_leaving_out_saves_reading() -> None:
    model, asked = sharp(0), [a + b for a, b in itertools.product(LETTERS[:6], LETTERS[:6])]
    candidates = [a + b + c for a, b, c in itertools.product(LETTERS[:7], repeat=3)]
    every = score_places(model, TOKENIZER, asked, candidates, tolerance=0)
    some = score_places(model, TOKENIZER, asked, candidates, tolerance=0.05)
    assert every.characters == len(asked) * (3 + 7 + 7 * 7 + 7**3)  # every node once
    assert some.characters < 0.65 * every.characters
    assert 0 < some.neglected.max() <= 0.05


def test_a_beginning_that_leads_nowhere_does_not_hide_the_best_place() -> None:
    """ "a" looks better than "b" until nothing of the list follows: only a second walk finds that out."""
    model = Table({"": {"a": 0.6, "b": 0.3}, "a": {"q": 1 - 1e-9}, "b": {"c": 0.9}, "bc": {MASK: 0.9}})
    candidates = ["ab", "ac", "bc", "bd"]
    scores = score_places(model, TOKENIZER, ["r", "rr"], candidates, tolerance=0.9, exact=1)  # type: ignore[arg-type]
    assert scores.best().tolist() == [2, 2]
    assert np.exp(scores.log_probability[:, 2]) == pytest.approx(0.3 * 0.9 * 0.9)
    (answer, _) = constrained_answers(model, TOKENIZER, ["r", "rr"], candidates)  # type: ignore[arg-type]
    (greedy,) = answer_questions(model, TOKENIZER, ["r"])  # type: ignore[arg-type]
    assert (answer.text, answer.finished, greedy.text[:2]) == ("bc", True, "aq")
    assert answer.probability == pytest.approx(0.243)


def test_what_is_left_out_is_booked_in_full() -> None:
    model = Table({"": {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.04}, "a": {MASK: 0.9}, "b": {MASK: 0.9}})
    scores = score_places(model, TOKENIZER, ["r"], ["a", "b", "c", "d"], tolerance=0.3)  # type: ignore[arg-type]
    assert scores.neglected == pytest.approx([0.14]) and np.exp(scores.highest_neglected) == pytest.approx([0.1])
    assert (scores.log_probability[0] > -np.inf).tolist() == [True, True, False, False]


def test_of_equally_likely_places_the_first_is_chosen() -> None:
    indifferent = Table({})
    for candidates in (["q", "a", "m"], ["m", "q", "a"]):
        (answer,) = constrained_answers(indifferent, TOKENIZER, ["r"], candidates)  # type: ignore[arg-type]
        assert answer.text == candidates[0]


@settings(max_examples=20)
@given(asked=questions, candidates=places, seed=st.integers(0, 5))
def test_constrained_answers_are_the_best_of_all_places(asked: list[str], candidates: list[str], seed: int) -> None:
    model = sharp(seed)
    expected = slow_scores(model, asked, candidates)
    answers = constrained_answers(model, TOKENIZER, asked, candidates)
    assert [answer.text for answer in answers] == [candidates[i] for i in expected.argmax(1)]
    np.testing.assert_allclose([answer.log_probability for answer in answers], expected.max(1), atol=1e-10)


def test_a_distribution_sums_to_one_and_keeps_ratios() -> None:
    scores = score_places(sharp(2), TOKENIZER, ["abc", "q"], PLACES, tolerance=0)
    share = scores.distribution()
    np.testing.assert_allclose(share.sum(axis=1), 1)
    np.testing.assert_allclose(np.log(share[:, 0] / share[:, 1]), -np.diff(scores.log_probability[:, :2])[:, 0])


def test_memory_does_not_change_what_is_found() -> None:
    model, asked = sharp(3), ["abc", "bcd", "cde", "rrr", "a"]
    small, large = (score_places(model, TOKENIZER, asked, PLACES, max_rows=rows) for rows in (1, 1000))
    np.testing.assert_allclose(small.log_probability, large.log_probability, atol=1e-10)
    np.testing.assert_allclose(small.neglected, large.neglected)


def test_no_more_rows_at_a_time_than_allowed_or_one_question_needs() -> None:
    asked = ["abc", "bcd", "cde", "rrr"]
    found = {}
    for max_rows in (1, 3, 5, 1000):
        model = sharp(3)
        seen = rows_at_once(model)
        score_places(model, TOKENIZER, asked, PLACES, tolerance=0, max_rows=max_rows)
        found[max_rows] = max(seen)
    # of one question two beginnings, a and b, lead to several places; three places end alone behind one of them
    assert found[1] == found[3] <= 3 and found[5] <= 5 and found[1000] > 5


def test_no_questions_no_rows_and_training_mode_is_kept() -> None:
    model = tiny().train()
    assert score_places(model, TOKENIZER, [], ["ab", "b"]).log_probability.shape == (0, 2)
    score_places(model, TOKENIZER, ["abc"], ["b"])
    assert model.training


def test_a_model_in_training_scores_without_dropout() -> None:
    model, places = roughened(tiny(dropout=0.5)), ["ab", "abc", "ac", "b", "bca", "bcd"]
    expected = score_places(model.eval(), TOKENIZER, ["abc", "abd", "abe"], places, tolerance=0.0)
    found = score_places(model.train(), TOKENIZER, ["abc", "abd", "abe"], places, tolerance=0.0)
    np.testing.assert_allclose(found.log_probability, expected.log_probability)
    assert model.training


def test_a_tree_has_a_node_for_every_shared_beginning() -> None:
    tree = RadixTree([[2, 3, 4, 1], [2, 3, 5, 6, 1], [7, 1], [2, 1]])
    assert len(tree.first_edge) - 1 == 3  # nothing, 2, 2 3
    assert sorted(tree.tail_lengths.tolist()) == [1, 2, 2, 3]
    assert tree.longest == 4


def test_what_cannot_be_scored_is_refused_with_its_numbers() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="0 places"):
        score_places(model, TOKENIZER, ["a"], [])
    with pytest.raises(ValueError, match="of 3 places some stand twice"):
        score_places(model, TOKENIZER, ["a"], ["b", "c", "b"])
    with pytest.raises(ValueError, match=r"has 21 characters with its ⁇ and the longest place 4, .* at most 24"):
        score_places(model, TOKENIZER, ["a" * 20], ["abcd"])
    score_places(model, TOKENIZER, ["a" * 19], ["abcd", "abc"])
    with pytest.raises(ValueError, match=r"tolerance 1\.5"):
        score_places(model, TOKENIZER, ["a"], ["b"], tolerance=1.5)
    with pytest.raises(ValueError, match="exact 0 and max_rows None"):
        score_places(model, TOKENIZER, ["a"], ["b"], exact=0)
    with pytest.raises(ValueError, match="exact 2 and max_rows -5"):
        score_places(model, TOKENIZER, ["a"], ["b"], max_rows=-5)
    with pytest.raises(UnknownCharacterError, match="'Z'"):
        score_places(model, TOKENIZER, ["a"], ["Zoo"])
