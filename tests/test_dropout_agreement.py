"""Agreement under dropout: against decoding each sample by itself, and where nothing is dropped against equality."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from birthplace_lm.decoding import MAX_NEW_TOKENS, Answer, answer_questions
from birthplace_lm.evaluation.dropout_agreement import dropout_agreement
from birthplace_lm.tokenizer import MASK_ID
from birthplace_lm.transformer import Transformer
from tests.test_signals import QUESTIONS, TOKENIZER, model_with


@torch.inference_mode()
def one_sample(model: Transformer, question: str) -> list[int]:
    """What a network with characters' masks of its own says, character by character."""
    model.train()
    cache, said = model.new_cache(), list[int]()
    fed = [*TOKENIZER.encode(question), MASK_ID]
    offset, room = 0, min(MAX_NEW_TOKENS, model.max_length + 1 - len(fed))
    while len(said) < room and MASK_ID not in said:
        likeliest = int(model(torch.tensor([fed]), cache, offset)[0, -1].argmax())
        offset, fed = offset + len(fed), [likeliest]
        said.append(likeliest)
    model.eval()
    return said


@pytest.mark.parametrize("rate", [0.03, 0.2])
def test_the_share_is_that_of_samples_decoded_one_by_one(rate: float) -> None:
    model, n = model_with(rate), 150
    questions = ["abc", "defgh", "ponmlk", "rr", "cab"]
    answers = answer_questions(model, TOKENIZER, questions)
    plain = [one_sample(model_with(), question) for question in questions]
    found = dropout_agreement(model, TOKENIZER, questions, answers, samples=4 * n)
    torch.manual_seed(1)
    pairs = zip(questions, plain, strict=True)
    one_by_one = [sum(one_sample(model, question) == own for _ in range(n)) / n for question, own in pairs]
    assert 0.1 < np.mean(one_by_one) < 0.9
    for share, other in zip(found, one_by_one, strict=True):
        spread = math.sqrt(max(share * (1 - share), 1 / n) * (1 / n + 1 / (4 * n)))
        assert abs(share - other) < 3.5 * spread


def test_without_masks_exactly_the_own_answer_agrees() -> None:
    model = model_with()
    answers = answer_questions(model, TOKENIZER, QUESTIONS)
    assert dropout_agreement(model, TOKENIZER, QUESTIONS, answers, 2).tolist() == [1.0] * 10
    for place in range(12):
        others = [altered(answer, place) for answer in answers]
        agreed = dropout_agreement(model, TOKENIZER, QUESTIONS, others, 1)
        assert agreed.tolist() == [float(one == other) for one, other in zip(answers, others, strict=True)]
    assert all(answer.finished for answer in answers)
    unended = [replace(answer, finished=not answer.finished) for answer in answers]
    assert not dropout_agreement(model, TOKENIZER, QUESTIONS, unended, 1).any()


def altered(answer: Answer, place: int) -> Answer:
    """With another character at a place, where the answer is as long."""
    if place >= len(answer.text):
        return answer
    other = "b" if answer.text[place] == "a" else "a"
    return replace(answer, text=answer.text[:place] + other + answer.text[place + 1 :])


def test_it_is_seeded_and_leaves_no_trace() -> None:
    model = model_with(dropout=0.2)
    answers = answer_questions(model, TOKENIZER, QUESTIONS)
    before = torch.get_rng_state()
    shares = dropout_agreement(model, TOKENIZER, QUESTIONS, answers, 6)
    assert torch.equal(torch.get_rng_state(), before) and not model.training
    assert dropout_agreement(model, TOKENIZER, QUESTIONS, answers, 6).tolist() == shares.tolist()
    assert dropout_agreement(model, TOKENIZER, QUESTIONS, answers, 6, seed=1).tolist() != shares.tolist()


def test_samples_of_one_question_are_independent() -> None:
    """Also where several stand side by side and what all questions begin with is read once a sample."""
    model, questions = model_with(dropout=0.2), ["abcdefga"] * 40
    answers = answer_questions(model, TOKENIZER, questions)
    shares = dropout_agreement(model, TOKENIZER, questions, answers, samples=50)
    p = shares.mean()
    assert 0.05 < p < 0.95
    # of 50 independent samples each; one that all of them shared would leave shares of 0 and 1
    assert math.sqrt(((shares - p) ** 2).mean()) < 2 * math.sqrt(p * (1 - p) / 50)


def test_of_nobody_nothing_is_told() -> None:
    assert dropout_agreement(model_with(0.1), TOKENIZER, [], []).shape == (0,)


def test_no_sample_and_too_few_answers_are_refused() -> None:
    model = model_with(dropout=0.2)
    answers = answer_questions(model, TOKENIZER, QUESTIONS)
    with pytest.raises(ValueError, match="0 samples"):
        dropout_agreement(model, TOKENIZER, QUESTIONS, answers, 0)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        dropout_agreement(model, TOKENIZER, QUESTIONS, answers[1:], 1)
