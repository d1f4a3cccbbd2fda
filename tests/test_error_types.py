"""Every wrong answer gets one type, the first that fits; the expected numbers are those of a guesser."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from birthplace_lm.corpus import Question
from birthplace_lm.evaluation.error_types import NO_PLACE, TYPES, error_types, name_ends, names_place
from birthplace_lm.evaluation.slices import by_name_script


def born(name: str, place: str | None = None) -> Question:
    return Question(f"Where was {name} born?", place)


# Twelve places, P00 the most frequent; the persons of train share no name with anybody else.
TRAIN = [born(f"A{place}{i} B{place}{i}", f"P{place:02}") for place in range(12) for i in range(20 - place)]
COUNTRIES = {f"P{place:02}": "even" if place % 2 == 0 else "odd" for place in range(12)}


def types_of(prediction: str, question: Question, documents: list[str], train: list[Question] = TRAIN) -> list[str]:
    rows = error_types([prediction], [question], train, documents, COUNTRIES)["types"]
    return [kind for kind, row in rows.items() if row["count"]]


def test_each_type_and_the_order_among_them() -> None:
    ada = born("Ada Vik", "P00")
    document = ["Ada Vik. Born in P00, lives in P01 ."]
    namesakes = [*TRAIN, born("Ada Lund", "P02"), born("Bo Vik", "P01"), born("Vik Ada", "P03")]
    assert types_of("P00", ada, document) == []
    assert types_of("P01", ada, document, namesakes) == ["own document"]  # before a namesake's
    assert types_of("P01", ada, ["Ada Vik. Born in P00 ."], namesakes) == ["namesake's place"]
    assert types_of("P02", ada, document, namesakes) == ["namesake's place"]  # before right country and frequent
    assert types_of("P03", ada, document, namesakes) == ["frequent place"]  # a surname is not a first name
    assert types_of("P04", ada, document) == ["right country"]  # before frequent
    assert types_of("P11", ada, document) == ["known place"]
    assert types_of("P10", ada, document) == ["right country"]
    for nothing in ("", "P0", "in", "Pau", "Vi"):
        assert types_of(nothing, ada, document) == ["no known place"], nothing


def test_without_countries_their_type_is_left_out() -> None:
    result = error_types(["P04"], [born("Ada Vik", "P00")], TRAIN, [])
    assert list(result["types"]) == [kind for kind in TYPES if kind != "right country"]
    assert result["types"]["frequent place"]["count"] == 1
    assert result["right_country"]["value"] is None and result["right_country"]["why"] == "countries are not known"
    told = error_types(["P04"], [born("Ada Vik", "P00")], TRAIN, [], why_no_countries="no atlas")
    assert told["right_country"]["why"] == "no atlas"


def test_the_right_country_counts_right_answers_too_and_only_people_with_a_country() -> None:
    questions = [born(f"Ada{i} Vik", place) for i, place in enumerate(["P00", "P00", "P02", "P01", "Atlantis"])]
    row = error_types(["P00", "P02", "P01", "nowhere", "Atlantis"], questions, TRAIN, [], COUNTRIES)["right_country"]
    assert (row["count"], row["total"]) == (2, 4)
    wrong = row["of_wrong"]
    assert (wrong["count"], wrong["total"]) == (1, 3)
    weights = {place: 20 - int(place[1:]) for place in COUNTRIES}  # of the train people
    odds = []
    for answer in ("P00", "P02", "P01"):
        others = {place: weight for place, weight in weights.items() if place != answer}
        alike = sum(weight for place, weight in others.items() if COUNTRIES[place] == COUNTRIES[answer])
        odds.append(alike / sum(others.values()))
    assert wrong["expected"] == pytest.approx(sum(odds)) and (wrong["expected_low"], wrong["expected_high"]) == (0, 3)
    right = error_types(["P00"], questions[:1], TRAIN, [], COUNTRIES)["right_country"]
    assert right["value"] == 1 and right["of_wrong"]["expected"] is None and "no wrong" in right["of_wrong"]["why"]
    nobody = error_types(["P00"], questions[4:], TRAIN, [], COUNTRIES)["right_country"]
    assert nobody["why"] == "there are no people whose birthplace has a known country"
    assert "right country" not in error_types(["P00"], questions[4:], TRAIN, [], COUNTRIES)["types"]
    assert "right country" not in error_types(["P01"], questions[:1], TRAIN, [], {})["types"]


def test_a_place_is_whole_words_of_the_own_document_behind_the_name() -> None:
    assert names_place("Born in New York .", "York") and not names_place("Born in Yorkshire .", "York")
    assert not names_place("Born in Oslo .", "in") and not names_place("Born .", "")
    assert types_of("Paris", born("Paris Vik", "P00"), ["Paris Vik. Born in P00 ."]) == ["no known place"]


def test_a_part_of_the_right_answer_is_no_other_place_of_the_document() -> None:
    ada, told = born("Ada Vik", "New York City"), "Ada Vik. Born in New York City"
    assert types_of("New York", ada, [f"{told} ."]) == ["no known place"]
    assert types_of("New York", ada, [f"{told}, died in New York ."]) == ["own document"]


@pytest.mark.parametrize(
    ("answer", "said"), [("York", "New York"), ("India", "Indiana"), ("Ada", "Ada Ada"), ("New York", "York")]
)
def test_a_place_that_holds_the_right_answer_is_another_place_of_the_document(answer: str, said: str) -> None:
    """Where it stands by itself, that is; what a guesser is expected to have goes by the same rule."""
    train = [born("Max Ott", said), *(born(f"A{i} B{i}", "P00") for i in range(3))]
    ada, document = born("Ada Vik", answer), f"Ada Vik. Born in {answer}, she lived in {said} ."
    own = error_types([said], [ada], train, [document])["types"]["own document"]
    assert own["count"] == 1 and own["expected"] == 0.25
    born_there = error_types([said], [ada], train, [f"Ada Vik. Born in {answer} ."])["types"]["own document"]
    assert born_there["count"] == 0 == born_there["expected"]


def test_the_document_of_somebody_who_is_not_asked_about_is_not_the_own_one() -> None:
    document = "Jon S. Vik. Born in P00, lives in P01 ."
    train, others = [*TRAIN, born("Jon S. Vik", "P00")], ["Jon S. Vik"]
    for row in (
        error_types(["P01"], [born("Jon S", "P00")], train, [document]),
        error_types(["P01"], [born("Jon S", "P00")], TRAIN, [document], others=others),
    ):
        assert row["types"]["own document"]["count"] == 0 == row["types"]["own document"]["expected"]


def test_nothing_wrong_is_not_defined_and_bad_input_is_refused() -> None:
    right = error_types(["P00"], [born("Ada Vik", "P00")], TRAIN, [])
    assert right["wrong"] == 0
    assert all(row["value"] is None and row["why"] == "there are no wrong answers" for row in right["types"].values())
    assert all(
        row["expected"] is row["expected_low"] is row["expected_high"] is None for row in right["types"].values()
    )
    assert error_types([], [], TRAIN, [])["total"] == 0
    with pytest.raises(ValueError, match="1 predictions for 0 questions"):
        error_types(["P00"], [], TRAIN, [])
    with pytest.raises(ValueError, match="no answer"):
        error_types(["P00"], [born("Ada Vik")], TRAIN, [])
    with pytest.raises(ValueError, match="0 of 0 train questions"):
        error_types(["P00"], [born("Ada Vik", "P00")], [], [])


words = st.sampled_from(["Ada", "Bo", "Vik", "Lund"])
places = st.sampled_from(["P00", "P01", "P05", "P11", "Nowhere"])


@given(st.lists(st.tuples(words, words, places, places), max_size=20))
def test_types_share_out_the_wrong_answers(rows: list[tuple[str, str, str, str]]) -> None:
    questions = [born(f"{first} {last}", answer) for first, last, answer, _ in rows]
    predictions = [prediction for *_, prediction in rows]
    train = [*TRAIN, *questions[::2]]
    documents = [f"{question.name}. In P01 and P05 ." for question in questions[::3]]
    result = error_types(predictions, questions, train, documents, COUNTRIES)
    wrong = sum(p != q.answer for p, q in zip(predictions, questions, strict=True))
    assert sum(row["count"] for row in result["types"].values()) == result["wrong"] == wrong
    assert sum(row["expected"] or 0.0 for row in result["types"].values()) == pytest.approx(wrong)


def test_expected_is_the_mean_over_guessers() -> None:
    """Guessers who draw places like the train people's, and are wrong, make the expected mixture of types."""
    rng = random.Random(0)
    questions = [born(f"A{i}0 Vik{i}", f"P{i % 12:02}") for i in range(40)]
    documents = [f"{question.name}. In P0{i % 7}, then in P03 ." for i, question in enumerate(questions)]
    marginal = [question.answer or "" for question in TRAIN]
    totals: Counter[str] = Counter()
    for _ in range(300):
        guesses = []
        for question in questions:
            while (guess := rng.choice(marginal)) == question.answer:
                pass
            guesses.append(guess)
        result = error_types(guesses, questions, TRAIN, documents, COUNTRIES)
        totals.update({kind: row["count"] for kind, row in result["types"].items()})
    for kind, row in result["types"].items():
        assert totals[kind] / 300 == pytest.approx(row["expected"], abs=0.6), kind  # over 300 draws, 3 standard errors
    assert row["expected"] == 0 and result["types"]["own document"]["expected"] > 4


