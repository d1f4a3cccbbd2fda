"""The n-gram baseline against a slow one written from the formula; the known 5 % on the course's data."""

import math
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.corpus import Question, read_folder
from birthplace_lm.evaluation.baselines import NameNgrams, baseline_rows, constant, most_frequent, ngrams
from birthplace_lm.evaluation.exact_match import score


def born(name: str, place: str | None = None) -> Question:
    return Question(f"Where was {name} born?", place)


def slow_scores(train: list[Question], name: str, longest: int, smoothing: float) -> dict[str, float]:
    """The docstring's formula, term by term."""
    grams: dict[str | None, Counter[str]] = {q.answer: Counter() for q in train}
    for question in train:
        grams[question.answer].update(ngrams(question.name, longest))
    vocabulary = set().union(*grams.values())
    scores = {}
    for place, counts in grams.items():
        below = counts.total() + smoothing * len(vocabulary)
        scores[str(place)] = math.log(sum(q.answer == place for q in train) / len(train)) + sum(
            math.log((counts[g] + smoothing) / below) for g in ngrams(name, longest) if g in vocabulary
        )
    return scores


names = st.text("abc é", min_size=1, max_size=7).filter(str.strip)


@settings(max_examples=60)
@given(
    pairs=st.lists(st.tuples(names, st.sampled_from(["Rome", "Oslo", "Cork"])), min_size=1, max_size=12),
    name=names,
    longest=st.integers(1, 4),
    smoothing=st.sampled_from([0.1, 1.0, 2.0]),
)
def test_ngrams_follow_the_formula(pairs: list[tuple[str, str]], name: str, longest: int, smoothing: float) -> None:
    train = [born(*pair) for pair in pairs]
    scores = slow_scores(train, born(name).name, longest, smoothing)
    predicted = NameNgrams(train, longest, smoothing).predict(born(name).name)
    assert scores[predicted] == pytest.approx(max(scores.values()), abs=1e-9)


def test_ties_go_to_the_frequent_then_to_the_alphabet() -> None:
    train = [born("Ab", "Rome"), born("Ab", "Oslo")]
    assert NameNgrams(train).predict("Ab") == "Oslo"
    assert NameNgrams(train).predict("Zz") == "Oslo"
    assert NameNgrams([*train, born("Ab", "Rome")]).predict("Ab") == "Rome"
    assert most_frequent(train, [born("Zz")]) == ["Oslo"]


def test_ngrams_learn_what_a_name_looks_like() -> None:
    train = [born(f"{first} {last}sson", "Lund") for first in ("Per", "Nils") for last in ("Eriks", "Karl")]
    train += [born(f"{first} {last}ić", "Split") for first in ("Ivan", "Ana") for last in ("Horvat", "Kova", "Mar")]
    assert NameNgrams(train)([born("Olle Svensson"), born("Mia Petrović")]) == ["Lund", "Split"]


def test_one_prediction_a_question_whatever_the_order_of_train() -> None:
    train = [born("Ada Byrne", "Cork"), born("Jon Vik", "Oslo"), born("Jo Vikre", "Oslo"), born("Al Byr", "Cork")]
    questions = [born("Jan Vik"), born("Ida Byrne"), born("")]
    rows = baseline_rows(train, questions)
    assert list(rows) == ['always "London"', "most frequent place", "name n-grams"]
    assert {len(row) for row in rows.values()} == {3}
    assert rows == baseline_rows(train[::-1], questions)
    assert constant("London", questions) == rows['always "London"']


def test_train_without_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 of 1 train questions"):
        most_frequent([born("Ada Byrne")], [])


def test_500_places_take_little_time() -> None:
    rng = random.Random(0)

    def name() -> str:
        return " ".join("".join(rng.choices("aeiourtnslkm", k=7)).title() for _ in range(2))

    train = [born(name(), f"Place {i % 500}") for i in range(2000)]
    questions = [born(name()) for _ in range(500)]
    start = time.process_time()
    NameNgrams(train)(questions)
    assert time.process_time() - start < 10  # about 0.5 s


def test_london_is_right_for_25_of_500(cs224n: Path) -> None:
    corpus = read_folder(cs224n)
    rows = baseline_rows(corpus.train, corpus.dev)
    london = score(rows['always "London"'], corpus.dev)
    assert (london["correct"], london["total"], london["exact_match"]) == (25, 500, 0.05)
    assert rows["most frequent place"] == rows['always "London"']
    assert score(rows["name n-grams"], corpus.dev)["correct"] == 31  # 6.2 %
