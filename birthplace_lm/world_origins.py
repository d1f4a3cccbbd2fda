"""What the names of an invented world tell about birthplaces, exactly: how well the best guesser can do.

With probability c, the world's `origin_correlation`, somebody is born in a town of the culture that the name belongs
to, otherwise in any town, both in proportion to the weights w of the towns. So of the people with a name of culture g

    P(town t | g) = c · [t is a town of g] · w_t / Σ_{s of g} w_s + (1 − c) · w_t / Σ_s w_s,

and nothing else in a name says more. Whoever knows this law and not the person is right most often with the most
probable town, with probability max_t P(t | g). With 24 equal towns, four a culture, that is (1 − c)/24 + c/4: 4.2 % at
c = 0, 14.6 % at 0.5, 22.9 % at 0.9.
"""

from collections.abc import Sequence

from birthplace_lm.world import World
from birthplace_lm.world_words import CULTURES, compose_place


def place_origins(places: int) -> dict[str, str]:
    """The culture whose town each of the first `places` towns is: the countries of the invented world."""
    return {compose_place(number): CULTURES[number % len(CULTURES)].name for number in range(places)}


def name_origin(name: str) -> str | None:
    """The culture that a name belongs to, None where its first name and its surname are not of one culture.

    >>> name_origin("Birka A. Almarsen"), name_origin("Birka Albanacci")
    ('Norrish', None)
    """
    first, *_, last = name.split(" ") if " " in name else (name, "")
    for culture in CULTURES:
        if first in culture.first and any(last == root + end for root in culture.roots for end in culture.endings):
            return culture.name
    return None


def place_odds(world: World, origin: str | None) -> dict[str, float]:
    """P(town | culture of the name) for every town of the world; with None P(town), whatever the name."""
    towns = [compose_place(number) for number in range(world.places)]
    weights = [1 / (number + 1) if world.place_distribution == "zipf" else 1.0 for number in range(world.places)]
    anywhere = [weight / sum(weights) for weight in weights]
    if origin is None:
        return dict(zip(towns, _mixed_over_cultures(world, weights, anywhere), strict=True))
    culture = [culture.name for culture in CULTURES].index(origin)
    home = _at_home(weights, culture)
    c = world.origin_correlation
    return {town: c * h + (1 - c) * a for town, h, a in zip(towns, home, anywhere, strict=True)}


def _at_home(weights: Sequence[float], culture: int) -> list[float]:
    """The law of those born where their name comes from; with fewer towns than cultures, cultures share a town."""
    groups = min(len(CULTURES), len(weights))
    own = [weight * (number % groups == culture % groups) for number, weight in enumerate(weights)]
    return [weight / sum(own) for weight in own]


def _mixed_over_cultures(world: World, weights: Sequence[float], anywhere: Sequence[float]) -> list[float]:
    """P(town) over people of all cultures, which are alike frequent."""
    c, n = world.origin_correlation, len(CULTURES)
    homes = zip(*(_at_home(weights, culture) for culture in range(n)), strict=True)
    return [c * sum(home) / n + (1 - c) * a for home, a in zip(homes, anywhere, strict=True)]


def ideal_accuracy(world: World, names: Sequence[str]) -> float:
    """The expected share right of the best guesser who sees these names of the world, and nobody's biography.

    A name of no origin is guessed by the law over all people. Raises ValueError without a name.
    """
    if not names:
        raise ValueError("0 names: the accuracy of guessing is a mean over at least one name")
    best = {origin: max(place_odds(world, origin).values()) for origin in {name_origin(name) for name in names}}
    return sum(best[name_origin(name)] for name in names) / len(names)
