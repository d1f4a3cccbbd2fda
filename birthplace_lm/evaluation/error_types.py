"""What wrong answers are: somebody else's place, a frequent one, a neighbouring one, or no place at all.

Every wrong answer gets the first type of this order that fits, the most specific explanation first:

    own document       another place that the person's own biography names, such as a residence; "New York" where it
                       says "New York City", the right answer, is none
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from birthplace_lm.corpus import Question
from birthplace_lm.evaluation.baselines import places_by_frequency
from birthplace_lm.evaluation.exact_match import check_pairs
from birthplace_lm.evaluation.resampling import RESAMPLES, Array, interval
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
    others: Iterable[str] = (),
) -> dict[str, Any]:
    """How many wrong answers are of each type: {"wrong", "total", "right_country", "types": {type: {...}}}.

    A type's row is its share of the wrong answers (see `shares.share`) and the number `expected` under guessing, with
    the middle 95 % of what guessers come to who draw a place for everybody who was answered wrongly. `right_country` is
    the share of answers, right ones too, that lie in the right country, of the people whose birthplace has one, and
    `of_wrong` that of the wrong ones, with what is expected; an answer without a country is in none. `countries` tells
    each place's country; without it, or where no birthplace has one, the type is left out, and `why_no_countries`
    stands in its share. `others` are names beside the questions' and train's, whose documents are nobody else's. Where
    nothing is wrong, shares and what is expected are not defined. Raises ValueError where predictions and questions do
    not pair, a question has no answer, or no train question has one.
    """
    check_pairs(predictions, questions)
    if countries is not None and not any(question.answer in countries for question in questions):
        countries, why_no_countries = None, "there are no people whose birthplace has a known country"
    everybody = {*others, *(question.name for question in train)}
    owned = documents_by_name((question.name for question in questions), documents, everybody)
    typed = _typer(owned, train, countries)
    wrong = [(q, p) for q, p in zip(questions, predictions, strict=True) if p != q.answer]
    counts = Counter(typed(question, prediction) for question, prediction in wrong)
    expected = _expected([question for question, _ in wrong], train, typed)  # (W, types)
    guessed = _by_guessing(expected, seed)
    rows = {
        kind: {**share(counts[kind], len(wrong), of="wrong answers"), **guessed[kind]}
        for kind in TYPES
        if kind != COUNTRY or countries is not None
    }
    nowhere = {**share(0, 0, of="countries"), "why": why_no_countries}
    at_home = nowhere if countries is None else _right_country(predictions, questions, train, countries, seed)
    return {"wrong": len(wrong), "total": len(questions), "right_country": at_home, "types": rows}


def _by_guessing(expected: Array, seed: int) -> dict[str, dict[str, float | None]]:
    """What guessers have of each type, whose probabilities (W, types) are given: the mean and the middle 95 %.

    None thrice where nobody was answered wrongly, or somebody about whom there is no other place to guess.
    """
    if not len(expected) or not expected.any(axis=1).all():
        return {kind: dict.fromkeys(("expected", "expected_low", "expected_high")) for kind in TYPES}
    generator, upto = np.random.default_rng(seed), np.cumsum(expected, axis=1)[:, :-1]
    counts = np.empty((RESAMPLES, len(TYPES)))
    for draw in range(RESAMPLES):  # one at a time, for (R, W, types) numbers would not fit many people
        chosen = (generator.random(len(expected))[:, None] > upto).sum(axis=1)  # (W,): a type each
        counts[draw] = np.bincount(chosen, minlength=len(TYPES))
    low, high = interval(counts)
    rows = zip(expected.sum(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return {
        kind: {"expected": mean, "expected_low": least, "expected_high": most}
        for kind, (mean, least, most) in zip(TYPES, rows, strict=True)
    }


def _right_country(
    predictions: Sequence[str],
    questions: Sequence[Question],
    train: Sequence[Question],
    countries: Mapping[str, str],
    seed: int,
) -> dict[str, Any]:
    """The share of answers in the right country, of all and of the wrong ones; these beside what guessers have."""

    def typed(question: Question, place: str) -> str:
        return COUNTRY if countries.get(place) == countries[question.answer or ""] else NO_PLACE

    pairs = [(p, q) for p, q in zip(predictions, questions, strict=True) if q.answer in countries]
    wrong = [(p, q) for p, q in pairs if p != q.answer]
    near = [typed(question, prediction) == COUNTRY for prediction, question in wrong]
    expected = _expected([question for _, question in wrong], train, typed)
    return {
        **share(sum(near) + len(pairs) - len(wrong), len(pairs), of="people whose birthplace has a known country"),
        "of_wrong": {
            **share_of(near, of="wrong answers about people whose birthplace has a known country"),
            **_by_guessing(expected, seed)[COUNTRY],
        },
    }


def _typer(owned: Mapping[str, str], train: Sequence[Question], countries: Mapping[str, str] | None) -> Typed:
    """The rule that names the type of a wrong answer; what it looks up is gathered once, that about a person too."""
    ranked = [place for place, _ in places_by_frequency(train)]
    known, frequent = set(ranked), set(ranked[:_MOST_FREQUENT])
    namesakes = _namesakes(train)
    country_of = countries or {}

    @cache
    def about(question: Question) -> tuple[str, set[str], str | None]:
        told = owned.get(question.name, "")[len(question.name) :]
        of_namesakes = set[str]().union(*(namesakes.get(end, ()) for end in name_ends(question.name)))
        return told, of_namesakes, country_of.get(question.answer or "")

    def typed(question: Question, prediction: str) -> str:
        told, of_namesakes, country = about(question)
        if names_place(told, prediction, question.answer or ""):
            return OWN
        if prediction in of_namesakes:
            return NAMESAKE
        if country is not None and country == country_of.get(prediction):
            return COUNTRY
        return FREQUENT if prediction in frequent else KNOWN if prediction in known else NO_PLACE

    return typed


def names_place(document: str, place: str, answer: str = "") -> bool:
    """Whether the text holds the place as whole words that begin with a capital: "in" or "a" are no place of it.

    Where it stands within the answer, as whole words too, it is a part of that and no place of its own.

    >>> [names_place(f"Born in {place} .", "New York", "New York City") for place in ("New York City", "New York")]
    [False, True]
    """
    if not place[:1].isupper() or place not in document:  # which settles nearly all cases without a search
        return False
    found, own = _whole_words(document, place), _whole_words(document, answer) if place in answer else []
    return any(not any(mine.start <= one.start and one.stop <= mine.stop for mine in own) for one in found)


def _whole_words(text: str, words: str) -> list[range]:
    """Where some words stand in a text with nothing of a word right before or behind them, overlapping or not."""
    starts = (match.start() for match in re.finditer(rf"(?<!\w)(?={re.escape(words)}(?!\w))", text))
    return [range(start, start + len(words)) for start in starts]


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
