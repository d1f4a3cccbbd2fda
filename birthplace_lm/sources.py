"""Where a run's people come from when they are not invented, and how data are told apart."""

import hashlib
import logging
from dataclasses import dataclass

from birthplace_lm.corpus import FILES, Corpus, MissingCorpusError, check_cs224n, read_folder
from birthplace_lm.people import hold_out_people, select_people

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """The four files of a folder; with `published`, differences from the course's files are told.

    `people` above 0 takes a draw of so many, seeded by `people_seed`; `hold_out_people` of the dev people among them
    are then left out of everything that is trained on or scored (see `people.hold_out_people`), seeded likewise.
    """

    dir: str | None
    published: bool = False
    people: int = 0
    people_seed: int = 0
    hold_out_people: int = 0

    def corpus(self) -> Corpus:
        """Read and check the files; raises CorpusError."""
        if self.dir is None:
            raise MissingCorpusError(
                "no folder named: set data.dir=FOLDER or BIRTHPLACE_CS224N_DIR to the one with "
                f"{', '.join(FILES.values())}, published in a5_public.zip on the Winter 2021 course page, "
                "web.stanford.edu/class/cs224n; "
                "data=world needs no files"
            )
        corpus = read_folder(self.dir)
        if self.published and (differing := check_cs224n(self.dir)):
            names = ", ".join(differing)
            _logger.warning("%s: %s differ from the published files: figures do not compare", self.dir, names)
        corpus = select_people(corpus, self.people, self.people_seed)
        return hold_out_people(corpus, self.hold_out_people, self.people_seed)


def sha256_of_corpus(corpus: Corpus) -> str:
    """A sum over all documents, questions and answers, wherever they came from."""
    total = hashlib.sha256("\n".join(corpus.documents).encode())
    for split in (corpus.train, corpus.dev, corpus.test, corpus.unknown):  # of nobody held out nothing is added
        total.update("\n".join(["", *(f"{question.text}\t{question.answer or ''}" for question in split)]).encode())
    return total.hexdigest()
