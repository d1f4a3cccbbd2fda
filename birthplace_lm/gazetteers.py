"""Lists of names to ask for, made from the documents and the training answers alone: nothing knows who is asked about.

Legend: M mentions of names in all documents, K different names, C different contexts of a mention.
"""

import re
from array import array
from collections.abc import Collection, Iterable

import numpy as np

from birthplace_lm.entities import WORD, foreign_names, title_length

_NEIGHBOUR = re.compile(rf"{WORD.pattern}|[^\w\s]")
_REACH = 60  # characters on either side of a name within which the two words next to it are looked for


def recurring_names(documents: Iterable[str], longest_title: int = 48) -> set[str]:
    """Runs of capitalised words that two documents or more share: places, peoples, months, rarely a person.

    A name in its own title does not count, nor does a single word that is also written small, as after a full stop.
    Nothing but the documents says what is on the list.

    >>> sorted(recurring_names(["Ada Vik. She left New York .", "Bo Lund. He left New York where she was ."]))
    ['New York']
    """
    once, again, small = set[str](), set[str](), set[str]()
    for document in documents:
        title = title_length(document, longest_title)
        names = {document[start:end] for start, end in foreign_names(document, title)}
        again |= names & once
        once |= names
        small.update(_small_words(document))
    return {name for name in again if not _also_small(name, small)}


def names_alike(
    documents: Iterable[str], answers: Collection[str], recall: float = 0.9, longest_title: int = 48
) -> set[str]:
    """Names that stand between such words as the answers stand between: mostly places nobody asked about was born in.

    The contexts of a mention are the two words before it and the two behind it. Each speaks for a place or against it
    by the log-odds of being next to an answer rather than another name (naive Bayes, smoothed by one mention of the
    average name; the mentions of a name count together as the root of their number). A name's score is their sum over
    its mentions divided by one more than there are of these, so that one mention convinces less than many; a name's own
    mentions are left out of the odds that score it. On the list is what scores as well as the best share `recall` of
    the answers do, and is no word that is also written small. One round of growing a dictionary from examples
    (Riloff & Jones 1999). Where the documents name fewer than two answers or two other names nothing follows: an empty
    set.

    >>> towns = ["Oslo", "Bergen", "Florø"]
    >>> lives = [f"Ada Vik. She was born in {town}, and plays Chess ." for town in towns]
    >>> sorted(names_alike(lives, towns[:2]))
    ['Florø']
    """
    names, contexts, small = dict[str, int](), dict[tuple[str, ...], int](), set[str]()
    of_name, before, behind = array("i"), array("i"), array("i")
    for document in documents:
        for start, end in foreign_names(document, title_length(document, longest_title)):
            of_name.append(names.setdefault(document[start:end], len(names)))
            left = _kinds(document[max(0, start - _REACH) : start])[-2:]
            right = _kinds(document[end : end + _REACH])[:2]
            before.append(contexts.setdefault(("before", *left), len(contexts)))
            behind.append(contexts.setdefault(("behind", *right), len(contexts)))
        small.update(_small_words(document))
    listed = np.fromiter((name in answers for name in names), dtype=bool, count=len(names))
    if min(listed.sum(), (~listed).sum()) < 2:
        return set()
    name = np.array(of_name)
    mentions = np.bincount(name)
    odds = sum(_log_odds(name, np.array(context), listed, mentions) for context in (before, behind))
    scores = np.bincount(name, weights=odds) / (mentions + 1)
    least = np.quantile(scores[listed], 1 - recall, method="lower")
    return {
        found
        for found, score, known in zip(names, scores, listed, strict=True)
        if score >= least and not known and not _also_small(found, small)
    }


def _log_odds(name: np.ndarray, context: np.ndarray, listed: np.ndarray, mentions: np.ndarray) -> np.ndarray:
    """What the context (M,) of each mention of name (M,) says for the list, (M,): 0 where it is as common off it."""
    weight = mentions**-0.5  # (K,), so that all mentions of a name weigh the root of their number
    pairs = name.astype(np.int64) * (context.max() + 1) + context  # there may be more than 2³²
    _, pair, together = np.unique(pairs, return_inverse=True, return_counts=True)
    own = weight[name] * together[pair]  # the part of the sums below that is this very name's
    sums = np.bincount(context, weights=weight[name])[context] - own
    on_list = np.bincount(context, weights=weight[name] * listed[name])[context] - own * listed[name]
    each = mentions * weight  # (K,)
    share = ((each * listed).sum() - each * listed) / (each.sum() - each)  # (K,), of all the other names
    chance = (on_list + share[name]) / (sums + 1)
    return np.log(chance / (1 - chance)) - np.log(share / (1 - share))[name]


def _kinds(text: str) -> list[str]:
    """Its words and marks; "#" stands for a number and "Name" for what begins with a capital."""
    words = _NEIGHBOUR.findall(text)
    return ["#" if word[0].isdigit() else "Name" if word[0].isupper() else word for word in words]


def _small_words(document: str) -> list[str]:
    return [word for word in WORD.findall(document) if word[0].islower()]


def _also_small(name: str, small: Collection[str]) -> bool:
    return name[0].lower() + name[1:] in small
