"""Where the score comes from: exact match for rare and frequent places, early and late answers, scripts of names.

A mean over all questions hides that a place seen 60 times is guessed and one never seen has to be known, and that
truncation shows the start of a biography more often than its end.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from birthplace_lm.corpus import Question
from birthplace_lm.evaluation.exact_match import check_pairs, score

Slices = dict[str, dict[str, Any]]
# Each slice with the largest value in it; None: no limit. Train questions with the place; characters from the start.
FREQUENCIES = {"0": 0, "1": 1, "2–4": 4, "5–9": 9, "10–24": 24, "≥25": None}
ENDS = {"≤40": 40, "41–60": 60, "61–80": 80, "81–112": 112, ">112": None}
ABSENT = "absent"
SCRIPTS = ("ASCII", "Latin with diacritics", "other")
# Letters by Unicode, but like signs of whatever script they stand in: the ʻ of Hawaiian, ʼ, and the ª and º of numbers.
_LIKE_SIGNS = ("MODIFIER LETTER", "FEMININE ORDINAL", "MASCULINE ORDINAL")


def by_train_frequency(predictions: Sequence[str], questions: Sequence[Question], train: Sequence[Question]) -> Slices:
    """Score by how many train people were born in the place that is the answer."""
    counts = Counter(question.answer for question in train)
    labels = [_bin(counts[question.answer], FREQUENCIES) for question in questions]
    return _score_groups(predictions, questions, labels, FREQUENCIES)


def by_answer_end(
    predictions: Sequence[str], questions: Sequence[Question], documents: Sequence[str], others: Iterable[str] = ()
) -> Slices:
    """Score by where the answer first ends in the person's document; "absent" when it does not stand there.

    `others` are the names of people who are not asked about (see `documents_by_name`), here and below.
    """
    ends = answer_ends(questions, documents, others)
    labels = [ABSENT if end is None else _bin(end, ENDS) for end in ends]
    return _score_groups(predictions, questions, labels, [*ENDS, ABSENT])


def by_presence(
    predictions: Sequence[str], questions: Sequence[Question], documents: Sequence[str], others: Iterable[str] = ()
) -> Slices:
    """Score by whether the document holds the answer: what is right without it was guessed."""
    labels = [ABSENT if end is None else "present" for end in answer_ends(questions, documents, others)]
    return _score_groups(predictions, questions, labels, ["present", ABSENT])


def by_name_script(predictions: Sequence[str], questions: Sequence[Question]) -> Slices:
    """Score by the script of the name: letters that a corpus shows rarely are learned badly."""
    labels = [name_script(question.name) for question in questions]
    return _score_groups(predictions, questions, labels, SCRIPTS)


def name_script(name: str) -> str:
    """The name is "ASCII", or "Latin with diacritics" when all letters are Latin ones, else "other".

    Signs that belong to no script, such as a typographic apostrophe or the ʻ of Hawaiian, count with the letters around
    them.

    >>> [name_script(name) for name in ("Ada Vik", "Łukasz O’Dwyer", "Liliʻuokalani", "Яна Vik")]
    ['ASCII', 'Latin with diacritics', 'Latin with diacritics', 'other']
    """
    if name.isascii():
        return SCRIPTS[0]
    letters = [character for character in unicodedata.normalize("NFC", name) if character.isalpha()]
    latin = all(unicodedata.name(letter, "").startswith(("LATIN", *_LIKE_SIGNS)) for letter in letters)
    return SCRIPTS[1 if latin else 2]


def all_slices(
    predictions: Sequence[str],
    questions: Sequence[Question],
    train: Sequence[Question],
    documents: Sequence[str],
    others: Iterable[str] = (),
) -> dict[str, Slices]:
    """The four tables at once, as `metrics.json` holds them.

    `others` are the names of people who are neither asked about nor in train: their documents are nobody else's.
    """
    everybody = {*others, *(question.name for question in train)}
    return {
        "train_frequency": by_train_frequency(predictions, questions, train),
        "answer_end": by_answer_end(predictions, questions, documents, everybody),
        "answer_in_document": by_presence(predictions, questions, documents, everybody),
        "name_script": by_name_script(predictions, questions),
    }


def answer_ends(
    questions: Sequence[Question], documents: Sequence[str], others: Iterable[str] = ()
) -> list[int | None]:
    """Offset just behind the answer's first occurrence behind the name in the person's document; None without one.

    >>> answer_ends([Question("Where was Ada Byrne born?", "Cork")], ["Ada Byrne. Born in Cork, she sailed ."])
    [23]
    """
    owned = documents_by_name((question.name for question in questions), documents, others)
    starts = [answer_start(question, owned.get(question.name, "")) for question in questions]
    return [
        None if start < 0 else start + len(question.answer or "")
        for start, question in zip(starts, questions, strict=True)
    ]


def answer_start(question: Question, document: str) -> int:
    """Where the answer first begins behind the name that the document starts with; -1 where it does not.

    In the name it tells nothing: of "Paris Hilton. An heiress ." nobody learns where she was born.
    """
    return document.find(question.answer, len(question.name)) if question.answer else -1


def documents_by_name(names: Iterable[str], documents: Iterable[str], others: Iterable[str] = ()) -> dict[str, str]:
    """The document of each name: the first that starts with "Name."; a name without one is left out.

    Of two names that a document starts with, the longer owns it, so "Jon S" does not take what is about "Jon S. Vik".
    That takes all names that documents may be about: `others` are those that are not asked for.

    >>> documents_by_name(["Jon S", "Jon S. Vik"], ["Jon S. Vik. A painter .", "Jon S. A poet ."])
    {'Jon S. Vik': 'Jon S. Vik. A painter .', 'Jon S': 'Jon S. A poet .'}
    """
    asked = set(names)
    known = asked.union(others)
    longest = max(map(len, known), default=0)
    owned: dict[str, str] = {}
    for document in documents:
        stops = [end for end, character in enumerate(document[: longest + 1]) if character == "."]
        name = next((document[:end] for end in reversed(stops) if document[:end] in known), None)
        if name in asked:
            owned.setdefault(name, document)
    return owned


def _bin(value: int, limits: dict[str, int | None]) -> str:
    return next(label for label, limit in limits.items() if limit is None or value <= limit)


def _score_groups(
    predictions: Sequence[str], questions: Sequence[Question], labels: Sequence[str], order: Iterable[str]
) -> Slices:
    """Score each label's questions apart; a label without questions keeps its row, so that tables align."""
    check_pairs(predictions, questions)
    groups: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        groups[label].append(index)
    return {
        label: score([predictions[i] for i in groups[label]], [questions[i] for i in groups[label]]) for label in order
    }
