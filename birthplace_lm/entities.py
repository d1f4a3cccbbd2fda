"""What a biography names: the title that it begins with, names and numbers, places of a list. Rules, no model."""

import re
from collections.abc import Iterator

WORD = re.compile(r"\w+(?:['’-]\w+)*")
# Up to the first full stop that closes neither an initial nor "St.", or that stands behind another one.
_TITLE = re.compile(r"(?:.*?(?:[^\W_]{2}(?<!\bSt)\)?|\.))\.\s")


def title_length(document: str, longest: int = 48) -> int:
    """Characters of the title, the name that a document begins with, full stop and space included; 0 if it has none.

    >>> title_length("John P. Kee. John Prince Kee is a singer .")
    13
    >>> title_length("John Vik, Jr.. He is a pilot .")
    15
    """
    match = _TITLE.match(document[: longest + 1])
    return match.end() if match else 0


def entities(document: str) -> Iterator[tuple[int, int]]:
    """(start, end) of every run of capitalised words and of every number.

    >>> text = "She moved to New York in 1872 ."
    >>> [text[start:end] for start, end in entities(text)]
    ['She', 'New York', '1872']
    """
    start: int | None = None
    end = 0
    for word in WORD.finditer(document):
        capital = word[0][0].isupper()
        if start is not None and not (capital and document[end : word.start()] == " "):
            yield start, end
            start = None
        if capital:
            start, end = word.start() if start is None else start, word.end()
        elif word[0].isdigit():
            yield word.span()
    if start is not None:
        yield start, end


def mentions(document: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """(start, end) of every answer of the gazetteer that the document holds as whole words."""
    return (match.span() for match in pattern.finditer(document))


def foreign_names(document: str, title: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the runs of capitalised words behind a title of so many characters and not made of its words.

    >>> text = "Ada Vik. Vik was born in Oslo in 1872 ."
    >>> [text[start:end] for start, end in foreign_names(text, 9)]
    ['Oslo']
    """
    own = set(WORD.findall(document[:title]))
    for start, end in entities(document):
        if start >= title and document[start].isupper() and not own.issuperset(WORD.findall(document[start:end])):
            yield start, end
