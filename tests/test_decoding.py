"""Greedy answers: cached and batched against one question at a time, recomputed from scratch in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.beam_search import beam_answers
from birthplace_lm.decoding import Answer, answer_questions, answer_text
from birthplace_lm.prefix_tree import score_places
from birthplace_lm.tokenizer import MASK, MASK_ID, PAD, PAD_ID, CharTokenizer, UnknownCharacterError
from birthplace_lm.transformer import Transformer
from tests.helpers import VARIANTS, roughened, rows_at_once, tiny

TOKENIZER = CharTokenizer((PAD, MASK, *"abcdefghijklmnopqr"))
questions = st.lists(st.text("abcdefghijklmnopqr", min_size=1, max_size=14), min_size=1, max_size=9)


def slow_answer(model: Transformer, question: str, most: int) -> Answer:
    """The definition: append the likeliest character until ⁇, the most characters, or the end of the block."""
    ids, score, text = [*TOKENIZER.encode(question), MASK_ID], 0.0, []
    for _ in range(most):
        if len(ids) > model.max_length:
            break
        log_probabilities = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        best = int(log_probabilities.argmax())
        score += float(log_probabilities[best])
        if best == MASK_ID:
            return Answer(TOKENIZER.decode(text), score, True)
        ids.append(best)
        text.append(best)
    whole = TOKENIZER.decode(text)
    return Answer(whole.rstrip(PAD), score, False, padding=len(whole) - len(whole.rstrip(PAD)))


@pytest.mark.parametrize("attention", VARIANTS)
@settings(max_examples=15)
@given(asked=questions, most=st.integers(1, 12), batch_size=st.integers(1, 5), seed=st.integers(0, 3))
def test_batched_answers_are_those_of_one_at_a_time(
    attention: str, asked: list[str], most: int, batch_size: int, seed: int
) -> None:
    model = roughened(tiny(attention, seed=seed)).double().eval()
    for question, answer in zip(asked, answer_questions(model, TOKENIZER, asked, most, batch_size), strict=True):
        expected = slow_answer(model, question, most)
        assert (answer.text, answer.finished) == (expected.text, expected.finished)
        assert answer.log_probability == pytest.approx(expected.log_probability, abs=1e-4)
        assert answer.characters == expected.characters  # that it is the probability of


@pytest.mark.slow
@torch.inference_mode()
def test_500_questions_have_the_answers_of_uncached_float64() -> None:
    """All at once with a cache in float32; but for choices so close that float32 cannot make them."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 15, (500,), generator=draw).tolist()
    asked = ["".join("abcdefghijklmnopqr"[i] for i in torch.randint(0, 18, (n,), generator=draw)) for n in lengths]
    model = roughened(tiny(seed=5))
    model.head.weight[MASK_ID] += 0.5  # so that answers end, some of them late
    answers = answer_questions(model.eval(), TOKENIZER, asked)
    close = list[float]()
    model.double().register_forward_hook(
        lambda _, __, logits: close.append(float(-logits[0, -1].topk(2).values.diff().item()))
    )
    undecided = 0
    for question, answer in zip(asked, answers, strict=True):
        close.clear()
        expected = slow_answer(model, question, 32)
        undecided += min(close) < 1e-4
        if min(close) >= 1e-4:
            assert (answer.text, answer.finished) == (expected.text, expected.finished)
    assert undecided < 10 and len({answer.text for answer in answers}) > 100


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_no_more_questions_at_a_time_than_allowed(batch_size: int) -> None:
    model = tiny()
    seen = rows_at_once(model)
    answer_questions(model, TOKENIZER, ["abc", "b", "cab", "dd", "abcd"], batch_size=batch_size)
    assert max(seen) == min(batch_size, 5)


def test_no_questions_no_answers_and_training_mode_is_kept() -> None:
    model = tiny().train()
    assert answer_questions(model, TOKENIZER, []) == []
    answer_questions(model, TOKENIZER, ["abc"])
    assert model.training


def test_a_model_in_training_answers_without_dropout() -> None:
    model = roughened(tiny(dropout=0.5))
    asked = ["abc", "abd", "q"]
    expected = answer_questions(model.eval(), TOKENIZER, asked)
    assert answer_questions(model.train(), TOKENIZER, asked) == expected and model.training


def test_only_what_fills_up_an_answer_without_an_end_is_cut_off() -> None:
    """A □ that the model wrote before its ⁇ belongs to what it said, and to the probability of that."""
    a, b = TOKENIZER.encode("ab")
    assert answer_text([a, PAD_ID, MASK_ID, b], TOKENIZER) == (f"a{PAD}", True)
    assert answer_text([a, PAD_ID, b, PAD_ID, PAD_ID], TOKENIZER) == (f"a{PAD}b", False)
    assert answer_text([MASK_ID], TOKENIZER) == ("", True)


@pytest.mark.parametrize(("most", "batch_size"), [(0, 512), (-1, 512), (32, 0), (32, -1)])
def test_no_characters_and_no_questions_at_a_time_are_refused(most: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"max_new_tokens {most} and batch_size {batch_size} have to be 1 or more"):
        answer_questions(tiny(), TOKENIZER, ["abc"], most, batch_size)


def test_one_text_is_no_list_of_questions() -> None:
    with pytest.raises(TypeError, match=r"a list of texts, not one of 3 characters: \['abc'\]"):
        answer_questions(tiny(), TOKENIZER, "abc")
    with pytest.raises(TypeError, match=r"a list of texts, not one of 3 characters: \['abc'\]"):
        beam_answers(tiny(), TOKENIZER, "abc", 2)
    for asked, places in (("abc", ["a", "b"]), (["abc"], "ab")):
        with pytest.raises(TypeError, match="are a list of texts, not one of"):
            score_places(tiny(), TOKENIZER, asked, places)


def test_a_question_longer_than_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match="has 31 characters with its ⁇, this model sees at most 24"):
        answer_questions(tiny(), TOKENIZER, ["a" * 30])


def test_an_unknown_character_is_refused() -> None:
    with pytest.raises(UnknownCharacterError, match="'Z'"):
        answer_questions(tiny(), TOKENIZER, ["Zoe"])


def test_probability_is_that_of_the_whole_answer() -> None:
    assert Answer("Pau", -0.5, True).probability == pytest.approx(0.6065, abs=1e-4)
