"""An invented world of people, biographies and birthplace questions: data of any size that needs no files.

Everything about person *i* is a pure function of the seed, *i* and the knobs about places: the attributes are
counter-based random draws, the name is a permutation of *i* over all possible names. So nothing has to be remembered
to keep names distinct, people can be made in any order and in pieces, and a world of millions streams to disk. The
knobs set what a study varies: how many wordings a biography has, whether names tell anything about places, how
unequal the places are.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from birthplace_lm.corpus import FILES, Corpus, Question, sha256_of
from birthplace_lm.people import hold_out_people
from birthplace_lm.world_drawing import (
    Integers,
    below,
    draw,
    draw_birthplaces,
    name_numbers,
    permute,
    pick,
    pick_another,
    sentence_orders,
    uniform,
)
from birthplace_lm.world_words import (
    CULTURES,
    HOBBIES,
    MAX_PLACES,
    MIDDLE_NAMES,
    OCCUPATIONS,
    PLAIN_NAMES,
    SCHOOLS,
    Person,
    compose_biography,
    compose_name,
    compose_place,
    compose_question,
)

MAX_PEOPLE = PLAIN_NAMES + MIDDLE_NAMES
_GENERATION = 1  # raise it when the same knobs begin to give other text, so that an old folder is not taken for new
_CHUNK = 10_000
_SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class World:
    """The knobs of an invented world, and its people, documents and questions.

    `wordings`: "single" (one document a person; the other facts keep one order), "permuted" (one document, its
    sentences in a random order), "multi4" (four documents a person with different sentences and orders; any number).
    `train_share`, `dev_share` and at most `test_share` of the people are asked about, the rest have documents only.
    `origin_correlation` c: with probability c the birthplace is a town of the culture that the name belongs to,
    otherwise any town. `place_distribution`: "uniform", or "zipf" with town k drawn in proportion to 1/(k+1).
    `hold_out_people` of the dev people are left out of `corpus` (see `people.hold_out_people`), which alone heeds it.
    Raises `ValueError` for a knob out of its range.

    >>> world = World(people=10, seed=66)
    >>> next(world.documents())
    'Ulfar Lomkvam. Lomkvam was born in Askeborg. Lomkvam lives in Altaabad. They love choral music .'
    >>> next(world.questions("train"))
    Question(text='Where was Ulfar Lomkvam born?', answer='Askeborg')
    """

    people: int = 300
    seed: int = 0
    wordings: str = "single"
    train_share: float = 0.6
    dev_share: float = 0.25
    test_share: float = 0.15
    origin_correlation: float = 0.0
    places: int = 24
    place_distribution: Literal["uniform", "zipf"] = "uniform"
    hold_out_people: int = 0

    def __post_init__(self) -> None:
        _check("people", self.people, 1, MAX_PEOPLE)
        _check("seed", self.seed, 0, 2**63 - 1)
        _check("places", self.places, 2, MAX_PLACES)
        for knob in ("train_share", "dev_share", "test_share", "origin_correlation"):
            _check(knob, getattr(self, knob), 0, 1, whole=False)
        if not re.fullmatch(r"single|permuted|multi[1-9]\d{0,2}", self.wordings):
            raise ValueError(f"wordings must be single, permuted or multi1 … multi999, got {self.wordings!r}")
        if self.place_distribution not in ("uniform", "zipf"):
            raise ValueError(f"place_distribution must be uniform or zipf, got {self.place_distribution!r}")
        if self.train_share + self.dev_share > 1 + 1e-9:
            raise ValueError(
                f"train_share {self.train_share} + dev_share {self.dev_share} is more than 1; lower one of them"
            )
        if min(counts := self.split_sizes()) < 1:
            raise ValueError(
                "each of train, dev and test needs a person, the shares give"
                f" {', '.join(map(str, counts))} of {self.people} people; change the shares or raise people"
            )

    def person(self, i: int) -> Person:
        """Person `i`, from 0; a larger world with the same other knobs has the same person. Raises `IndexError`."""
        if not 0 <= i < self.people:
            raise IndexError(f"person {i} of a world of {self.people} people; they are counted from 0")
        return self._people(np.array([i]))[0]

    def split_sizes(self) -> tuple[int, int, int]:
        """How many people the train, dev and test questions ask about."""
        train, dev, test = self._cuts()
        return train, dev - train, test - dev

    def documents(self) -> Iterator[str]:
        """The biographies, those of one person one after the other, people in order."""
        for index in self._chunks():
            yield from self._biographies(index, self._people(index))

    def questions(self, split: Literal["train", "dev", "test"]) -> Iterator[Question]:
        """One question a person of the split, people in order; those of test come without the answers."""
        for index in self._chunks():
            people = self._people(index[self._split(index) == _SPLITS.index(split)])
            yield from (
                Question(compose_question(person), None if split == "test" else person.birthplace) for person in people
            )

    def corpus(self) -> Corpus:
        """The world in memory; with nobody held out what `write` and `birthplace_lm.corpus.read_folder` give."""
        train, dev, test = (tuple(self.questions(split)) for split in ("train", "dev", "test"))
        return hold_out_people(Corpus(tuple(self.documents()), train, dev, test), self.hold_out_people, self.seed)

    def write(self, folder: str | Path) -> None:
        """Write the four files of a corpus folder and world.json, in pieces, without holding the world in memory.

        Files appear under their names only when all are complete, world.json last. A folder that holds this world is
        left alone; one that holds another world or other files of these names raises `FileExistsError`.
        """
        folder = Path(folder)
        if self._is_written(folder):
            return
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".world-") as unfinished:
            self._stream(Path(unfinished))
            _publish(Path(unfinished), folder, [*FILES.values(), "world.json"])

    def _chunks(self) -> Iterator[Integers]:
        for start in range(0, self.people, _CHUNK):
            yield np.arange(start, min(start + _CHUNK, self.people))

    def _cuts(self) -> tuple[int, int, int]:
        asked = (self.train_share, self.train_share + self.dev_share)
        shares = (*asked, min(1.0, asked[1] + self.test_share))
        train, dev, test = (min(round(share * self.people), self.people) for share in shares)
        return train, dev, test

    def _split(self, index: Integers) -> Integers:
        """0 for the people of train, 1 for dev, 2 for test, 3 for those nobody asks about: exact shares, mixed."""
        rank = permute(self.seed, "split", index, self.people)
        return np.searchsorted(self._cuts(), rank, side="right")

    def _people(self, index: Integers) -> list[Person]:
        names = [compose_name(number) for number in name_numbers(self.seed, index).tolist()]
        cultures = np.array([culture for _, _, culture in names], dtype=np.int64)
        towns = [compose_place(number) for number in range(self.places)]
        weights = 1 / np.arange(1, self.places + 1) if self.place_distribution == "zipf" else np.ones(self.places)
        birthplaces = draw_birthplaces(self.seed, index, cultures, weights, self.origin_correlation)
        residences = pick_another(weights, uniform(self.seed, "residence", index), birthplaces)
        columns = (
            [towns[number] for number in birthplaces.tolist()],
            (1900 + below(self.seed, "birth_year", index, 100)).tolist(),
            [SCHOOLS[number] for number in below(self.seed, "school", index, len(SCHOOLS)).tolist()],
            [OCCUPATIONS[number] for number in below(self.seed, "occupation", index, len(OCCUPATIONS)).tolist()],
            [towns[number] for number in residences.tolist()],
            [HOBBIES[number] for number in below(self.seed, "hobby", index, len(HOBBIES)).tolist()],
        )
        return [
            Person(name, surname, CULTURES[culture].name, *attributes)
            for (name, surname, culture), *attributes in zip(names, *columns, strict=True)
        ]

    def _biographies(self, index: Integers, people: list[Person]) -> Iterator[str]:
        """The documents of some people, person by person; every wording has its own order and the next templates."""
        orders, weights = sentence_orders(fixed=self.wordings == "single")
        count = int(self.wordings.removeprefix("multi")) if self.wordings.startswith("multi") else 1
        points = [uniform(self.seed, f"order {wording}", index) for wording in range(count)]
        drawn = [pick(np.array(weights), point).tolist() for point in points]
        styles = draw(self.seed, "style", index).tolist()
        for person, style, *chosen in zip(people, styles, *drawn, strict=True):
            for wording, order in enumerate(chosen):
                yield compose_biography(person, orders[order], style, wording)

    def _knobs(self) -> dict[str, object]:
        knobs = {key: value for key, value in asdict(self).items() if key != "hold_out_people"}  # files hold everybody
        return {"generation": _GENERATION, **knobs}

    def _is_written(self, folder: Path) -> bool:
        """Whether the folder holds this world in full; raises `FileExistsError` where it holds another one."""
        if not (folder / "world.json").exists():
            return False
        asked = self._knobs()
        try:
            found = dict(json.loads((folder / "world.json").read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise FileExistsError(f"{folder}: world.json describes no world ({error}); use another folder") from error
        if other := [key for key in {**asked, **found} if asked.get(key) != found.get(key)]:
            there, here = ({key: knobs.get(key) for key in other} for knobs in (found, asked))
            raise FileExistsError(
                f"{folder} holds another world, {there} instead of {here}; choose another folder or delete that one"
            )
        return all((folder / name).is_file() for name in FILES.values())

    def _stream(self, folder: Path) -> None:
        with ExitStack() as stack:
            files = {
                key: stack.enter_context(open(folder / name, "w", encoding="utf-8", newline="\n"))
                for key, name in FILES.items()
            }
            for index in self._chunks():
                people, split = self._people(index), self._split(index).tolist()
                files["documents"].write("\n".join(self._biographies(index, people)) + "\n")
                for number, key in enumerate(_SPLITS):
                    asked = (person for person, own in zip(people, split, strict=True) if own == number)
                    lines = (compose_question(p) + (f"\t{p.birthplace}\n" if key != "test" else "\n") for p in asked)
                    files[key].writelines(lines)
        (folder / "world.json").write_text(json.dumps(self._knobs(), indent=2) + "\n", encoding="utf-8")


def _check(knob: str, value: object, low: int, high: int, whole: bool = True) -> None:
    if not isinstance(value, int if whole else int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{knob} must be a {'whole ' if whole else ''}number from {low} to {high}, got {value!r}")


def _publish(source: Path, target: Path, names: list[str]) -> None:
    """Move finished files into the folder; raise `FileExistsError`, moving nothing, if a different file is in the way.

    Equal files are what an interrupted or simultaneous writing of the same world has left: they stay.
    """
    for name in names:
        if (target / name).exists() and sha256_of(target / name) != sha256_of(source / name):
            raise FileExistsError(f"{target / name} exists and is not part of this world; choose an empty folder")
    for name in (name for name in names if not (target / name).exists()):
        with open(source / name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(source / name, target / name)
