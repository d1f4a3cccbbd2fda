"""Texts that lie in one mapped array and become strings when they are asked for: millions of them in little memory.

`Texts` and `AskedQuestions` stand where tuples of strings and of questions stand, and hold the same. Of a mapped array
a process holds the pages that it looked at, which all processes share and the system may drop again.

The array numbers characters by the alphabet of its own file: PAD and MASK are 0 and 1, and end the array. A vocabulary
translates the numbers (`token_store`), so that one array serves every vocabulary and every choice of people.

Legend: N texts, C characters of the file.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, TypeVar, overload

import numpy as np

from birthplace_lm.array_cache import ArrayCache, Entry
from birthplace_lm.corpus import Question

T = TypeVar("T", str, Question)

_ROWS = 4096  # texts that are turned into strings at a time


class Texts(Sequence[str]):
    """N texts of a file: `ids` (C + 2,) of all its characters, and where each text begins and how long it is (N,).

    `key` names what they are: the sum of the file, and of the choice where only some of its texts are meant.
    `characters` are those that occur in them.
    """

    def __init__(
        self,
        ids: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        alphabet: str,
        cache: ArrayCache,
        key: str,
        characters: str | None = None,
    ):
        self.ids, self.starts, self.lengths = ids, starts, lengths
        self.alphabet, self.cache, self.key, self._characters = alphabet, cache, key, characters
        self._code_points = np.array([ord(character) for character in alphabet], dtype="<u4")

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[str, ...]: ...
    def __getitem__(self, at: int | slice) -> str | tuple[str, ...]:
        if isinstance(at, slice):
            return tuple(self._strings(self.starts[at], self.lengths[at]))
        return self._string(int(self.starts[at]), int(self.lengths[at]))

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _ROWS):
            rows = slice(first, first + _ROWS)
            yield from self._strings(self.starts[rows], self.lengths[rows])

    def _strings(self, starts: np.ndarray, lengths: np.ndarray) -> Iterator[str]:
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            yield self._string(start, length)

    def _string(self, start: int, length: int) -> str:
        return self._code_points[self.ids[start : start + length]].tobytes().decode("utf-32-le")

    def where(self, kept: np.ndarray) -> "Texts":
        """The texts of the rows where `kept` (N,) is true, in their order."""
        return Texts(
            self.ids, self.starts[kept], self.lengths[kept], self.alphabet, self.cache, _key_where(self.key, kept)
        )

    @property
    def characters(self) -> str:
        """Every character that these texts hold, once each."""
        if self._characters is None:
            seen = np.zeros(len(self.alphabet), dtype=bool)
            for start, end in zip(self.starts.tolist(), (self.starts + self.lengths).tolist(), strict=True):
                seen[self.ids[start:end]] = True
            self._characters = "".join(compress(self.alphabet, seen.tolist()))
        return self._characters


class AskedQuestions(Sequence[Question]):
    """N questions of a file; `answers` and the number of each answer's place in `places` (N,) where it has answers."""

    def __init__(
        self,
        texts: Texts,
        answers: Texts | None = None,
        places: Sequence[str] = (),
        place: np.ndarray | None = None,
    ):
        self.texts, self.answers, self.places, self.place = texts, answers, places, place

    @property
    def key(self) -> str:
        return self.texts.key

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, at: int) -> Question: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Question, ...]: ...
    def __getitem__(self, at: int | slice) -> Question | tuple[Question, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(len(self))[at])
        return Question(self.texts[at], self._answer(at))

    def __iter__(self) -> Iterator[Question]:
        for number, text in enumerate(self.texts):
            yield Question(text, self._answer(number))

    def _answer(self, at: int) -> str | None:
        return None if self.place is None else self.places[self.place[at]]

    def where(self, kept: np.ndarray) -> "AskedQuestions":
        """The questions of the rows where `kept` (N,) is true, in their order."""
        answers = None if self.answers is None else self.answers.where(kept)
        place = None if self.place is None else self.place[kept]
        return AskedQuestions(self.texts.where(kept), answers, self.places, place)

    @property
    def characters(self) -> str:
        """Every character that the questions and their answers hold, at least once."""
        return self.texts.characters + ("" if self.answers is None else self.answers.characters)

    def longest(self, answered: bool) -> int:
        """The most characters that a question has, its answer counted with it where `answered`."""
        lengths = self.texts.lengths
        if answered and self.answers is not None:
            lengths = lengths + self.answers.lengths
        return int(lengths.max(initial=0))

    def distinct_answers(self) -> list[str]:
        """Every place that answers one of these questions, once."""
        return [] if self.place is None else [self.places[number] for number in np.unique(self.place).tolist()]


def chosen(rows: Sequence[T], choice: Iterable[bool | int]) -> Sequence[T]:
    """The rows for which the choice (N,) is true, in their order: a tuple, or of mapped rows mapped ones."""
    if isinstance(rows, Texts | AskedQuestions):
        return rows.where(np.fromiter(choice, dtype=bool, count=len(rows)))
    return tuple(compress(rows, choice))


def kept(
    texts: Sequence[str], kind: str, recipe: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
    """Arrays that follow from texts and a recipe of plain values: from the cache where the texts are mapped."""
    if not isinstance(texts, Texts):
        return make()
    return texts.cache.entry(kind, {"texts": texts.key, **recipe}, lambda: Entry(make(), {})).arrays


def distinct_answers(questions: Sequence[Question]) -> list[str]:
    """Every answer of these questions at least once, "" for those that have none."""
    if isinstance(questions, AskedQuestions):
        return questions.distinct_answers()
    return [question.answer or "" for question in questions]


def key_of(rows: Sequence[str] | Sequence[Question]) -> str:
    """What tells these rows from others: a mapped file's key, or a sum over what a tuple holds."""
    if isinstance(rows, Texts | AskedQuestions):
        return rows.key
    return hashlib.sha256("\n".join(map(repr, rows)).encode()).hexdigest()


def _key_where(key: str, kept: np.ndarray) -> str:
    return hashlib.sha256(key.encode() + np.packbits(kept).tobytes()).hexdigest()