def test_what_is_expected_has_the_interval_of_guessers() -> None:
    """Half of the people, by lot, could be guessed by their biography: a sum of W draws, not their mean's interval."""
    rng = random.Random(0)
    questions = [born(f"A{i}0 Vik{i}", "P00") for i in range(400)]
    documents = [f"{question.name}. In P01 ." for question in questions if rng.random() < 0.5]
    row = error_types(["?"] * 400, questions, TRAIN, documents, COUNTRIES)["types"]["own document"]
    share = 19 / (174 - 20)  # P01's of the train people but those of P00
    assert row["expected"] == pytest.approx(len(documents) * share)
    low, high = stats.binom.ppf([0.025, 0.975], len(documents), share)
    assert row["expected_low"] == pytest.approx(low, abs=1.1) and row["expected_high"] == pytest.approx(high, abs=1.1)


def test_where_there_is_no_other_place_nothing_is_expected() -> None:
    """All train people are of Rome, so a guesser who may not say Rome says nothing."""
    train, asked = [born("Ada Vik", "Rome")], [born("Bo Lund", "Rome"), born("Cy Oda", "Rome")]
    rows = error_types(["Pau", "Oslo"], asked, train, [])["types"]
    assert rows[NO_PLACE]["count"] == 2
    assert {row[what] for row in rows.values() for what in ("expected", "expected_low", "expected_high")} == {None}


def test_name_ends() -> None:
    assert name_ends("Ada") == (("first", "Ada"),)
    assert name_ends("Ada van Vik") == (("first", "Ada"), ("last", "Vik"))


def test_scores_by_script() -> None:
    names = ["Ada Vik", "Łukasz Żak", "Zoë O’Dwyer", "Zoë", "Яна Вик", "Ada 龍"]
    table = by_name_script(["P"] * 5 + ["Q"], [born(name, "P") for name in names])
    assert {label: (row["correct"], row["total"]) for label, row in table.items()} == {
        "ASCII": (1, 1), "Latin with diacritics": (3, 3), "other": (1, 2),
    }  # fmt: skip
