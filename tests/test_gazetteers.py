"""Lists of names: against slow versions written from their rules, and on real biographies against answers held back."""

import math
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from birthplace_lm.corpus import read_folder
from birthplace_lm.entities import entities, foreign_names, title_length
from birthplace_lm.gazetteers import _log_odds, names_alike, recurring_names
from birthplace_lm.world import World
from tests.test_corruption import DOCUMENTS


def test_recurring_names_agree_with_a_slow_count() -> None:
    """Written from the rule: shared by two documents, behind titles not made of their words, never written small."""
    shared: dict[str, set[int]] = {}
    for number, document in enumerate(DOCUMENTS):
        title = title_length(document)
        for start, end in entities(document):
            words = document[start:end].split()
            if start >= title and not all(word in document[:title].replace(".", " ").split() for word in words):
                shared.setdefault(document[start:end], set()).add(number)
    small = {word for document in DOCUMENTS for word in document.split() if word[0].islower()}
    expected = {
        name for name, where in shared.items()
        if len(where) > 1 and not name[0].isdigit() and name[0].lower() + name[1:] not in small
    }  # fmt: skip
    assert recurring_names(DOCUMENTS) == expected and {"Pau", "New York"} <= expected


def test_recurring_names_leave_out_own_names_beginnings_and_numbers() -> None:
    texts = ["Ada Vik. The painter Vik met Ada in Pau in 1872 .", "Ada Lund. The end of Ada in Pau in 1872, the end ."]
    assert recurring_names(texts) == {"Pau"}


def slowly_alike(documents: list[str], answers: set[str], recall: float) -> set[str]:
    """names_alike by its docstring, a mention and a context at a time."""
    seen: list[tuple[str, str, str]] = []
    for document in documents:
        for start, end in foreign_names(document, title_length(document)):
            words = [
                [
                    ("#" if w[0].isdigit() else "Name" if w[0].isupper() else w)
                    for w in re.findall(r"[\w'’-]+|[^\w\s]", t)
                ]
                for t in (document[max(0, start - 60) : start], document[end : end + 60])
            ]
            seen.append((document[start:end], "before " + " ".join(words[0][-2:]), "behind " + " ".join(words[1][:2])))
    count = Counter(name for name, _, _ in seen)
    listed = {name for name in count if name in answers}

    def weight(names: set[str], context: str | None, but: str) -> float:
        return sum(
            count[name] ** -0.5 * (context is None or context == where)
            for name, before, _ in seen
            if name in names and name != but
            for where in [before if context is None or context.startswith("before") else _]
        )

    scores = dict.fromkeys(count, 0.0)
    for name, before, behind in seen:
        prior = weight(listed, None, name) / weight(set(count), None, name)
        for context in (before, behind):
            chance = (weight(listed, context, name) + prior) / (weight(set(count), context, name) + 1)
            scores[name] += math.log(chance / (1 - chance) / (prior / (1 - prior))) / (count[name] + 1)
    least = sorted(scores[name] for name in listed)[math.floor((1 - recall) * (len(listed) - 1) + 1e-9)]
    small = {word for document in documents for word in document.split() if word[0].islower()}
    return {
        name for name, score in scores.items()
        if score >= least - 1e-9 and name not in answers and name[0].lower() + name[1:] not in small
    }  # fmt: skip


@pytest.mark.parametrize("recall", [0.0, 0.5, 0.9, 1.0])
def test_names_alike_agree_with_a_slow_count(recall: float) -> None:
    documents = list(World(people=25, seed=3).corpus().documents)
    mentioned = sorted({d[s:e] for d in documents for s, e in foreign_names(d, title_length(d))})
    answers = set(random.Random(1).sample(mentioned, len(mentioned) // 3)) | {"Nowhere"}
    assert names_alike(documents, answers, recall) == slowly_alike(documents, answers, recall)


def test_more_recall_never_takes_a_name_off_the_list() -> None:
    documents = list(World(people=60).corpus().documents)
    answers = {question.answer or "" for question in World(people=60).corpus().train}
    lists = [names_alike(documents, answers, recall / 10) for recall in range(11)]
    assert all(one <= next_ for one, next_ in pairwise(lists)) and len(lists[0]) < len(lists[-1])
    assert not lists[-1] & answers


@pytest.mark.parametrize("answers", [set(), {"Oslo"}, {"Nowhere", "Elsewhere"}, {"Oslo", "Pau", "She", "Rome"}])
def test_from_too_few_examples_or_too_few_others_nothing_follows(answers: set[str]) -> None:
    lives = ["Ada Vik. She was born in Oslo .", "Bo Lund. She was born in Pau .", "Eva Ek. She was born in Rome ."]
    assert names_alike(lives, answers) == set()


def test_a_name_alone_in_its_context_does_not_vouch_for_itself() -> None:
    """Both answers that are found only where no other name stands are scored as if they were not on the list."""
    lives = [f"Ada Vik. Born in {town}, she sang ." for town in ("Oslo", "Pau", "Rome", "Lyon", "Bergen")]
    odd = ["Bo Lund. Raised at Utrecht; he swam .", "Bo Ek. Lived off Gouda: he ran .", "Bo Ås. Seen by Eva & Co ."]
    everything = names_alike(lives + odd, {"Oslo", "Pau", "Rome", "Utrecht", "Gouda"}, recall=1.0)
    most = names_alike(lives + odd, {"Oslo", "Pau", "Rome", "Utrecht", "Gouda"}, recall=0.5)
    assert most == {"Lyon", "Bergen"} < everything


def test_many_names_and_contexts_are_told_apart() -> None:
    """A pair of 2¹⁵ names and 2¹⁷ contexts has no number in 32 bits: the first and the fifth would have the same."""
    name = np.array([0, 1, 2, 3, 2**15, 1], dtype=np.int32)
    context = np.array([7, 7, 9, 9, 7, 2**17 - 1], dtype=np.int32)
    few_names, few_contexts = (np.unique(some, return_inverse=True)[1] for some in (name, context))
    mentions = np.maximum(np.bincount(name), 1)  # a name that is never mentioned counts as if it were once
    listed = np.zeros(len(mentions), dtype=bool)
    listed[[0, 2]] = True
    order = [*np.unique(name), *np.setdiff1d(np.arange(len(mentions)), name)]
    expected = _log_odds(few_names, few_contexts, listed[order], mentions[order])
    assert np.allclose(_log_odds(name, context, listed, mentions), expected)


def test_places_that_no_train_person_was_born_in_are_found_in_real_biographies(cs224n: Path) -> None:
    """Of the rarest fifth of answers, held back, seven in ten are found, with a name in every third document."""
    corpus = read_folder(cs224n)
    born = Counter(question.answer or "" for question in corpus.train)
    rare = sorted(place for place, people in born.items() if people < 3)
    held_back = set(random.Random(0).sample(rare, len(rare) // 5))
    added = names_alike(corpus.documents, set(born) - held_back)
    assert len(held_back & added) / len(held_back) > 0.7  # 0.79
    assert len(added) < 400  # 274
    mentions = sum(d[s:e] in added for d in corpus.documents for s, e in foreign_names(d, title_length(d)))
    assert mentions < len(corpus.documents) / 3
