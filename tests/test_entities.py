"""Titles, names and numbers of a text."""

import re
from pathlib import Path

import pytest

from birthplace_lm.corpus import read_folder
from birthplace_lm.entities import mentions, title_length


@pytest.mark.parametrize(
    ("document", "title"),
    [
        ("John Stephen. Born in Glasgow .", "John Stephen. "),
        ("John P. Kee. John Prince Kee .", "John P. Kee. "),
        ("J. R. R. Tolkien. Tolkien was .", "J. R. R. Tolkien. "),
        ("no full stop here", ""),
    ],
)
def test_titles(document: str, title: str) -> None:
    assert document[: title_length(document)] == title


def test_mentions_are_whole_words() -> None:
    text = "Pauline of Pau, (Pau) and Paul"
    assert [text[s:e] for s, e in mentions(text, re.compile(r"(?<!\w)(?:Pau)(?!\w)"))] == ["Pau", "Pau"]


def test_titles_are_found_in_nearly_all_real_documents(cs224n: Path) -> None:
    corpus = read_folder(cs224n)
    names = {question.name for question in corpus.train + corpus.dev + corpus.test}
    titles = [document[: title_length(document)].removesuffix(". ") for document in corpus.documents]
    assert sum(title in names for title in titles) / len(titles) > 0.97
