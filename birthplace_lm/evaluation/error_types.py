"""What wrong answers are: somebody else's place, a frequent one, a neighbouring one, or no place at all.

Every wrong answer gets the first type of this order that fits, the most specific explanation first:

    own document       another place that the person's own biography names, such as a residence
    namesake's place   the place of a train person with the same first name or the same surname
    right country      another place of the right country (only where countries are known: `countries`)
    frequent place     one of the ten most frequent places of the train people
    known place        any other place of the train people
    no known place     anything else: a misspelt or invented place, an unfinished answer, nothing

A type says what would explain an answer, not what caused it: with few places a frequent one is often a namesake's too.
So every count stands beside the number that would be *expected* if each wrong answer were drawn from the train people's
places whatever the person, which is what a guesser makes.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from birthplace_lm.corpus import Question
from birthplace_lm.evaluation.baselines import places_by_frequency
from birthplace_lm.evaluation.exact_match import check_pairs
from birthplace_lm.evaluation.resampling import Array, draws, interval
from birthplace_lm.evaluation.shares import share, share_of
from birthplace_lm.evaluation.slices import documents_by_name

OWN, NAMESAKE, COUNTRY = "own document", "namesake's place", "right country"
FREQUENT, KNOWN, NO_PLACE = "frequent place", "known place", "no known place"
TYPES = (OWN, NAMESAKE, COUNTRY, FREQUENT, KNOWN, NO_PLACE)
_MOST_FREQUENT = 10

Typed = Callable[[Question, str], str]


def error_types(
    predictions: Sequence[str],
    questions: Sequence[Question],
    train: Sequence[Question],
    documents: Sequence[str],
    countries: Mapping[str, str] | None = None,
    why_no_countries: str = "countries are not known",
    seed: int = 0,
) -> dict[str, Any]:
    """How many wrong answers are of each type: {"wrong", "total", "right_country", "types": {type: {...}}}.

    A type's row is its share of the wrong answers (see `shares.share`) and the number `expected` under guessing, with
    what that comes to in 95 % of draws of as many wrong answers. `right_country` is the share of answers, right ones
    too, that lie in the right country, of the people whose birthplace has one. `countries` tells each place's country;
    without it the type is left out, and `why_no_countries` stands in its share. Where nothing is wrong, shares are not
    defined. Raises ValueError where predictions and questions do not pair, a question has no answer, or no train
    question has one.
    """
    check_pairs(predictions, questions)
    typed = _typer(questions, train, documents, countries)
    wrong = [(q, p) for q, p in zip(questions, predictions, strict=True) if p != q.answer]
    counts = Counter(typed(question, prediction) for question, prediction in wrong)
    expected = _expected([question for question, _ in wrong], train, typed)  # (W, types)
    drawn = [chosen @ expected for chosen in draws(len(wrong), seed)] if wrong else [np.zeros((1, len(TYPES)))]
    low, high = interval(np.concatenate(drawn))
    rows = {
        kind: {
            **share(counts[kind], len(wrong), of="wrong answers"),
            "expected": float(expected[:, column].sum()),
            "expected_low": float(low[column]),
            "expected_high": float(high[column]),
        }
        for column, kind in enumerate(TYPES)
        if kind != COUNTRY or countries is not None
    }
    nowhere = {**share(0, 0, of="countries"), "why": why_no_countries}
    at_home = nowhere if countries is None else _right_country(predictions, questions, countries)
    return {"wrong": len(wrong), "total": len(questions), "right_country": at_home, "types": rows}


def _right_country(
    predictions: Sequence[str], questions: Sequence[Question], countries: Mapping[str, str]
) -> dict[str, Any]:
    pairs = [(p, q.answer) for p, q in zip(predictions, questions, strict=True) if q.answer in countries]
    same = [countries.get(prediction) == countries[answer or ""] for prediction, answer in pairs]
    return share_of(same, of="people whose birthplace has a known country")


def _typer(
    questions: Sequence[Question],
    train: Sequence[Question],
    documents: Sequence[str],
    countries: Mapping[str, str] | None,
) -> Typed:
    """The rule that names the type of a wrong answer; what it looks up is gathered once."""
    ranked = [place for place, _ in places_by_frequency(train)]
    known, frequent = set(ranked), set(ranked[:_MOST_FREQUENT])
    owned = documents_by_name((question.name for question in questions), documents)
    namesakes = _namesakes(train)
    country_of = countries or {}

    def typed(question: Question, prediction: str) -> str:
        told = owned.get(question.name, "")[len(question.name) :]
        if question.answer:  # "New York" of "New York City" is a part of the right answer, no other place
            told = told.replace(question.answer, "·")
        if names_place(told, prediction):
            return OWN
        if any(prediction in namesakes[end] for end in name_ends(question.name)):
            return NAMESAKE
        country = country_of.get(prediction)
        if country is not None and country == country_of.get(question.answer or ""):
            return COUNTRY
        return FREQUENT if prediction in frequent else KNOWN if prediction in known else NO_PLACE

    return typed


def names_place(document: str, place: str) -> bool:
    """Whether the text holds the place as whole words that begin with a capital: "in" or "a" are no place of it."""
    if not place[:1].isupper() or place not in document:  # which settles nearly all cases without a search
        return False
    return re.search(rf"(?<!\w){re.escape(place)}(?!\w)", document) is not None


def name_ends(name: str) -> tuple[tuple[str, str], ...]:
    """First name and surname, each marked as what it is; a name of one word has only that, as a first name.

    >>> name_ends("Ada M. Vik")
    (('first', 'Ada'), ('last', 'Vik'))
    """
    words = name.split(" ")
    return (("first", words[0]), ("last", words[-1]))[: len(words)]


def _namesakes(train: Sequence[Question]) -> dict[tuple[str, str], set[str]]:
    """The places of the train people who have a first name, or a surname."""
    places: dict[tuple[str, str], set[str]] = defaultdict(set)
    for question in train:
        if question.answer is not None:
            for end in name_ends(question.name):
                places[end].add(question.answer)
    return places


def _expected(wrong: Sequence[Question], train: Sequence[Question], typed: Typed) -> Array:
    """Each type's probability (W, types) if a wrong answer were drawn from the train places, the right one left out."""
    expected = np.zeros((len(wrong), len(TYPES)))
    column = {kind: i for i, kind in enumerate(TYPES)}
    ranked = places_by_frequency(train)
    for row, question in enumerate(wrong):
        others = [(place, count) for place, count in ranked if place != question.answer]
        weight = sum(count for _, count in others)
        for place, count in others:
            expected[row, column[typed(question, place)]] += count / weight
    return expected
