"""The law of birthplaces given names, against the people that a world is really made of."""

from collections import Counter
from itertools import pairwise

import pytest

from birthplace_lm.world import World
from birthplace_lm.world_origins import ideal_accuracy, name_origin, place_odds, place_origins


def test_origins_of_towns_and_names() -> None:
    origins = place_origins(24)
    assert len(origins) == 24 and set(Counter(origins.values()).values()) == {4}
    assert all(one != other for one, other in pairwise(origins.values()))
    assert place_origins(3) == {"Askeborg": "Norrish", "Acquabella": "Veltian", "Altaabad": "Kharese"}
    assert name_origin("Ulfar Lomkvam") == "Norrish" and name_origin("Ulfar") is None
    assert name_origin("Ada Lomkvam") is None and name_origin("Ulfar Xyz") is None


def test_every_name_of_a_world_has_the_origin_it_was_made_with() -> None:
    world = World(people=3000)
    people = world._people(next(world._chunks())[:3000])
    assert [name_origin(person.name) for person in people] == [person.culture for person in people]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("places", "distribution"), [(24, "uniform"), (24, "zipf"), (4, "uniform"), (8, "zipf")])
def test_the_law_is_that_of_the_people(correlation: float, places: int, distribution: str) -> None:
    world = World(people=9000, places=places, origin_correlation=correlation, place_distribution=distribution)  # type: ignore[arg-type]
    people = world._people(next(world._chunks()))
    for origin in ("Norrish", "Zelmarine", None):
        odds = place_odds(world, origin)
        assert sum(odds.values()) == pytest.approx(1) and len(odds) == places
        of_them = [person.birthplace for person in people if origin in (None, person.culture)]
        counts = Counter(of_them)
        for town, probability in odds.items():
            spread = (len(of_them) * probability * (1 - probability)) ** 0.5
            assert abs(counts[town] - len(of_them) * probability) < 4.5 * spread + 1, (origin, town)


def test_the_best_guesser_is_as_good_as_stated_and_no_guesser_is_better() -> None:
    for correlation, stated in ((0.0, 1 / 24), (0.5, 0.5 / 24 + 0.5 / 4), (0.9, 0.1 / 24 + 0.9 / 4)):
        world = World(people=9000, origin_correlation=correlation, seed=4)
        people = world._people(next(world._chunks()))
        names = [person.name for person in people]
        assert ideal_accuracy(world, names) == pytest.approx(stated)
        best = {
            origin: max(odds := place_odds(world, origin), key=odds.__getitem__)
            for origin in set(place_origins(6).values())
        }
        right = sum(best[person.culture] == person.birthplace for person in people) / len(people)
        assert right == pytest.approx(stated, abs=4 * (stated / 9000) ** 0.5)
    with pytest.raises(ValueError, match="0 names"):
        ideal_accuracy(World(), [])
