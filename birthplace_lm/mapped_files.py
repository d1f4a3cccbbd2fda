"""The four files of a corpus as mapped arrays, made once: what `corpus` reads, for millions of people.

A file is read in blocks of lines, checked as strictly as `corpus` checks it, and turned into an entry of an
`ArrayCache`, which goes by the sum of the file's bytes:

    ids                             (C + 2,)   a number a character, PAD and MASK behind them (see `mapped_texts`)
    starts, lengths                 (N,)       of every document, or of what every question asks
    answer_starts, answer_lengths   (N,)       of the answers, where questions have answers
    place                           (N,)       the number of each answer among the different ones

Making an entry takes about as much memory as the file has bytes; using it takes next to none.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from birthplace_lm.array_cache import ArrayCache, Entry
from birthplace_lm.corpus import (
    FORBIDDEN,
    MIN_DOCUMENT,
    Corpus,
    CorpusError,
    name_in,
    paths_in,
    read_documents,
    read_questions,
    sha256_of,
    two_places,
    warn_of_two_places,
)
from birthplace_lm.mapped_texts import AskedQuestions, Texts

_RULES = 1  # raise it when the same file begins to give other arrays, so that an old entry is not taken for new
_BLOCK = 1 << 23  # bytes that are read at a time, up to the next end of a line
_SPECIAL = "□⁇"  # PAD and MASK, which no file holds
_CODE_POINTS = 0x110000
_TAB, _NEWLINE, _SPACE = 9, 10, 32
_BLANKS = [code for code in range(0x3001) if chr(code).isspace()]  # none stands behind U+3000


def map_folder(folder: str | Path, cache: ArrayCache) -> Corpus:
    """The corpus that `corpus.read_folder` reads, its files mapped; the same errors and the same warning."""
    paths = paths_in(folder)
    train, dev, test = (_questions(paths[split], split, cache) for split in ("train", "dev", "test"))
    documents, _ = _mapped(paths["documents"], "documents", cache)
    return Corpus(documents, train, dev, test)


def _questions(path: Path, split: str, cache: ArrayCache) -> AskedQuestions:
    texts, entry = _mapped(path, "open" if split == "test" else "answered", cache)
    if split == "test":
        return AskedQuestions(texts)
    facts, arrays = entry.facts, entry.arrays
    if split == "train":
        warn_of_two_places(path, *facts["two_places"])
    answers = Texts(
        texts.ids, arrays["answer_starts"], arrays["answer_lengths"], texts.alphabet, cache, f"{texts.key} answers",
        facts["answer_characters"],
    )  # fmt: skip
    return AskedQuestions(texts, answers, facts["places"], arrays["place"])


def _mapped(path: Path, kind: str, cache: ArrayCache) -> tuple[Texts, Entry]:
    """A file's documents, or what its questions ask, and the entry with all that belongs to them."""
    total = sha256_of(path)
    made_from = {"sha256": total, "rules": _RULES}
    entry = cache.entry(kind, made_from, lambda: _Reading(path, kind).entry(total, cache))
    ids, starts, lengths = (entry.arrays[name] for name in ("ids", "starts", "lengths"))
    alphabet, characters = entry.facts["alphabet"], entry.facts["characters"]
    return Texts(ids, starts, lengths, alphabet, cache, f"{kind} {total}", characters), entry


class _UnsoundError(Exception):
    """A block that is not as `corpus` wants it; where and why only reading it slowly tells."""


