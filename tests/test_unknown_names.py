"""Unknown names are unknown and look as they should; what is measured of the answers is what a plain count says."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from birthplace_lm.corpus import Question
from birthplace_lm.evaluation.guesses import (
    answers_card,
    decided_by,
    distances,
    flips,
    guessing_card,
    jensen_shannon,
    mean,
    total_variation,
)
from birthplace_lm.evaluation.unknown_names import gibberish, recombined, split_name, swapped
from birthplace_lm.world import World

NAMES = [question.name for question in World(people=400).corpus().train]


def born(name: str, place: str | None = None) -> Question:
    return Question(f"Where was {name} born?", place)


def test_recombined_names_are_made_of_known_parts_and_known_to_nobody() -> None:
    names = recombined(NAMES, 300, seed=1)
    assert len(names) == len(set(names)) == 300 and not set(names) & set(NAMES)
    firsts, lasts = (set(part) for part in zip(*map(split_name, NAMES), strict=True))  # type: ignore[arg-type]
    for name in names:
        first, last = split_name(name) or ("", "")
        assert first in firsts and last in lasts and len(name) <= max(map(len, NAMES))
    assert names == recombined(NAMES, 300, seed=1) and names[:50] == recombined(NAMES, 50, seed=1)
    for part in (0, 1):  # another seed draws both parts anew
        drawn = [[(split_name(name) or ("", ""))[part] for name in recombined(NAMES, 300, seed)] for seed in (1, 2)]
        assert sum(one == other for one, other in zip(*drawn, strict=True)) < 30


def test_recombination_stops_where_there_is_nothing_new() -> None:
    assert set(recombined(["Ada Vik", "Bo Lund", "Cherilyn"], 50)) == {"Ada Lund", "Bo Vik"}
    assert recombined(["Ada Vik", "Bo Lund", "Cher"], 50) == ["Bo Vik"]  # the other is longer than all known names
    told = ["Ada Lund sang. Bo Vik did not.", "Bo Lund was born in Pau."]
    assert recombined(["Ada Vik", "Bo Lund"], 50, documents=told) == ["Bo Vik"]  # only whom a document begins with
    assert recombined(["Ada Vik"], 50) == recombined(["Cher", "Pelé"], 5) == recombined([], 5) == []


def test_gibberish_has_the_shapes_and_the_letters_of_names_in_another_order() -> None:
    known = [*NAMES, "Zoë O'Dwyer-Łuk", "Jan III"]
    names = gibberish(known, 500, seed=1)
    shape = str.maketrans({c: "A" if c.isupper() else "a" for c in set("".join(known)) if c.isalpha()})
    assert len(set(names)) == 500 and not set(names) & set(known)
    assert {name.translate(shape) for name in names} <= {name.translate(shape) for name in known}
    assert names[:20] == gibberish(known, 20, seed=1) != gibberish(known, 20, seed=2)
    letters, expected = (Counter("".join(some).replace(" ", "")) for some in (names, known))
    for letter, count in expected.items():
        share = count / expected.total()
        assert abs(letters[letter] / letters.total() - share) < 5 * math.sqrt(share / letters.total()) + 0.01, letter
    pairs, usual = ({name[i : i + 2] for name in some for i in range(len(name) - 1)} for some in (names, known))
    assert len(pairs - usual) > len(usual) / 4  # letters that never follow each other in names
    assert gibberish([], 5) == gibberish(["III"], 5) == []


def test_a_swap_changes_one_part_and_makes_an_unknown_name() -> None:
    asked = [*NAMES[:60], "Cher"]
    for surname in (False, True):
        swaps = swapped(asked, NAMES, surname=surname, seed=3)
        assert swaps == swapped(asked, NAMES, surname=surname, seed=3) and swaps[-1] is None
        for name, other in zip(asked[:-1], swaps, strict=False):
            assert other is not None and other not in NAMES
            before, after = split_name(name), split_name(other)
            assert before and after
            assert before[1 - surname] == after[1 - surname] and before[surname] != after[surname]
    assert swapped(["Ada Vik"], ["Ada Vik", "Bo Vik"], surname=True) == [None]  # nobody else's surname
    assert swapped(["Ada Lund"], ["Ada Vik", "Robert Lund"], surname=True) == [None]  # the own one or a known name
    assert swapped(["Ada Vik"], [], surname=True) == [None]


def test_flips_and_what_decides_an_answer() -> None:
    answers = ["Pau", "Pau", "Pau", "Pau", "Pau", "Pau"]
    other_first = ["Pau", "Oslo", "Pau", "Oslo", None, "Pau"]
    other_surname = ["Oslo", "Pau", "Pau", "Bern", "Pau", "Oslo"]
    assert flips(answers, other_first)["value"] == 2 / 5 and flips(answers, other_surname)["count"] == 3
    shuffled = [one != other for one in answers[:5] for other in other_first if other]
    assert flips(answers, other_first)["by_chance"] == pytest.approx(sum(shuffled) / 25)
    assert flips(["Pau"], [None])["by_chance"] is None
    decided = decided_by(answers, other_first, other_surname)
    assert {kind: row["count"] for kind, row in decided.items()} == {
        "surname": 2, "first names": 1, "neither": 1, "both": 1,
    }  # fmt: skip
    assert decided["surname"]["total"] == 5
    nobody = decided_by(["Pau"], [None], ["Oslo"])["surname"]
    assert nobody["value"] is None and nobody["why"] == "there are no people with both swaps"


counts = st.lists(st.integers(0, 20), min_size=3, max_size=6).filter(lambda some: sum(some) >= 10)


@settings(max_examples=25)
@given(counts, counts)
def test_distances_are_those_of_scipy_and_of_the_definition(some: list[int], others: list[int]) -> None:
    size = max(len(some), len(others))
    p, q = (np.array([*row, *[0] * (size - len(row))]) / sum(row) for row in (some, others))
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-9)
    plain = max(abs(sum(p[i] - q[i] for i in range(size) if mask >> i & 1)) for mask in range(2**size))
    assert total_variation(p, q) == pytest.approx(plain)  # the largest difference that any event has
    answers = [f"P{i}" for i, count in enumerate(some) for _ in range(count)]
    told = distances(answers, {f"P{i}": count for i, count in enumerate(others)})
    assert told["total_variation"]["value"] == pytest.approx(total_variation(p, q))
    listed = distances(answers, [f"P{i}" for i, count in enumerate(others) for _ in range(count)])
    assert listed["jensen_shannon"]["value"] == pytest.approx(jensen_shannon(p, q))


def test_chance_is_what_a_draw_from_the_same_places_gives() -> None:
    rng = np.random.default_rng(5)
    marginal = {f"P{i}": 60 - i for i in range(60)}
    weights = np.array(list(marginal.values())) / sum(marginal.values())
    for others in (marginal, [f"P{i}" for i in rng.choice(60, 150, p=weights)]):
        inside = 0
        for seed in range(40):
            answers = [f"P{i}" for i in rng.choice(60, 100, p=weights)]
            told = distances(answers, others, seed)["total_variation"]
            inside += told["by_chance"]["low"] <= told["value"] <= told["by_chance"]["high"]
        assert inside >= 32  # 38 of 40 expected
        off = distances(["P0"] * 100, others)["total_variation"]
        assert off["value"] > off["by_chance"]["high"]


def test_chance_between_two_lists_is_that_of_shuffling_them_together() -> None:
    rng = np.random.default_rng(6)
    one, other = rng.integers(0, 30, 40), rng.integers(0, 20, 80)
    told = distances([str(i) for i in one], [str(i) for i in other])["total_variation"]["by_chance"]
    pooled, shuffled = np.concatenate([one, other]), []
    for _ in range(1000):
        both = np.split(rng.permutation(pooled), [40])
        p, q = (np.bincount(part, minlength=30) / len(part) for part in both)
        shuffled.append(total_variation(p, q))
    assert told["mean"] == pytest.approx(np.mean(shuffled), abs=0.015)  # four standard errors of 200 draws


def test_the_interval_of_a_distance_is_that_of_drawing_the_answers_anew() -> None:
    """Between answers of two kinds of places the distance is the share of one kind, whose interval is known."""
    answers, others = ["here"] * 60 + ["there"] * 140, {"there": 1000}
    told = distances(answers, others)["total_variation"]
    spread = (0.3 * 0.7 / 200) ** 0.5
    assert told["value"] == pytest.approx(0.3)
    assert (told["low"], told["high"]) == pytest.approx((0.3 - 1.96 * spread, 0.3 + 1.96 * spread), abs=0.015)
    listed = distances(answers, ["there"] * 100 + ["here"] * 100)["total_variation"]  # both sides are drawn
    assert listed["value"] == pytest.approx(0.2)
    both = (0.3 * 0.7 / 200 + 0.5 * 0.5 / 200) ** 0.5
    assert listed["high"] - listed["low"] == pytest.approx(2 * 1.96 * both, rel=0.2)
    # a hundred answers over a thousand places: every draw lies further off than they do
    rng = np.random.default_rng(0)
    places = dict.fromkeys(map(str, range(1000)), 1)
    scattered = distances([str(place) for place in rng.integers(0, 1000, 100)], places)["total_variation"]
    assert scattered["low"] < scattered["value"] < scattered["high"] and scattered["high"] - scattered["low"] < 0.1
    same = distances(["here"] * 20 + ["there"] * 10, {"here": 200, "there": 100})["total_variation"]
    assert same["value"] == same["low"] == 0 < same["high"] < 0.2


def test_too_few_answers_are_not_compared() -> None:
    for answers, others in ((["P"] * 9, {"P": 100}), (["P"] * 20, ["P"] * 9), ([], [])):
        for told in distances(answers, others).values():  # type: ignore[arg-type]
            assert told["value"] is None and "at least 10 of each are needed" in told["why"]


def test_means_are_not_defined_of_what_is_no_number() -> None:
    assert mean(np.arange(20.0)).value == 9.5
    low, high = mean(np.arange(20.0)).low, mean(np.arange(20.0)).high
    assert low is not None and high is not None and 6 < low < 9.5 < high < 13
    assert mean(np.r_[np.arange(20.0), np.nan]).value is None and "1 of 21" in mean(np.r_[np.arange(20.0), np.nan]).why
    assert mean(np.arange(3.0)).why.startswith("3 questions")


def test_the_card_of_a_family() -> None:
    train = [born(f"A{i} Vik", f"P{i % 4}") for i in range(20)]
    answers, known = ["P0"] * 12 + ["nowhere"] * 8, ["P1"] * 15
    surer = {"s": np.linspace(0, 1, 15), "only known": np.zeros(15)}
    card = answers_card(answers, {"s": np.linspace(-1, -0.1, 20)}, train, known, surer)
    assert (card["known_place"]["count"], card["known_place"]["total"], card["distinct_answers"]) == (12, 20, 2)
    assert card["commonest_answer"]["answer"] == "P0" and card["commonest_answer"]["value"] == 0.6
    assert list(card["signals"]) == ["s"] and card["signals"]["s"]["auroc"]["value"] == 1.0
    assert card["signals"]["s"]["mean"]["value"] == pytest.approx(-0.55)
    assert card["signals"]["s"]["known_mean"]["value"] == pytest.approx(0.5)
    assert card["distance_to_train"]["total_variation"]["value"] == pytest.approx(0.75)  # 0.6 where train has 0.25
    assert card["distance_to_known"]["total_variation"]["value"] == 1.0


def test_the_card_of_nobody_and_of_too_few_says_so() -> None:
    train = [born("A Vik", "P0")]
    card = answers_card([], {"s": np.zeros(0)}, train, [], {"s": np.zeros(0)})
    assert card["known_place"]["value"] is None and card["commonest_answer"]["value"] is None
    signals = card["signals"]["s"]
    assert signals["mean"]["value"] is None and "0 known and 0 unknown people" in signals["auroc"]["why"]


def test_guesses_beside_the_ideal() -> None:
    world = World(people=300, origin_correlation=0.5)
    corpus = world.corpus()
    questions = corpus.dev
    at_home = {"Norrish": "Askeborg", "Veltian": "Acquabella"}
    from birthplace_lm.world_origins import name_origin

    answers = [at_home.get(name_origin(question.name) or "", "Nowhere") for question in questions]
    card = guessing_card(answers, questions, corpus.train, world)
    assert card["ideal"] == pytest.approx(0.5 / 24 + 0.5 / 4)
    assert card["of_origin"]["count"] == sum(answer != "Nowhere" for answer in answers) > 5
    assert card["right"]["count"] == sum(a == q.answer for a, q in zip(answers, questions, strict=True))
    frequent = Counter(question.answer for question in corpus.train).most_common()
    top = min(place or "" for place, count in frequent if count == frequent[0][1])
    assert card["most frequent place"]["count"] == sum(question.answer == top for question in questions)
    assert 0 < card["name n-grams"]["count"] < len(questions)
    strange = guessing_card(["Nowhere"], [born("Yan Zzz")], corpus.train, world)
    assert strange["of_origin"]["count"] == 0  # neither the name nor the answer is of any culture
    untold = guessing_card(answers, [born(question.name) for question in questions], corpus.train, None)
    assert untold["right"]["value"] is None and "ideal" not in untold
