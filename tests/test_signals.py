"""Signals of confidence: against their definitions, worked by hand or recomputed from whole forward passes."""

import math

import numpy as np
import pytest
import torch

from birthplace_lm.decoding import Answer, answer_questions
from birthplace_lm.evaluation.signals import (
    agreement,
    answer_signals,
    confidence_signals,
    place_signals,
)
from birthplace_lm.prefix_tree import PlaceScores, score_places
from birthplace_lm.tokenizer import MASK, MASK_ID, PAD, PAD_ID, CharTokenizer
from birthplace_lm.transformer import Transformer
from tests.helpers import roughened, tiny

TOKENIZER = CharTokenizer((PAD, MASK, *"abcdefghijklmnopqr"))
QUESTIONS = ["abc", "q", "defgh", "ponmlk", "bb", "abcdefghijk", "rr", "cab", "d", "kkkk"]
PLACES = ["ab", "abc", "b", "qr", "mno"]
OF_ANSWERS = {
    "sequence_log_probability",
    "log_probability_per_character",
    "first_character_probability",
    "first_character_negative_entropy",
}
OF_PLACES = {"margin_to_other_place", "place_probability", "place_negative_entropy"}


def model_with(dropout: float = 0.0, seed: int = 0) -> Transformer:
    """Random weights that end an answer often enough for some to be finished."""
    model = roughened(tiny(seed=seed, dropout=dropout)).double().eval()
    with torch.no_grad():
        model.head.weight[MASK_ID] *= 3
    return model


def by_hand(*rows: list[float]) -> PlaceScores:
    """Scores of the places a, b, c from their probabilities."""
    with np.errstate(divide="ignore"):
        return PlaceScores(("a", "b", "c"), np.log(rows), np.zeros(len(rows)), np.full(len(rows), -np.inf), 0)


def test_signals_of_the_answer_are_what_the_model_says_of_it() -> None:
    model = model_with()
    answers = answer_questions(model, TOKENIZER, QUESTIONS, max_new_tokens=6, batch_size=4)
    signals = answer_signals(answers)
    assert set(signals) == OF_ANSWERS
    assert {answer.finished for answer in answers} == {True, False}  # both kinds are among them
    for i, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True)):
        prompt = [*TOKENIZER.encode(question), MASK_ID]
        first = model(torch.tensor([prompt]))[0, -1].softmax(-1).detach().numpy()
        assert signals["first_character_probability"][i] == pytest.approx(first.max(), rel=1e-5)
        assert signals["first_character_negative_entropy"][i] == pytest.approx((first * np.log(first)).sum(), rel=1e-5)
        end = [MASK_ID] if answer.finished else [PAD_ID] * (6 - len(answer.text))  # what was cut off is counted, too
        whole = [*prompt, *TOKENIZER.encode(answer.text), *end]
        following = model(torch.tensor([whole]))[0].log_softmax(-1).detach().numpy()
        steps = [following[t - 1, whole[t]] for t in range(len(prompt), len(whole))]
        assert signals["sequence_log_probability"][i] == pytest.approx(sum(steps), rel=1e-5)
        assert signals["log_probability_per_character"][i] == pytest.approx(np.mean(steps), rel=1e-5)


def test_signals_of_an_answer_that_ends_in_padding_count_it_or_not_in_all_of_a_mean() -> None:
    """A model that likes PAD, one question so long that the block ends its answer: 4 characters and not 6."""
    model, asked = model_with(seed=2), [*QUESTIONS, "abcdefghijaaaaaaaaaa"]
    with torch.no_grad():
        model.head.weight[PAD_ID] *= 6
    answers = answer_questions(model, TOKENIZER, asked, max_new_tokens=6, batch_size=4)
    unfinished = [(i, answer) for i, answer in enumerate(answers) if not answer.finished]
    lengths = {len(answer.text) for _, answer in unfinished}
    assert 0 in lengths and lengths & {1, 2, 3, 4, 5} and not answers[-1].finished
    means = answer_signals(answers)["log_probability_per_character"]
    for i, _ in unfinished:
        ids, steps = [*TOKENIZER.encode(asked[i]), MASK_ID], list[float]()
        while len(steps) < 6 and len(ids) <= model.max_length:
            likeliest = model(torch.tensor([ids]))[0, -1].log_softmax(-1).max(-1)
            ids.append(int(likeliest.indices))
            steps.append(likeliest.values.item())
        assert means[i] == pytest.approx(np.mean(steps), rel=1e-5), answers[i]


def test_the_entropy_of_a_first_character_does_not_depend_on_the_company() -> None:
    model = model_with()
    together = answer_questions(model, TOKENIZER, QUESTIONS)
    for question, answer in zip(QUESTIONS, together, strict=True):
        (alone,) = answer_questions(model, TOKENIZER, [question])
        assert alone.first_entropy == pytest.approx(answer.first_entropy, rel=1e-5)