class _Reading:
    """One file while it is turned into arrays. `kind`: "documents", "answered" or "open" questions."""

    def __init__(self, path: Path, kind: str):
        self.path, self.kind = path, kind
        # no more characters than bytes; behind them a last newline, MASK and PAD
        self.ids: np.ndarray = np.empty(path.stat().st_size + 3, dtype=np.uint8)
        self.table = np.zeros(_CODE_POINTS, dtype=np.int32)  # from code points to numbers, 0 where there is none yet
        self.alphabet = _SPECIAL
        self.characters: set[str] = set()
        self.answer_characters: set[str] = set()
        self.places: dict[str, int] = {}
        self.columns: dict[str, list[np.ndarray]] = {}  # arrays of the blocks, by name
        self.end = 0  # of the numbers so far

    def entry(self, sha256: str, cache: ArrayCache) -> Entry:
        """Read the file; raises CorpusError as `corpus` does, and where the file changes while it is read."""
        digest = hashlib.sha256()
        try:
            for data in self._blocks():
                digest.update(data)
                self._take(data)
        except (_UnsoundError, UnicodeDecodeError):
            self._explain()
        if digest.hexdigest() != sha256:
            self._changed()
        self.ids[self.end : self.end + 2] = 1, 0  # MASK, PAD
        arrays = {name: np.concatenate(blocks) for name, blocks in self.columns.items() if name != "name"}
        facts: dict[str, Any] = {"alphabet": self.alphabet, "characters": "".join(sorted(self.characters))}
        made = Entry({"ids": self.ids[: self.end + 2], **arrays}, facts)
        if self.kind == "answered":
            facts |= {"answer_characters": "".join(sorted(self.answer_characters)), "places": list(self.places)}
            facts["two_places"] = self._two_places(made, cache)
        return made

    def _blocks(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            data = file.read(_BLOCK) + file.readline()
            if not data:
                raise _UnsoundError
            while data:
                yield data
                data = file.read(_BLOCK) + file.readline()

    def _explain(self) -> None:
        """Read the whole file as `corpus` does, which knows every reason and every column."""
        if self.kind == "documents":
            read_documents(self.path)
        else:
            read_questions(self.path, self.kind == "answered")
        self._changed()

    def _changed(self) -> NoReturn:
        raise CorpusError(f"{self.path}:1:1: the file changed while it was read; give the command again")

    def _take(self, data: bytes) -> None:
        """Check the lines of a block and add them to the arrays."""
        text = data.decode()
        if any(character in text for character in FORBIDDEN):
            raise _UnsoundError
        text = text.removesuffix("\n")
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        if self.kind == "documents":
            self._take_documents(text)
        else:
            self._take_questions(text, codes)
        self._number(np.append(codes, np.uint32(_NEWLINE)))

    def _take_documents(self, text: str) -> None:
        lines = text.split("\n")
        lengths = _lengths(lines)
        if lengths.min() < MIN_DOCUMENT or not all(map(str.strip, lines)):
            raise _UnsoundError
        self._add(starts=_starts(self.end, lengths), lengths=lengths)

    def _take_questions(self, text: str, codes: np.ndarray) -> None:
        """Lines of one field, or of two with a tab between them: then tab and newline take turns."""
        answered = self.kind == "answered"
        parting = codes[(codes == _TAB) | (codes == _NEWLINE)]
        tabs, rest = (parting[0::2], parting[1::2]) if answered else (parting[:0], parting)
        if (tabs != _TAB).any() or (rest != _NEWLINE).any() or (answered and len(tabs) == len(rest)):
            raise _UnsoundError
        fields = text.replace("\t", "\n").split("\n")
        lengths = _lengths(fields)
        starts = _starts(0, lengths)
        if lengths.min() < 1 or (codes[starts] == _SPACE).any() or (codes[starts + lengths - 1] == _SPACE).any():
            raise _UnsoundError
        if not all(fields[i].strip() for i in np.flatnonzero(np.isin(codes[starts], _BLANKS)).tolist()):
            raise _UnsoundError
        starts += self.end
        if not answered:
            self._add_texts(fields, starts, lengths)
            return
        self._add_texts(fields[0::2], starts[0::2], lengths[0::2])
        answers = fields[1::2]
        self.answer_characters.update("".join(answers))
        place = [self.places.setdefault(answer, len(self.places)) for answer in answers]
        self._add(answer_starts=starts[1::2], answer_lengths=lengths[1::2], place=np.array(place, dtype=np.int32))
        self._add(name=np.array([hash(name_in(text)) for text in fields[0::2]], dtype=np.int64))

    def _add_texts(self, texts: Sequence[str], starts: np.ndarray, lengths: np.ndarray) -> None:
        self.characters.update("".join(texts))
        self._add(starts=starts, lengths=lengths)

    def _add(self, **blocks: np.ndarray) -> None:
        for name, block in blocks.items():
            self.columns.setdefault(name, []).append(block)

    def _number(self, codes: np.ndarray) -> None:
        """Append the numbers of a block's characters, new ones joining the alphabet in the order of their codes."""
        numbers = self.table[codes]
        if not numbers.all():
            seen = np.zeros(_CODE_POINTS, dtype=bool)
            seen[codes] = True
            new = np.flatnonzero(seen & (self.table == 0))
            self.table[new] = np.arange(len(self.alphabet), len(self.alphabet) + len(new))
            self.alphabet += "".join(map(chr, new.tolist()))
            numbers = self.table[codes]
            self.ids = self.ids.astype(_narrowest(len(self.alphabet)), copy=False)
            if self.kind == "documents":
                self.characters = set(self.alphabet[len(_SPECIAL) :]) - {"\n"}
        if self.end + len(numbers) > len(self.ids):
            self._changed()  # the file has grown
        self.ids[self.end : self.end + len(numbers)] = numbers
        self.end += len(numbers)

    def _two_places(self, made: Entry, cache: ArrayCache) -> tuple[int, str]:
        """`corpus.two_places`, asked only about the rows whose names may have several: a sum of each name tells."""
        names, place = np.concatenate(self.columns["name"]), made.arrays["place"]
        order = np.lexsort((place, names))
        same = names[order[1:]] == names[order[:-1]]
        several = np.unique(names[order[1:]][same & (place[order[1:]] != place[order[:-1]])])
        rows = np.flatnonzero(np.isin(names, several))
        texts = Texts(made.arrays["ids"], made.arrays["starts"], made.arrays["lengths"], self.alphabet, cache, "")
        asked = AskedQuestions(texts, None, list(self.places), place)
        return two_places((row + 1, asked[row]) for row in rows.tolist())


def _lengths(texts: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(len, texts), dtype=np.int32, count=len(texts))


def _starts(begin: int, lengths: np.ndarray) -> np.ndarray:
    """Where lines begin that follow each other from `begin` on, each with its newline."""
    return begin + np.cumsum(lengths + np.int64(1)) - lengths - 1


def _narrowest(numbers: int) -> type[np.signedinteger[Any]] | type[np.unsignedinteger[Any]]:
    """The smallest type that holds so many different numbers and that torch can look up with."""
    return np.uint8 if numbers <= 2**8 else np.int16 if numbers <= 2**15 else np.int32
