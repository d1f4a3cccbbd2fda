"""Slices share the questions out without loss; offsets agree with the figures known of the course's data."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthplace_lm.corpus import Question, read_folder
from birthplace_lm.evaluation.slices import (
    all_slices,
    answer_ends,
    by_answer_end,
    by_presence,
    by_train_frequency,
    documents_by_name,
    name_script,
)


def born(name: str, place: str | None = None) -> Question:
    return Question(f"Where was {name} born?", place)


def sizes(table: dict[str, dict[str, object]]) -> dict[str, object]:
    return {label: row["total"] for label, row in table.items() if row["total"]}


def test_places_fall_into_the_slice_of_their_train_count() -> None:
    counts = {"A": 0, "B": 1, "C": 2, "D": 4, "E": 5, "F": 9, "G": 10, "H": 24, "I": 25, "J": 90}
    train = [born(f"{place} {i}", place) for place, count in counts.items() for i in range(count)]
    questions = [born(f"X {place}", place) for place in counts]
    table = by_train_frequency(["A"] + ["?"] * 8 + ["J"], questions, train)
    assert list(table) == ["0", "1", "2–4", "5–9", "10–24", "≥25"]
    assert sizes(table) == {"0": 1, "1": 1, "2–4": 2, "5–9": 2, "10–24": 2, "≥25": 2}
    assert [row["correct"] for row in table.values()] == [1, 0, 0, 0, 0, 1]


def test_answers_fall_into_the_slice_of_their_end() -> None:
    wanted = {40: "≤40", 41: "41–60", 60: "41–60", 61: "61–80", 80: "61–80", 81: "81–112", 112: "81–112", 113: ">112"}
    for end, label in wanted.items():
        document = "Jon Vik. " + "x" * (end - 13) + "Oslo, and Oslo again ."
        question = [born("Jon Vik", "Oslo")]
        assert answer_ends(question, [document]) == [end]
        assert sizes(by_answer_end(["Oslo"], question, [document])) == {label: 1}


def test_an_answer_that_stands_nowhere_is_absent() -> None:
    questions = [born("Jon Vik", "Oslo"), born("Ada Byrne", "Cork"), born("No Body", "Rome")]
    documents = ["Jon Vik. A painter .", "Ada Byrne. Born in Cork ."]
    assert answer_ends(questions, documents) == [None, 23, None]
    assert sizes(by_answer_end(["", "", ""], questions, documents)) == {"≤40": 1, "absent": 2}
    table = by_presence(["Oslo", "Oslo", "Rome"], questions, documents)
    counts = {label: (row["correct"], row["total"]) for label, row in table.items()}
    assert counts == {"present": (0, 1), "absent": (2, 2)}


def test_an_answer_is_sought_behind_the_name() -> None:
    """A place in the person's own name tells nothing: whether and where the biography gives it is asked."""
    questions = [born("Paris Hilton", "Paris"), born("Aaron of Lincoln", "Lincoln")]
    documents = ["Paris Hilton. An heiress .", "Aaron of Lincoln. Born in Lincoln ."]
    assert answer_ends(questions, documents) == [None, len("Aaron of Lincoln. Born in Lincoln")]
    assert sizes(by_presence(["", ""], questions, documents)) == {"present": 1, "absent": 1}


def test_a_document_belongs_to_the_longest_name() -> None:
    documents = ["John A. Smith. First .", "John A. Second .", "John. Third .", "John A. Smith. Fourth ."]
    owned = documents_by_name(["John", "John A", "John A. Smith", "Joh", "A"], documents)
    assert owned == {"John A. Smith": documents[0], "John A": documents[1], "John": documents[2]}
    assert documents_by_name(["No I.D."], ["No I.D.. A rapper ."]) == {"No I.D.": "No I.D.. A rapper ."}
    assert documents_by_name([], documents) == {}


def test_the_document_of_somebody_who_is_not_asked_about_goes_to_nobody_else() -> None:
    """Only the train people, or the others, tell that the first document is not about Jon S."""
    documents = ["Jon S. Vik. Born in Oslo .", "Jon S. A poet ."]
    assert documents_by_name(["Jon S"], documents, others=["Jon S. Vik"]) == {"Jon S": documents[1]}
    asked, vik = [born("Jon S", "Oslo")], born("Jon S. Vik", "Oslo")
    for train, others in (([vik], []), ([], ["Jon S. Vik"])):
        tables = all_slices(["Oslo"], asked, train, documents, others)
        assert sizes(tables["answer_in_document"]) == {"absent": 1} == sizes(tables["answer_end"])


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("Liliʻuokalani", "Latin with diacritics"),
        ("Kahanuʼu Vik", "Latin with diacritics"),
        ("José Mª Nº Vik", "Latin with diacritics"),
        ("Дʼякон Vik", "other"),
        ("佐々木", "other"),  # 々 is no letter of its own, the others are
    ],
)
def test_a_letter_that_belongs_to_no_script_counts_with_those_around_it(name: str, script: str) -> None:
    assert name_script(name) == script


letters = st.text("ab. ", min_size=1, max_size=6)


@given(
    people=st.lists(letters, max_size=8),
    others=st.lists(letters, max_size=3),
    documents=st.lists(st.text("ab. ", max_size=12), max_size=8),
)
def test_documents_by_name_against_the_plain_search(people: list[str], others: list[str], documents: list[str]) -> None:
    expected: dict[str, str] = {}
    for document in documents:
        owners = [name for name in people + others if document.startswith(name + ".")]
        if owners and (owner := max(owners, key=len)) in people:
            expected.setdefault(owner, document)
    assert documents_by_name(people, documents, others) == expected


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("ABCD")), max_size=30))
def test_every_question_is_in_one_slice_of_each_table(pairs: list[tuple[str, str]]) -> None:
    questions = [born(f"N{i}", answer) for i, (_, answer) in enumerate(pairs)]
    documents = [f"N{i}. In A or B ." for i in range(0, len(pairs), 2)]
    predictions = [prediction for prediction, _ in pairs]
    for table in all_slices(predictions, questions, questions, documents).values():
        assert sum(row["total"] for row in table.values()) == len(pairs)
        assert sum(row["correct"] for row in table.values()) == sum(p == a for p, a in pairs)


def test_the_ceilings_of_the_course_data(cs224n: Path) -> None:
    corpus = read_folder(cs224n)
    right = [question.answer or "" for question in corpus.dev]
    tables = all_slices(right, corpus.dev, corpus.train, corpus.documents)
    assert sizes(tables["answer_in_document"]) == {"present": 479, "absent": 21}  # 95.8 % of the names
    ends = sizes(tables["answer_end"])
    assert 500 - ends[">112"] - ends["absent"] == 462  # type: ignore[operator]  # 92.4 %
    frequencies = sizes(tables["train_frequency"])
    assert 500 - frequencies["0"] == 461  # type: ignore[operator]  # 92.2 % of dev answers are train answers
