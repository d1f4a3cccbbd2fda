"""Read biographies and birthplace questions from text files, strictly: a bad line is an error that says where it is.

A model trained on quietly damaged text (names without accents, answers with a stray carriage return) scores low for
reasons nobody sees. So nothing is repaired, and every malformed line raises a `CorpusError` with file, line and column
in characters from 1. A line ends at the newline and nowhere else: U+2028, U+0085 and their like are characters.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

FILES = {
    "documents": "wiki.txt",
    "train": "birth_places_train.tsv",
    "dev": "birth_dev.tsv",
    "test": "birth_test_inputs.tsv",
}
KNOWN_SHA256 = {  # the files of a5_public.zip, Winter 2021
    "documents": "17e381468abd91b60be8acaff006c66b77532b4ea4c0ce097b0a686d2e8e8219",
    "train": "02364dfca78e23d2583a19f03a2d8cddd90ee3e1a3795ddec7f0addadea30b0d",
    "dev": "101a56073eba0db9aad5e2aaf1aa9bf8bdae966ae3aaed8fc8cda5edfa7856da",
    "test": "5ccd3b2a1682e0daf90d59488aef8805ef21b9d35795cc3bdabdea79d293aa1f",
}
PUBLISHED = "published in a5_public.zip on the Winter 2021 course page, web.stanford.edu/class/cs224n"
MIN_DOCUMENT = 4  # characters: the shortest text that span corruption can cut a span from

_QUESTION = re.compile(r"Where was (.+) born\?", re.DOTALL)
FORBIDDEN = {
    "\0": "a NUL character; if the file is UTF-16 save it as UTF-8, else delete the character",
    "\r": "a lone carriage return; lines end with a newline (LF) only, convert the file with dos2unix or delete it",
    "\ufeff": "a byte order mark (BOM); save the file as UTF-8 without BOM",
    "□": "the padding character □ (U+25A1), which the model keeps for itself; replace it in the text",
    "⁇": "the mask character ⁇ (U+2047), which the model keeps for itself; replace it in the text",
}
_logger = logging.getLogger(__name__)


class CorpusError(ValueError):
    """A malformed file; the message starts with ``file:line:column:`` and ends with what to do."""


class MissingCorpusError(CorpusError, FileNotFoundError):
    """One or more of the four files are not in the folder; one message names them all."""


@dataclass(frozen=True)
class Question:
    """One question about one person, with the place when it is known.

    >>> Question("Where was Khatchig Mouradian born?", "Lebanon").name
    'Khatchig Mouradian'
    """

    text: str
    answer: str | None = None

    @property
    def name(self) -> str:
        """The person asked about: what stands in *Where was … born?*, or the whole text of any other question."""
        return name_in(self.text)


def name_in(question: str) -> str:
    """The person that the text of a question asks about (see `Question.name`)."""
    match = _QUESTION.fullmatch(question)
    return match[1] if match else question


def name_span(question: str) -> range:
    """Where the name stands in the text of a question; empty where it is no *Where was … born?*.

    >>> name_span("Where was a born?")
    range(10, 11)
    """
    match = _QUESTION.fullmatch(question)
    return range(*match.span(1)) if match else range(0)


Questions = Sequence[Question]  # tuples, or rows of a mapped file: see `mapped_texts`


@dataclass(frozen=True)
class Corpus:
    """The documents to pretrain on and the questions to finetune on (train) and to be judged by (dev, test).

    `unknown` asks about people whom `documents` and the other questions leave out, and `unknown_documents` is what was
    written about them: kept apart, to see what is answered about somebody nobody wrote of.
    """

    documents: Sequence[str]
    train: Questions
    dev: Questions
    test: Questions
    unknown: Questions = ()
    unknown_documents: Sequence[str] = ()

    def names(self) -> set[str]:
        """Everybody whom a question asks about, but for the unknown."""
        return {question.name for split in (self.train, self.dev, self.test) for question in split}


def read_folder(folder: str | Path) -> Corpus:
    """Read the four files of a folder; raise `MissingCorpusError` for absent ones, `CorpusError` for a bad line.

    Train and dev hold ``question<TAB>place``, test holds questions only. Names that the train file gives two places
    are kept with both (the course's data has nine) and logged as one warning.
    """
    paths = paths_in(folder)
    train, dev, test = (read_questions(paths[split], split != "test") for split in ("train", "dev", "test"))
    warn_of_two_places(paths["train"], *two_places(enumerate(train, start=1)))
    return Corpus(read_documents(paths["documents"]), train, dev, test)


def paths_in(folder: str | Path) -> dict[str, Path]:
    """The four files of a folder by what they hold; raises `MissingCorpusError` that names all that are absent."""
    paths = {key: Path(folder) / name for key, name in FILES.items()}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        raise MissingCorpusError(
            f"{Path(folder).resolve()}: {', '.join(missing)} not found; the folder must hold"
            f" {', '.join(FILES.values())}. They are {PUBLISHED}; data=world needs no files."
        )
    return paths


def read_documents(path: str | Path) -> tuple[str, ...]:
    """Read one document a line; raise `CorpusError` for a line that is malformed or under 4 characters."""
    documents = _lines(path)
    for number, document in enumerate(documents, start=1):
        if len(document) < MIN_DOCUMENT:
            _fail(path, number, 1, f"the document has {len(document)} characters, under {MIN_DOCUMENT}; delete it")
    return tuple(documents)


def read_questions(path: str | Path, answered: bool | None) -> tuple[Question, ...]:
    """Read one question a line, followed by a tab and its place where `answered`; raise `CorpusError` for others.

    With `answered` None the first line decides, and all the others must be like it.
    """
    lines = _lines(path)
    reason = "" if answered is not None else " (as line 1 has)" if "\t" in lines[0] else " (line 1 has none)"
    read = _answered if answered or (answered is None and "\t" in lines[0]) else _open
    return tuple(read(path, number, line, reason) for number, line in enumerate(lines, start=1))


def sha256_of(path: str | Path) -> str:
    """The sha256 sum of a file as 64 hexadecimal digits, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_cs224n(folder: str | Path) -> list[str]:
    """Names of the files in the folder that are absent or differ from the published ones, so that a run can warn.

    Figures can be compared with other people's only where this list is empty.
    """
    paths = {key: Path(folder) / name for key, name in FILES.items()}
    return [path.name for key, path in paths.items() if not path.is_file() or sha256_of(path) != KNOWN_SHA256[key]]


def _fail(path: str | Path, line: int, column: int, what: str) -> NoReturn:
    raise CorpusError(f"{path}:{line}:{column}: {what}")


def _lines(path: str | Path) -> list[str]:
    """The lines of a clean UTF-8 file without their newlines; the last newline may be missing."""
    text = _decoded(path, Path(path).read_bytes())
    if not text:
        _fail(path, 1, 1, "the file is empty; it needs at least one line")
    if found := re.search("[" + "".join(FORBIDDEN) + "]", text):
        crlf = "a Windows line end (CRLF); convert the file with dos2unix"
        what = crlf if text.startswith("\r\n", found.start()) else FORBIDDEN[found[0]]
        _fail(path, *_position(text[: found.start()]), what)
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            _fail(path, number, 1, "the line is blank; delete it")
    return lines


def _decoded(path: str | Path, data: bytes) -> str:
    """UTF-8 bytes as text; where they are something else the error says what they look like."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        _fail(path, 1, 1, "the file starts like UTF-16; save it as UTF-8 without BOM")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        what = f"byte 0x{data[error.start]:02X} is not UTF-8; save the file as UTF-8"
        if error.reason == "unexpected end of data":
            what = "the file ends inside a UTF-8 character: it is truncated (or Latin-1); fetch it again"
        elif all(byte < 0x80 or byte >= 0xA0 for byte in data[error.start :].split(b"\n", 1)[0]):
            what += ", it looks like Latin-1: iconv -f latin1 -t utf-8"
        _fail(path, *_position(data[: error.start].decode()), what)


def _position(before: str) -> tuple[int, int]:
    """Line and column, from 1, of the character that follows the text `before`."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _open(path: str | Path, number: int, line: str, reason: str) -> Question:
    if "\t" in line:
        _fail(path, number, line.index("\t") + 1, f"a tab where no answers are expected{reason}; delete the answer")
    _check_field(path, number, 1, line, "question")
    return Question(line)


def _answered(path: str | Path, number: int, line: str, reason: str) -> Question:
    text, tab, answer = line.partition("\t")
    if not tab:
        _fail(path, number, len(line) + 1, f"no tab and answer after the question{reason}; write question<TAB>place")
    if (second := line.find("\t", len(text) + 1)) >= 0:
        _fail(path, number, second + 1, "a second tab; keep the one between question and answer, delete the others")
    _check_field(path, number, 1, text, "question")
    _check_field(path, number, len(text) + 2, answer, "answer")
    return Question(text, answer)


def _check_field(path: str | Path, number: int, column: int, field: str, kind: str) -> None:
    """Refuse a field that is empty or has spaces at its ends: answers are compared character by character."""
    if not field.strip():
        _fail(path, number, column, f"the {kind} is empty; write one or delete the line")
    if field != field.strip(" "):
        stray = 0 if field[0] == " " else len(field.rstrip(" "))
        _fail(path, number, column + stray, f"a space at the {'end' if stray else 'start'} of the {kind}; delete it")


def two_places(numbered: Iterable[tuple[int, Question]]) -> tuple[int, str]:
    """How many names have several places, and the lines of the first three; questions come with their line numbers."""
    first: dict[str, tuple[int, str | None]] = {}
    clashes: dict[str, str] = {}
    for number, question in numbered:
        line, answer = first.setdefault(question.name, (number, question.answer))
        if answer != question.answer:
            clashes.setdefault(question.name, f"(lines {line} and {number}: {answer}, {question.answer})")
    shown = "; ".join([f"{name} {lines}" for name, lines in clashes.items()][:3] + ["…"] * (len(clashes) > 3))
    return len(clashes), shown


def warn_of_two_places(path: Path, count: int, shown: str) -> None:
    """Log what `two_places` found, in one warning, where it found any."""
    if count:
        _logger.warning("%s: %d names have two places, both are kept: %s", path, count, shown)
