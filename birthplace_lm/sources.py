"""Where a run's people come from when they are not invented, and how data are told apart."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from birthplace_lm.array_cache import ArrayCache, Entry
from birthplace_lm.corpus import FILES, Corpus, MissingCorpusError, Question, check_cs224n, paths_in, read_folder
from birthplace_lm.mapped_files import map_folder
from birthplace_lm.mapped_texts import Texts, key_of
from birthplace_lm.people import hold_out_people, select_people

LARGE = 8_000_000  # bytes of the four files together from which on they are mapped: about 45,000 people
_PIECE = 4096  # texts that are summed at a time
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """The four files of a folder; with `published`, differences from the course's files are told.

    `people` above 0 takes a draw of so many, seeded by `people_seed`; `hold_out_people` of the dev people among them
    are then left out of everything that is trained on or scored (see `people.hold_out_people`), seeded likewise.

    Files of `LARGE` bytes and more are turned into arrays once, kept in the folder `cache` and mapped from then on (see
    `mapped_files`): the same people with the same batches, in little memory. Without a cache all are read into memory.

    `names` "ascii" drops every letter beyond ASCII from the train questions and answers, and from nothing else, as the
    course's program does without a word: such people are then trained on by names that no document holds and are asked
    about by their own. Only to measure what that costs.
    """

    dir: str | None
    published: bool = False
    people: int = 0
    people_seed: int = 0
    hold_out_people: int = 0
    cache: str | None = None
    names: str = "unicode"

    def __post_init__(self) -> None:
        if self.names not in ("unicode", "ascii"):
            raise ValueError(f"names is unicode|ascii, not {self.names!r}")

    def corpus(self) -> Corpus:
        """Read and check the files; raises CorpusError."""
        if self.dir is None:
            raise MissingCorpusError(
                "no folder named: set data.dir=FOLDER or BIRTHPLACE_CS224N_DIR to the one with "
                f"{', '.join(FILES.values())}, published in a5_public.zip on the Winter 2021 course page, "
                "web.stanford.edu/class/cs224n; "
                "data=world needs no files"
            )
        corpus = self._read(self.dir)
        if self.published and (differing := check_cs224n(self.dir)):
            names = ", ".join(differing)
            _logger.warning("%s: %s differ from the published files: figures do not compare", self.dir, names)
        corpus = select_people(corpus, self.people, self.people_seed)
        corpus = hold_out_people(corpus, self.hold_out_people, self.people_seed)
        return corpus if self.names == "unicode" else replace(corpus, train=tuple(map(_in_ascii, corpus.train)))

    def _read(self, folder: str) -> Corpus:
        size = sum(path.stat().st_size for path in paths_in(folder).values())
        return map_folder(folder, ArrayCache(self.cache)) if self.cache and size >= LARGE else read_folder(folder)


def _in_ascii(question: Question) -> Question:
    text, answer = (part.encode("ascii", "ignore").decode() for part in (question.text, question.answer or ""))
    return Question(text, answer)


def sha256_of_corpus(corpus: Corpus) -> str:
    """A sum over all documents, questions and answers, wherever they came from; a mapped corpus keeps it."""
    if not isinstance(corpus.documents, Texts):
        return _summed(corpus)
    parts = (corpus.documents, corpus.train, corpus.dev, corpus.test, corpus.unknown)
    made_from = {"parts": [key_of(part) for part in parts]}
    entry = corpus.documents.cache.entry("sum", made_from, lambda: Entry({}, {"sha256": _summed(corpus)}))
    return str(entry.facts["sha256"])


def _summed(corpus: Corpus) -> str:
    total = hashlib.sha256()
    _add(total, corpus.documents)
    for split in (corpus.train, corpus.dev, corpus.test, corpus.unknown):  # of nobody held out nothing is added
        if split:
            total.update(b"\n")
            _add(total, (f"{question.text}\t{question.answer or ''}" for question in split))
    return total.hexdigest()


def _add(total: "hashlib._Hash", texts: Iterable[str]) -> None:
    """Texts with a newline between each two, in pieces."""
    texts, parting = iter(texts), ""
    while piece := list(islice(texts, _PIECE)):
        total.update((parting + "\n".join(piece)).encode())
        parting = "\n"