def test_signals_of_places_by_hand() -> None:
    scores = by_hand([0.5, 0.25, 0.05], [0.5, 0.25, 0.05], [0.5, 0.0, 0.05], [0.25, 0.25, 0.25])
    answers = [Answer("a", math.log(0.5), True), Answer("b", math.log(0.25), True)]
    answers += [Answer("zz", math.log(0.2), True), Answer("c", math.log(0.25), True)]
    signals = place_signals(answers, scores)
    assert set(signals) == OF_PLACES
    ratios = np.exp(signals["margin_to_other_place"])  # the answer against the likeliest other place
    np.testing.assert_allclose(ratios, [0.5 / 0.25, 0.25 / 0.5, 0.2 / 0.5, 1])
    np.testing.assert_allclose(signals["place_probability"], [0.5 / 0.8, 0.25 / 0.8, 0.2 / 0.75, 1 / 3])
    p = np.array([0.625, 0.3125, 0.0625])
    np.testing.assert_allclose(signals["place_negative_entropy"][:2], (p * np.log(p)).sum())
    assert signals["place_negative_entropy"][2] == pytest.approx(
        10 / 11 * math.log(10 / 11) + 1 / 11 * math.log(1 / 11)
    )
    assert signals["place_negative_entropy"][3] == pytest.approx(-math.log(3))


def test_an_answer_that_is_sure_of_itself_is_finite_in_all_signals() -> None:
    signals = place_signals([Answer("a", 0.0, True)], by_hand([1.0, 1e-300, 0.0]))
    assert all(np.isfinite(values).all() for values in signals.values())
    assert signals["place_probability"] == pytest.approx(1) and signals["place_negative_entropy"] == pytest.approx(0)


def test_all_signals_at_once() -> None:
    model = model_with(dropout=0.3)
    texts = [answer.text for answer in answer_questions(model, TOKENIZER, QUESTIONS)]
    others = [["", *texts[1:]], texts]
    signals = confidence_signals(model, TOKENIZER, QUESTIONS, PLACES, 3, others)
    assert set(signals.values) == OF_ANSWERS | OF_PLACES | {"dropout_agreement", "seed_agreement"}
    assert not signals.left_out and signals.places is not None
    assert [answer.text for answer in signals.answers] == texts
    assert all(v.shape == (10,) and v.dtype == float and np.isfinite(v).all() for v in signals.values.values())
    assert signals.values["seed_agreement"].tolist() == [0.5] + 9 * [1.0]
    exact = place_signals(signals.answers, score_places(model, TOKENIZER, QUESTIONS, PLACES, tolerance=0))
    np.testing.assert_allclose(
        signals.values["margin_to_other_place"], exact["margin_to_other_place"], atol=1e-9
    )  # the best two are exact whatever was left out
    for name in OF_PLACES:
        np.testing.assert_allclose(signals.values[name], exact[name], atol=0.02)


def test_with_nothing_unscored_every_place_counts() -> None:
    exact = score_places(model_with(), TOKENIZER, QUESTIONS, PLACES, tolerance=0)
    every = confidence_signals(model_with(), TOKENIZER, QUESTIONS, PLACES, unscored=0.0)
    for name, values in place_signals(every.answers, exact).items():
        np.testing.assert_allclose(every.values[name], values, atol=1e-12)
    assert every.places is not None and not every.places.neglected.any()


def test_signals_of_some_questions_are_those_of_all_cut_down() -> None:
    every = confidence_signals(model_with(), TOKENIZER, QUESTIONS, PLACES)
    some = every[2:5]
    assert some.answers == every.answers[2:5] and set(some.values) == set(every.values)
    assert all((some.values[name] == value[2:5]).all() for name, value in every.values.items())
    assert some.places and every.places and some.places.places == every.places.places
    assert (some.places.best() == every.places.best()[2:5]).all() and len(some.places.neglected) == 3
    assert some.left_out == every.left_out
    nobody = every[4:4]
    assert (nobody.answers, nobody.values, nobody.places) == ([], {}, None)


def test_what_cannot_be_had_is_left_out_with_the_reason() -> None:
    signals = confidence_signals(model_with(), TOKENIZER, QUESTIONS, ["ab"])
    assert set(signals.values) == OF_ANSWERS
    assert signals.left_out["dropout_agreement"] == "the model was trained without dropout"
    assert signals.left_out["seed_agreement"] == "no predictions of runs with other seeds were given"
    assert all("1 places are known" in signals.left_out[name] for name in OF_PLACES)
    assert confidence_signals(model_with(), TOKENIZER, QUESTIONS, []).places is None
    few = confidence_signals(model_with(0.3), TOKENIZER, QUESTIONS, [], dropout_samples=0)
    assert few.left_out["dropout_agreement"] == "no samples were asked for"


def test_agreement_needs_one_answer_a_question() -> None:
    with pytest.raises(ValueError, match="list 2 has 1 answers to 2 questions"):
        agreement(["a", "b"], [["a", "b"], ["a"]])
    with pytest.raises(ValueError, match="0 lists"):
        agreement(["a"], [])
