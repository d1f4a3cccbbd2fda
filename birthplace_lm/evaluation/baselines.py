"""Baselines that need no model: what a figure has to beat before it says anything about stored facts.

Each takes the train pairs and the questions and returns one prediction a question. None of them reads the biographies.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from birthplace_lm.corpus import Question


def constant(place: str, questions: Sequence[Question]) -> list[str]:
    """The same place for everybody; the course's own baseline says "London"."""
    return [place] * len(questions)


def most_frequent(train: Sequence[Question], questions: Sequence[Question]) -> list[str]:
    """The place that most train people were born in, for everybody."""
    return constant(places_by_frequency(train)[0][0], questions)


def places_by_frequency(train: Sequence[Question]) -> list[tuple[str, int]]:
    """Train places with their counts, the most frequent first, equally frequent ones by the alphabet.

    >>> places_by_frequency([Question("a", "Rome"), Question("b", "Oslo"), Question("c", "Rome")])
    [('Rome', 2), ('Oslo', 1)]
    """
    counts = Counter(question.answer for question in train if question.answer is not None)
    if not counts:
        raise ValueError(f"0 of {len(train)} train questions have an answer: there is nothing to predict from")
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


class NameNgrams:
    """Guess the place from the look of the name: naive Bayes over the character n-grams of names.

    It measures how much of a score needs no knowledge of the person, since names tell the language. With N_p the
    n-grams seen in names from place p, c_pg those that are g, V the distinct ones of all train names and
    α = `smoothing` (1: Laplace),

        log P(p | name) = log P(p) + Σ_g log (c_pg + α) / (N_p + αV) + constant.

    Equal scores go to the more frequent place, then to the alphabet's first. N-grams of no train name are skipped.
    """

    def __init__(self, train: Sequence[Question], longest: int = 4, smoothing: float = 1.0) -> None:
        if longest < 1 or smoothing <= 0:
            raise ValueError(f"longest={longest}, smoothing={smoothing}: at least 1 and more than 0 are needed")
        self.longest = longest
        ranked = places_by_frequency(train)
        self.places = [place for place, _ in ranked]
        counts = self._count(train)
        totals = [sum(counts[place].values()) for place in self.places]
        vocabulary = {gram for grams in counts.values() for gram in grams}
        self.log_prior = [math.log(count) for _, count in ranked]
        self.log_total = [math.log((total + smoothing * len(vocabulary)) / smoothing) for total in totals]
        # log(c + α) = log α + log(1 + c/α): log α lies in log_total, so that only places that have g are kept.
        self.gains: dict[str, list[tuple[int, float]]] = {gram: [] for gram in vocabulary}
        for index, place in enumerate(self.places):
            for gram, count in counts[place].items():
                self.gains[gram].append((index, math.log1p(count / smoothing)))

    def _count(self, train: Sequence[Question]) -> dict[str, Counter[str]]:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for question in train:
            if question.answer is not None:
                counts[question.answer].update(ngrams(question.name, self.longest))
        return counts

    def predict(self, name: str) -> str:
        """The most probable place for one name."""
        known = [self.gains[gram] for gram in ngrams(name, self.longest) if gram in self.gains]
        scores = [
            prior - len(known) * total for prior, total in zip(self.log_prior, self.log_total, strict=True)
        ]  # (P,)
        for gains in known:
            for index, gain in gains:
                scores[index] += gain
        return self.places[max(range(len(scores)), key=scores.__getitem__)]  # max keeps the first, the most frequent

    def __call__(self, questions: Sequence[Question]) -> list[str]:
        return [self.predict(question.name) for question in questions]


def ngrams(name: str, longest: int) -> Iterator[str]:
    """All runs of 1 to `longest` characters; "^" and "$" stand for the start and the end of the name.

    >>> list(ngrams("Bo", 2))
    ['^', 'B', 'o', '$', '^B', 'Bo', 'o$']
    """
    marked = f"^{name}$"
    for n in range(1, longest + 1):
        for start in range(len(marked) - n + 1):
            yield marked[start : start + n]


def baseline_rows(train: Sequence[Question], questions: Sequence[Question]) -> dict[str, list[str]]:
    """Every baseline's predictions, keyed by the name of its row in a table of results."""
    return {
        'always "London"': constant("London", questions),
        "most frequent place": most_frequent(train, questions),
        "name n-grams": NameNgrams(train)(questions),
    }
