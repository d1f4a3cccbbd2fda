"""The invented world: distinct names, exact shares, facts where they should be, and the knobs doing what they say."""

import json
import time
import tracemalloc
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm import world as world_module
from birthplace_lm.corpus import FILES, Question, read_folder, sha256_of
from birthplace_lm.world import MAX_PEOPLE, World
from birthplace_lm.world_drawing import name_numbers, permute, sentence_orders
from birthplace_lm.world_words import (
    CULTURES,
    MAX_PLACES,
    PLAIN_NAMES,
    TEMPLATES,
    Person,
    compose_name,
    compose_place,
)

PLACE_NUMBER = {compose_place(number): number for number in range(MAX_PLACES)}


def everybody(world: World) -> list[Person]:
    return [person for index in world._chunks() for person in world._people(index)]


def names_of(world: World, split: str) -> list[str]:
    return [question.name for question in world.questions(split)]  # type: ignore[arg-type]


# --- names


def test_200_000_names_are_distinct() -> None:
    assert len({person.name for person in everybody(World(people=200_000, seed=3))}) == 200_000


@pytest.mark.slow
def test_the_name_numbers_of_the_largest_world_are_all_there_are() -> None:
    numbers = name_numbers(1, np.arange(MAX_PEOPLE))
    assert MAX_PEOPLE >= 5_000_000
    assert np.array_equal(np.sort(numbers), np.arange(MAX_PEOPLE))


def test_every_number_is_another_name() -> None:
    """Plain names are checked all; with a middle name they differ in their words, of which first names tell culture."""
    assert len({compose_name(number)[0] for number in range(PLAIN_NAMES)}) == PLAIN_NAMES
    first_names = [name for culture in CULTURES for name in culture.first]
    assert len(set(first_names)) == len(first_names) == 6 * 32
    blocks = {compose_name(number)[0].split()[1] for number in range(0, MAX_PEOPLE, PLAIN_NAMES)}
    assert len(blocks) == MAX_PEOPLE // PLAIN_NAMES == 57  # middle names of culture 0, and a surname
    for number in range(PLAIN_NAMES, MAX_PEOPLE, 99_991):
        assert len(compose_name(number)[0].split()) == 3


@given(size=st.integers(1, 2000), seed=st.integers(0, 2**63 - 1))
def test_permute_is_one_to_one(size: int, seed: int) -> None:
    assert sorted(permute(seed, "any", np.arange(size), size).tolist()) == list(range(size))


def test_most_people_of_a_small_world_have_plain_names() -> None:
    assert Counter(person.name.count(" ") for person in everybody(World(people=8000))) == {1: 6000, 2: 2000}


# --- pure functions of the seed and the person


@settings(max_examples=50)
@given(i=st.integers(0, 299), seed=st.integers(0, 2**63 - 1), more=st.integers(0, MAX_PEOPLE - 300))
def test_a_person_depends_on_nothing_but_seed_and_number(i: int, seed: int, more: int) -> None:
    person = World(seed=seed).person(i)
    assert person == World(people=300 + more, seed=seed, wordings="multi3", train_share=0.3).person(i)
    assert person != World(seed=(seed + 1) % 2**63).person(i)


