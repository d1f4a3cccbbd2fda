"""Which of a corpus's people a run is about: a draw of them, some asked about later, some kept from it altogether.

Every draw goes by the sha256 sum of the seed and the name: the same on every machine and in whatever order the people
come, and a larger draw holds a smaller one. Of a mapped corpus the choice is mapped too; while it is drawn the names
of all people are held, some 0.2 kB each.
"""

import hashlib
import logging
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from birthplace_lm.corpus import Corpus, Question, Questions
from birthplace_lm.mapped_texts import chosen

_logger = logging.getLogger(__name__)


def select_people(corpus: Corpus, people: int, seed: int) -> Corpus:
    """Draw `people` of the names that train, dev and test ask about, with all their documents and questions.

    Order is kept; with the same seed fewer people are a part of more. A document belongs to the longest name that it
    starts with, up to a full stop. With `people` below 1, or no fewer than there are, the corpus itself comes back.
    """
    if people <= 0:
        return corpus
    splits = (corpus.train, corpus.dev, corpus.test)
    names = dict.fromkeys(question.name for split in splits for question in split)
    if people >= len(names):
        return corpus
    drawn = set(_shuffled(names, f"select_people {seed}")[:people])
    documents = chosen(corpus.documents, (_owner(document, names) in drawn for document in corpus.documents))
    if corpus.documents and not documents:
        raise ValueError(_no_owner(people, len(corpus.documents), sorted(drawn)))
    train, dev, test = (_of(drawn, split) for split in splits)
    return Corpus(documents, train, dev, test)


def hold_out(questions: Sequence[Question], share: float, seed: int) -> tuple[Questions, Questions]:
    """Split questions into (kept, held) by name, so that no person is on both sides; order is kept.

    `share` in [0, 1] is the part of the names to hold, rounded, but at least one name where it is above 0.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    names = _shuffled(dict.fromkeys(question.name for question in questions), f"hold_out {seed}")
    held = set(names[: max(round(share * len(names)), int(share > 0))])
    return _of(held, questions, others=True), _of(held, questions)


def spread(questions: Questions, at_most: int | None) -> Questions:
    """At most so many questions (all of them for None), evenly spread over their order; raises ValueError below 1.

    Asking a quarter of a million people tells little more than asking ten thousand, and takes 25 times as long.
    """
    if at_most is None or len(questions) <= at_most:
        return questions
    if at_most < 1:
        raise ValueError(f"at least 1 question has to be asked, not {at_most}")
    marks = bytearray(len(questions))
    for number in range(at_most):
        marks[number * len(questions) // at_most] = True
    return chosen(questions, marks)


def hold_out_people(corpus: Corpus, people: int, seed: int) -> Corpus:
    """Take `people` of the dev people out of everything; they come back in `unknown`, with their documents apart.

    A model of the rest has seen neither their biographies nor a question about them, though another person's document
    may mention them. Dev people whom train asks about too are never drawn, and the number of train questions stays, so
    that runs with and without held-out people compare. Raises ValueError for a negative number, where no such dev
    person would be left, and where none of them has a document; of some that have none a warning tells.
    """
    if people == 0:
        return corpus
    taken = {question.name for question in corpus.train}
    names = list(dict.fromkeys(question.name for question in corpus.dev if question.name not in taken))
    if not 0 < people < len(names):
        raise ValueError(
            f"hold_out_people is {people}: from 0 to {len(names) - 1} people can be held out, since dev asks about "
            f"{len(names)} whom train does not know, and one of them has to stay"
        )
    held = set(_shuffled(names, f"hold_out_people {seed}")[:people])
    everybody = {q.name for split in (corpus.train, corpus.dev, corpus.test) for q in split}
    theirs, lost = bytearray(), set(held)
    for document in corpus.documents:
        owner = _owner(document, everybody)
        theirs.append(owner in held)
        lost.discard(owner or "")
    if corpus.documents and lost:
        told = _no_owner(len(held), len(corpus.documents), sorted(lost))
        if len(lost) == len(held):
            raise ValueError(told)
        _logger.warning("%s: should one be about them under another name, it is trained on", told)
    return replace(
        corpus,
        documents=chosen(corpus.documents, (not taken for taken in theirs)),
        dev=_of(held, corpus.dev, others=True),
        test=_of(held, corpus.test, others=True),
        unknown=_of(held, corpus.dev),
        unknown_documents=chosen(corpus.documents, theirs),
    )


def _no_owner(people: int, documents: int, lost: Sequence[str]) -> str:
    named = ", ".join(map(repr, lost[:3])) + ", …" * (len(lost) > 3)
    return (
        f"of {people} people {len(lost)} have no document, among {documents:,}, that begins with their name and a full "
        f'stop: {named} (a question is "Where was NAME born?")'
    )


def _of(names: Container[str], questions: Questions, others: bool = False) -> Questions:
    """The questions about these names, or about all others; in their order."""
    return chosen(questions, ((question.name in names) != others for question in questions))


def _shuffled(names: Iterable[str], key: str) -> list[str]:
    """Names in the order of sha256(key, name): the same on every machine, whatever order they came in."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{key}\n{name}".encode()).digest())


def _owner(document: str, names: Container[str]) -> str | None:
    """The longest of the names that the document starts with, up to a full stop; None where there is none."""
    stops = [match.start() for match in re.finditer(r"\.", document)]
    return next((document[:stop] for stop in reversed(stops) if document[:stop] in names), None)
