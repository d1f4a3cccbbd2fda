"""Beam search against its definition, greedy decoding and the likeliest of all answers."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.beam_search import beam_answers
from birthplace_lm.decoding import answer_questions
from birthplace_lm.tokenizer import MASK, MASK_ID, PAD, CharTokenizer
from birthplace_lm.transformer import Transformer
from tests.helpers import VARIANTS, fits, roughened, rows_at_once, tiny
from tests.test_decoding import TOKENIZER, questions

FEW = CharTokenizer([PAD, MASK, "a", "b"])


def few(seed: int) -> Transformer:
    """A model of four characters."""
    return roughened(tiny(vocabulary_size=len(FEW), seed=seed)).double().eval()


@torch.inference_mode()
def log_probability(model: Transformer, tokenizer: CharTokenizer, question: str, ids: list[int]) -> float:
    """log P of the characters behind the question, read in one call."""
    prompt = [*tokenizer.encode(question), MASK_ID]
    following = model(torch.tensor([prompt + ids[:-1]])).log_softmax(-1)[0, len(prompt) - 1 :]
    return float(following.gather(1, torch.tensor(ids)[:, None]).sum())


def likeliest(model: Transformer, question: str, most: int) -> tuple[float, str]:
    """Of all sequences of at most so many characters that end with ⁇."""
    others = [i for i in range(len(FEW)) if i != MASK_ID]
    texts = (text for n in range(most) for text in product(others, repeat=n))
    best = max((log_probability(model, FEW, question, [*text, MASK_ID]), text) for text in texts)
    return best[0], FEW.decode(best[1])


def slow_beam(model: Transformer, question: str, width: int, most: int) -> tuple[float, str, bool]:
    """The definition: at every step the likeliest among what is finished and all beginnings with a character more."""
    beam: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(most):
        longer = [one for one in beam if MASK_ID in one[1]]
        for text in (text for _, text in beam if MASK_ID not in text):
            for i in range(len(FEW)):
                longer.append((log_probability(model, FEW, question, [*text, i]), (*text, i)))
        beam = sorted(longer, reverse=True)[:width]
    score, text = next((one for one in beam if MASK_ID in one[1]), beam[0])
    said, *end = FEW.decode(text).split(MASK)
    return score, said if end else said.rstrip(PAD), bool(end)


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_of_everything_finds_the_likeliest_answer(seed: int) -> None:
    model = few(seed)
    for question, answer in zip(["ab", "b", "a"], beam_answers(model, FEW, ["ab", "b", "a"], 4**5, 5), strict=True):
        score, text = likeliest(model, question, 5)
        assert answer.finished and answer.text == text
        assert answer.log_probability == pytest.approx(score, abs=1e-9)


@settings(max_examples=25)
@given(
    asked=st.lists(st.text("ab", max_size=5), max_size=5),
    width=st.integers(1, 6),
    most=st.integers(1, 5),
    max_rows=st.integers(1, 12),
    seed=st.integers(0, 7),
)
def test_a_beam_is_what_its_definition_says(asked: list[str], width: int, most: int, max_rows: int, seed: int) -> None:
    model = few(seed)
    for question, answer in zip(asked, beam_answers(model, FEW, asked, width, most, max_rows), strict=True):
        score, text, finished = slow_beam(model, question, width, most)
        assert (answer.text, answer.finished) == (text, finished)
        assert answer.log_probability == pytest.approx(score, abs=1e-9)


def test_no_more_beginnings_at_a_time_than_allowed_or_one_question_has() -> None:
    found = {}
    for max_rows in (1, 3, 7, 1000):
        model = few(1)
        seen = rows_at_once(model)
        beam_answers(model, FEW, ["aa", "ab", "ba", "bb", "aab", "abb"], width=3, max_rows=max_rows)
        found[max_rows] = max(seen)
    assert found[1] == found[3] == 3 and found[7] == 6 < found[1000]


@pytest.mark.parametrize("attention", VARIANTS)
@settings(max_examples=5)
@given(asked=questions, most=st.integers(1, 12), seed=st.integers(0, 3))
def test_a_beam_of_one_is_greedy_decoding(attention: str, asked: list[str], most: int, seed: int) -> None:
    positions = "learned" if fits(attention, "learned") else "none"
    model = roughened(tiny(attention, positions, seed=seed)).double().eval()
    greedy = answer_questions(model, TOKENIZER, asked, most)
    for one, other in zip(beam_answers(model, TOKENIZER, asked, 1, most), greedy, strict=True):
        assert (one.text, one.finished) == (other.text, other.finished)
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        assert one.characters == other.characters


def test_a_wider_beam_finds_likelier_answers_than_greedy_decoding() -> None:
    asked, gains = ["a", "b", "ab", "ba", "aab", "bba", "bbb"], []
    for model in (few(seed) for seed in (2, 3, 4, 7)):
        pairs = zip(answer_questions(model, FEW, asked, 6), beam_answers(model, FEW, asked, 32, 6), strict=True)
        gains += [beam.log_probability - greedy.log_probability for greedy, beam in pairs if greedy.finished]
    assert min(gains) > -1e-4 and max(gains) > 1


@pytest.mark.parametrize("seed", range(6))
def test_the_end_of_the_block_ends_an_answer(seed: int) -> None:
    model, question = few(seed), "a" * 20  # the block of 24 has room for three characters behind its ⁇, and reads a 4th
    (answer,) = beam_answers(model, FEW, [question], width=3, max_new_tokens=32)
    score, text, finished = slow_beam(model, question, 3, 4)
    assert (answer.text, answer.finished) == (text, finished)
    assert answer.log_probability == pytest.approx(score, abs=1e-9)


def test_nothing_asked_nothing_answered_and_training_mode_is_kept() -> None:
    model = tiny().train()
    assert beam_answers(model, TOKENIZER, [], 3) == []
    beam_answers(model, TOKENIZER, ["abc"], 3)
    assert model.training


@pytest.mark.parametrize(("width", "most"), [(0, 5), (-1, 5), (2, 0)])
def test_a_beam_of_nothing_is_refused(width: int, most: int) -> None:
    with pytest.raises(ValueError, match=f"width {width} and max_new_tokens {most} have to be 1 or more"):
        beam_answers(tiny(), TOKENIZER, ["abc"], width, most)


def test_a_question_longer_than_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match="has 31 characters with its ⁇, this model sees at most 24"):
        beam_answers(tiny(), TOKENIZER, ["a" * 30], 2)