@pytest.mark.parametrize("wordings", ["single", "permuted", "multi4"])
def test_pieces_of_any_size_make_the_same_world(wordings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(people=500, seed=8, wordings=wordings)
    whole = world.corpus()
    monkeypatch.setattr(world_module, "_CHUNK", 7)
    assert world.corpus() == whole
    assert everybody(world) == [world.person(i) for i in range(500)]


GOLDEN = {
    "documents": "00bc47e9cf851d8f",
    "train": "c54e3dcdc7397177",
    "dev": "a94331127850780f",
    "test": "bcf12804325e7cf6",
}


def test_the_default_world_stays_as_it_is(tmp_path: Path) -> None:
    """Where this fails on purpose, raise `_GENERATION`; otherwise a machine or a numpy release draws differently."""
    World().write(tmp_path)
    sums = {key: sha256_of(tmp_path / name)[:16] for key, name in FILES.items()}
    assert sums == GOLDEN


# --- documents


@pytest.mark.parametrize(("wordings", "count"), [("single", 1), ("permuted", 1), ("multi1", 1), ("multi5", 5)])
def test_documents_tell_the_birthplace_once(wordings: str, count: int) -> None:
    world = World(people=1000 // count, seed=1, wordings=wordings, places=MAX_PLACES)
    documents = list(world.documents())
    assert len(documents) == 1000
    for number, document in enumerate(documents):
        person = world.person(number // count)
        assert document.startswith(f"{person.name}. ") and document.endswith(" .") and document.count(" .") == 1
        assert document.count(person.birthplace) == 1
        assert document.count(person.residence) == 1 and person.residence != person.birthplace
        towns = {town for town in PLACE_NUMBER if town in document}
        assert towns == {person.birthplace, person.residence}


def test_wordings_of_a_person_differ_in_sentence_and_order() -> None:
    world = World(people=400, wordings="multi9")
    documents = list(world.documents())
    orders = []
    for i in range(400):
        person = world.person(i)
        wordings = documents[9 * i : 9 * i + 9]
        told = [next(s for s in text.split(". ") if person.birthplace in s).rstrip(" .") for text in wordings]
        assert len(set(told)) == 9  # every template of the birthplace once
        orders.append(len({text.index(person.birthplace) < text.index(person.residence) for text in wordings}))
    assert Counter(orders)[2] > 350


def test_single_keeps_the_other_facts_in_one_order_and_permuted_does_not() -> None:
    fixed, _ = sentence_orders(fixed=True)
    free, _ = sentence_orders(fixed=False)
    assert all(list(rest) == sorted(rest) for rest in ([fact for fact in order if fact] for order in fixed))
    assert not all(list(rest) == sorted(rest) for rest in ([fact for fact in order if fact] for order in free))
    assert len(set(fixed)) == len(fixed) == 4 * 3 + 6 * 4 + 4 * 5
    assert len(set(free)) == len(free) == 8 * 3 + 36 * 4 + 96 * 5
    for order in free:  # the birthplace and the residence in each, nothing twice
        assert {0, list(TEMPLATES).index("residence")} <= set(order) and len(set(order)) == len(order)
    single, permuted = (list(World(people=200, wordings=wordings).documents()) for wordings in ("single", "permuted"))
    assert single != permuted


def test_templates_and_fields_name_the_same_facts() -> None:
    assert Person._fields[3:] == tuple(TEMPLATES)
    assert len(TEMPLATES["birthplace"]) >= 6 and min(map(len, TEMPLATES.values())) >= 4
    for template in (template for templates in TEMPLATES.values() for template in templates):
        assert template.count("{v}") == 1 and template.endswith(".") and template.count(".") == 1


@pytest.mark.parametrize("wordings", ["single", "permuted", "multi2"])
def test_lengths_and_places_of_the_answer(wordings: str) -> None:
    world = World(people=4000, wordings=wordings)
    people = everybody(world)
    documents = list(world.documents())
    lengths = np.array([len(document) for document in documents])
    assert 120 < np.median(lengths) < 150
    assert np.mean((lengths >= 90) & (lengths <= 170)) > 0.85
    copies = len(documents) // len(people)
    told = [people[i // copies].birthplace for i in range(len(documents))]
    ends = np.array([text.index(place) + len(place) for text, place in zip(documents, told, strict=True)])
    assert 0.85 < np.mean(ends <= 112) < 0.95
    assert np.mean(ends < 45) > 0.15 and np.mean((ends >= 60) & (ends < 90)) > 0.2


def test_characters() -> None:
    text = "".join(World(people=5000, places=MAX_PLACES).documents())
    assert not set(text) & set("□⁇\n\t\r")
    assert {"é", "ø", "å"} <= set(text.lower())


# --- questions and shares


@settings(max_examples=50)
@given(
    people=st.integers(20, 400),
    train=st.floats(0.1, 0.6),
    dev=st.floats(0.1, 0.3),
    test=st.floats(0.1, 1),
    seed=st.integers(0, 9),
)
def test_shares_are_exact_and_splits_are_apart(people: int, train: float, dev: float, test: float, seed: int) -> None:
    world = World(people=people, seed=seed, train_share=train, dev_share=dev, test_share=test)
    names = [names_of(world, split) for split in ("train", "dev", "test")]
    assert tuple(map(len, names)) == world.split_sizes()
    for share, found in zip((train, dev, min(test, 1 - train - dev)), names, strict=True):
        assert abs(len(found) - share * people) <= 1 + 1e-9
    asked = [name for split in names for name in split]
    assert len(set(asked)) == len(asked) <= people


def test_questions_ask_for_the_persons_own_birthplace() -> None:
    world = World(people=300, seed=2, wordings="multi4")
    birthplace = {person.name: person.birthplace for person in everybody(world)}
    for split in ("train", "dev"):
        for question in world.questions(split):
            assert question == Question(f"Where was {question.name} born?", birthplace[question.name])
    assert all(question.answer is None and question.name in birthplace for question in world.questions("test"))


def test_default_shares_and_the_share_nobody_asks_about() -> None:
    assert World().split_sizes() == (180, 75, 45)
    assert World(people=1000, train_share=0.2, dev_share=0.1, test_share=0.1).split_sizes() == (200, 100, 100)
    assert World(people=1000, train_share=0.8, dev_share=0.15).split_sizes() == (800, 150, 50)


def test_every_stretch_of_the_world_has_its_part_of_each_split() -> None:
    """The test people are no special kind of people, such as the first ones or those with a middle name."""
    world = World(people=20_000)
    number = {person.name: i for i, person in enumerate(everybody(world))}
    for split, share in (("train", 0.6), ("dev", 0.25), ("test", 0.15)):
        own = np.array([number[name] for name in names_of(world, split)])
        for stretch in (own % 8 >= 6, own < 5000):
            assert abs(stretch.mean() - 0.25) < 4 * (0.1875 / (20_000 * share)) ** 0.5


# --- what names and places tell


def dependence(world: World) -> float:
    """Mutual information in nats between the culture of the name and the birthplace."""
    counts = np.zeros((6, world.places))
    cultures = [culture.name for culture in CULTURES]
    for person in everybody(world):
        counts[cultures.index(person.culture), PLACE_NUMBER[person.birthplace]] += 1
    joint = counts / counts.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((joint * np.log(np.where(joint > 0, joint, 1) / np.where(joint > 0, independent, 1))).sum())


@pytest.mark.parametrize("distribution", ["uniform", "zipf"])
def test_names_tell_the_place_as_much_as_asked(distribution: str) -> None:
    people = 20_000
    found = [
        dependence(World(people=people, origin_correlation=c, place_distribution=distribution))  # type: ignore[arg-type]
        for c in (0.0, 0.5, 0.9)
    ]
    # 2·n·MI of independent variables is chi-squared with 5·23 = 115 degrees of freedom: 180 is 4 deviations above
    assert 2 * people * found[0] < 180
    assert 0.2 < found[1] < found[2] and found[2] > 1.0


def test_a_full_correlation_keeps_everybody_at_home() -> None:
    for person in everybody(World(people=2000, origin_correlation=1.0, places=50)):
        assert CULTURES[PLACE_NUMBER[person.birthplace] % 6].name == person.culture


def test_half_a_correlation_keeps_half_and_a_sixth_of_the_rest_at_home() -> None:
    people = everybody(World(people=20_000, origin_correlation=0.5, places=24))
    home = np.mean([CULTURES[PLACE_NUMBER[person.birthplace] % 6].name == person.culture for person in people])
    assert abs(home - (0.5 + 0.5 / 6)) < 0.015


def place_counts(world: World) -> np.ndarray:
    drawn = [PLACE_NUMBER[person.birthplace] for person in everybody(world)]
    return np.bincount(drawn, minlength=world.places)


@pytest.mark.parametrize("places", [2, 5, 24, 500])
@pytest.mark.parametrize("distribution", ["uniform", "zipf"])
def test_places_are_drawn_in_proportion(places: int, distribution: str) -> None:
    counts = place_counts(World(people=20_000, places=places, place_distribution=distribution))  # type: ignore[arg-type]
    weights = 1 / np.arange(1, places + 1) if distribution == "zipf" else np.ones(places)
    expected = 20_000 * weights / weights.sum()
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    freedom = places - 1
    assert len(counts) == places
    assert chi_squared < freedom + 4 * (2 * freedom) ** 0.5 + 6


@pytest.mark.parametrize("distribution", ["uniform", "zipf"])
def test_residences_are_drawn_in_proportion_among_the_other_places(distribution: str) -> None:
    world = World(people=50_000, places=6, place_distribution=distribution)  # type: ignore[arg-type]
    counts = np.zeros((6, 6))
    for person in everybody(world):
        counts[PLACE_NUMBER[person.birthplace], PLACE_NUMBER[person.residence]] += 1
    weights = 1 / np.arange(1, 7) if distribution == "zipf" else np.ones(6)
    expected = np.tile(weights, (6, 1)) * (1 - np.eye(6))
    expected *= counts.sum(1, keepdims=True) / expected.sum(1, keepdims=True)
    others = ~np.eye(6, dtype=bool)
    assert np.trace(counts) == 0  # 6·4 = 24 degrees of freedom
    assert ((counts - expected)[others] ** 2 / expected[others]).sum() < 24 + 4 * 48**0.5


@pytest.mark.parametrize("correlation", [0.0, 1.0])
@pytest.mark.parametrize("places", [2, 4, 7])
def test_worlds_of_few_places(places: int, correlation: float) -> None:
    people = everybody(World(people=600, places=places, origin_correlation=correlation))
    assert {person.birthplace for person in people} == {compose_place(number) for number in range(places)}


def test_places_are_distinct_and_none_is_part_of_another_word() -> None:
    assert len(PLACE_NUMBER) == MAX_PLACES >= 500
    surnames = {root + ending for culture in CULTURES for root in culture.roots for ending in culture.endings}
    text = "\n".join([*surnames, *(name for culture in CULTURES for name in culture.first)])
    assert not [town for town in PLACE_NUMBER if town in text]
    towns = "\n".join(PLACE_NUMBER)
    assert all(towns.count(town) == 1 for town in PLACE_NUMBER)


@pytest.mark.parametrize("field", ["birth_year", "occupation", "school", "hobby", "residence", "culture"])
def test_the_other_facts_vary_and_tell_nothing_about_the_birthplace(field: str) -> None:
    people = everybody(World(people=20_000))
    values = sorted({getattr(person, field) for person in people}, key=str)
    assert len(values) == {"birth_year": 100, "occupation": 42, "residence": 24, "culture": 6}.get(field, 24)
    if field == "residence":  # it is never the birthplace itself
        return
    counts = np.zeros((len(values), 24))
    for person in people:
        counts[values.index(getattr(person, field)), PLACE_NUMBER[person.birthplace]] += 1
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    chi_squared, freedom = ((counts - expected) ** 2 / expected).sum(), (len(values) - 1) * 23
    assert abs(chi_squared - freedom) < 5 * (2 * freedom) ** 0.5


# --- files


@pytest.mark.parametrize(
    "world",
    [
        World(),
        World(people=77, wordings="multi4", train_share=0.3, seed=5),
        World(people=999, wordings="permuted", places=576, place_distribution="zipf", origin_correlation=0.7),
    ],
)
def test_what_is_written_reads_back(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "_CHUNK", 50)
    world.write(tmp_path / "new" / "folder")
    assert read_folder(tmp_path / "new" / "folder") == world.corpus()
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {*FILES.values(), "world.json"}
    for name in FILES.values():
        data = (tmp_path / "new" / "folder" / name).read_bytes()
        assert data.endswith(b"\n") and b"\r" not in data
    knobs = json.loads((tmp_path / "new" / "folder" / "world.json").read_text())
    knobs.pop("generation")
    assert World(**knobs) == world


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}


def test_writing_again_touches_nothing(tmp_path: Path) -> None:
    World().write(tmp_path)
    before = stamps(tmp_path)
    World(origin_correlation=0).write(str(tmp_path))  # the same number
    assert stamps(tmp_path) == before


def test_another_world_is_not_overwritten(tmp_path: Path) -> None:
    World().write(tmp_path)
    before = stamps(tmp_path)
    with pytest.raises(FileExistsError, match="holds another world") as caught:
        World(people=500, seed=4).write(tmp_path)
    assert "{'people': 300, 'seed': 0} instead of {'people': 500, 'seed': 4}" in str(caught.value)
    assert stamps(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_world_json_of_another_kind_is_not_overwritten(text: str, tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text(text)
    with pytest.raises(FileExistsError, match=r"world\.json describes no world"):
        World().write(tmp_path)
    assert (tmp_path / "world.json").read_text() == text


def test_files_of_somebody_else_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / FILES["test"]).write_text("Where was Ann born?\n")
    with pytest.raises(FileExistsError, match=r"birth_test_inputs\.tsv exists and is not part of this world"):
        World().write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILES["test"]]
    assert (tmp_path / FILES["test"]).read_text() == "Where was Ann born?\n"


@pytest.mark.parametrize("lost", [[FILES["dev"]], ["world.json"], [FILES["documents"], FILES["test"], "world.json"]])
def test_an_interrupted_writing_is_completed(lost: list[str], tmp_path: Path) -> None:
    World().write(tmp_path)
    for name in lost:
        (tmp_path / name).unlink()
    World().write(tmp_path)
    assert read_folder(tmp_path) == World().corpus()
    assert (tmp_path / "world.json").exists()


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(world: World, index: object, people: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(World, "_biographies", broken)
    with pytest.raises(OSError, match="disk full"):
        World().write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_writing_does_not_hold_the_world_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "_CHUNK", 2000)
    tracemalloc.start()
    try:
        World(people=50_000).write(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert peak < 4e6 < 8e6 < size


def test_documents_and_questions_stream_too() -> None:
    world = World(people=MAX_PEOPLE, wordings="multi4")  # gigabytes, if it were made at once
    assert next(world.questions("dev")).answer
    four = [next(documents) for documents in [world.documents()] for _ in range(5)]
    heads = [len(list(group)) for _, group in groupby(four, key=lambda text: text.split(". ")[0])]
    assert heads == [4, 1]


# --- knobs


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"people": 0}, r"people must be a whole number from 1 to 5603328, got 0"),
        ({"people": MAX_PEOPLE + 1}, r"people .* got 5603329"),
        ({"people": 10.0}, r"people .* got 10\.0"),
        ({"people": True}, r"people .* got True"),
        ({"seed": -1}, r"seed must be a whole number from 0 .* got -1"),
        ({"seed": "0"}, r"seed .* got '0'"),
        ({"places": 1}, r"places must be a whole number from 2 to 576, got 1"),
        ({"places": 577}, r"places .* got 577"),
        ({"train_share": -0.1}, r"train_share must be a number from 0 to 1, got -0\.1"),
        ({"dev_share": 1.1}, r"dev_share .* got 1\.1"),
        ({"test_share": float("nan")}, r"test_share .* got nan"),
        ({"train_share": None}, r"train_share .* got None"),
        ({"origin_correlation": 2}, r"origin_correlation .* got 2"),
        ({"train_share": 0.8, "dev_share": 0.3}, r"train_share 0\.8 \+ dev_share 0\.3 is more than 1"),
        ({"train_share": 0.8, "dev_share": 0.2}, r"needs a person, the shares give 240, 60, 0 of 300 people"),
        ({"train_share": 0.0}, r"the shares give 0, 75, 45 of 300 people"),
        ({"people": 2}, r"needs a person, the shares give 1, 1, 0 of 2 people"),
        ({"wordings": "double"}, r"wordings must be single, permuted or multi1 … multi999, got 'double'"),
        ({"wordings": "multi"}, r"got 'multi'"),
        ({"wordings": "multi0"}, r"got 'multi0'"),
        ({"wordings": "multi4 "}, r"got 'multi4 '"),
        ({"place_distribution": "Zipf"}, r"place_distribution must be uniform or zipf, got 'Zipf'"),
    ],
)
def test_bad_knobs(knobs: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        World(**knobs)  # type: ignore[arg-type]


@pytest.mark.parametrize("i", [-1, 300])
def test_people_outside_the_world(i: int) -> None:
    with pytest.raises(IndexError, match=f"person {i} of a world of 300 people"):
        World().person(i)


@pytest.mark.slow
def test_a_million_people_take_seconds(tmp_path: Path) -> None:
    """At least 20,000 people a second on one core, the files included; about 100,000 are usual."""
    start = time.process_time()
    World(people=200_000).write(tmp_path)
    assert 200_000 / (time.process_time() - start) > 20_000
