"""Names of nobody: people of whom no document tells, so that whatever is answered about them is made up.

Whether a model knows what it does not know is an old question with new models (Kadavath et al. 2022, arXiv 2207.05221,
ask it of itself); the families and their measures are this package's own. Three of them, from the most to the least
like the people a model knows:

    held out     real dev people, taken out of everything before pretraining (`people.hold_out_people`)
    recombined   the first names of one known person and the surname of another, together the name of nobody
    gibberish    the shape of a known name, filled with letters by lot: Xe Tnalr

Every draw is a pure function of the seed and the number of the name. A name's surname is its last word, its first names
are the others; who has one word only is not recombined and keeps the name in a swap.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from birthplace_lm.world_drawing import below

HELD_OUT, RECOMBINED, GIBBERISH = "held out", "recombined", "gibberish"
_TRIES = 20  # draws a name: nearly all recombinations of a few hundred people are new


def split_name(name: str) -> tuple[str, str] | None:
    """First names and surname, None for a name of one word.

    >>> split_name("Ada M. Vik"), split_name("Ada")
    (('Ada M.', 'Vik'), None)
    """
    first, space, last = name.rpartition(" ")
    return (first, last) if space and first and last else None


def recombined(names: Sequence[str], count: int, seed: int = 0, documents: Iterable[str] = ()) -> list[str]:
    """Up to `count` different names, first names and surname of two of the known names; none of them is itself known.

    Nor is any that a document begins with: there is such a person, if nobody asks about him. None is longer than the
    longest known name. Fewer come back where there are not so many.
    """
    parts = [part for name in names if (part := split_name(name))]
    if not parts:
        return []
    index = np.arange(_TRIES * count)
    firsts = below(seed, "recombined first names", index, len(parts)).tolist()
    lasts = below(seed, "recombined surname", index, len(parts)).tolist()
    drawn = [f"{parts[first][0]} {parts[last][1]}" for first, last in zip(firsts, lasts, strict=True)]
    told_of = _beginnings(documents, drawn)
    return _new((name for name in drawn if name not in told_of), names, count)


def gibberish(names: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Up to `count` different names with the lengths, capitals, spaces and signs of known names and letters by lot.

    A letter is drawn as often as names hold it, so that the characters are familiar and their order is not.
    """
    large = [letter for name in names for letter in name if letter.isupper()]
    small = [letter for name in names for letter in name if letter.isalpha() and not letter.isupper()]
    if not names or not small:
        return []
    index = np.arange(_TRIES * count)
    shapes = below(seed, "gibberish shape", index, len(names)).tolist()
    longest = max(map(len, names))

    def filled(number: int, shape: str) -> str:
        places = number * longest + np.arange(len(shape))
        drawn = zip(
            below(seed, "large letter", places, max(len(large), 1)).tolist(),
            below(seed, "small letter", places, len(small)).tolist(),
            strict=True,
        )
        pairs = zip(shape, drawn, strict=True)
        return "".join(large[a] if c.isupper() else small[b] if c.isalpha() else c for c, (a, b) in pairs)

    return _new((filled(number, names[shape]) for number, shape in enumerate(shapes)), names, count)


def swapped(names: Sequence[str], known: Sequence[str], surname: bool, seed: int = 0) -> list[str | None]:
    """Each name with the surname of a known person, or with that person's first names, in place of its own.

    None for a name of one word, and where twenty draws gave a known name or one longer than the longest known name.
    """
    others = [part[surname] for name in known if (part := split_name(name))]
    taken, longest = set(known), max(map(len, known), default=0)
    index = np.arange(_TRIES * len(names)).reshape(len(names), _TRIES)
    stream = "swapped surname" if surname else "swapped first names"
    drawn = below(seed, stream, index, len(others)).tolist() if others else [[] for _ in names]
    result: list[str | None] = []
    for name, candidates in zip(names, drawn, strict=True):
        part = split_name(name)
        new = (others[i] for i in candidates if part and others[i] != part[surname])
        whole = (f"{part[0]} {other}" if surname else f"{other} {part[1]}" for other in new if part)
        result.append(next((one for one in whole if one not in taken and len(one) <= longest), None))
    return result


def _new(drawn: Iterable[str], known: Sequence[str], count: int) -> list[str]:
    """The first `count` different ones that are neither known nor longer than any known name."""
    taken, longest = set(known), max(map(len, known))
    found = dict.fromkeys(name for name in drawn if name not in taken and len(name) <= longest)
    return list(found)[:count]


def _beginnings(documents: Iterable[str], names: Iterable[str]) -> set[str]:
    """Those of the names that a document begins with."""
    asked = set(names)
    lengths = sorted({len(name) for name in asked})
    return {document[:length] for document in documents for length in lengths if document[:length] in asked}
