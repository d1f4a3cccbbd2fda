"""Reading strictly: each kind of damage with its exact line and column, and clean text exactly as it stands."""

import logging
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthplace_lm.corpus import (
    FILES,
    KNOWN_SHA256,
    Corpus,
    CorpusError,
    MissingCorpusError,
    Question,
    check_cs224n,
    read_documents,
    read_folder,
    read_questions,
    sha256_of,
)
from birthplace_lm.people import hold_out, select_people

GOOD = {
    "documents": "Ann Ö. Born in Åby .\nBob. Born in Rome .\nCy. Born in Oslo .\n",
    "train": "Where was Ann Ö born?\tÅby\n",
    "dev": "Where was Bob born?\tRome\n",
    "test": "Where was Cy born?\n",
}


def write_folder(folder: Path, **changed: str) -> Path:
    for key, text in (GOOD | changed).items():
        (folder / FILES[key]).write_bytes(text.encode())
    return folder


def message(path: Path, data: bytes, kind: str) -> str:
    """The message for a file of these bytes, without the path that it must start with."""
    path.write_bytes(data)
    with pytest.raises(CorpusError) as caught:
        if kind == "documents":
            read_documents(path)
        else:
            read_questions(path, {"answered": True, "open": False, "auto": None}[kind])
    assert str(caught.value).startswith(f"{path}:")
    return str(caught.value).removeprefix(str(path))


ANY_FILE = [
    (b"", ":1:1: the file is empty"),
    (b"\xef\xbb\xbfabcd\tx", ":1:1: a byte order mark"),
    (b"abcd\tx\nab\xef\xbb\xbfcd\tx", ":2:3: a byte order mark"),
    ("abcd\tx\n".encode("utf-16"), ":1:1: the file starts like UTF-16"),
    ("abcd\tx\n".encode("utf-16-le"), ":1:2: a NUL"),
    (b"ab\0cd\tx\n", ":1:3: a NUL"),
    (b"abcd\tx\r\nefgh\ty\r\n", ":1:7: a Windows line end (CRLF)"),
    (b"abcd\tx\nefgh\ry\tz", ":2:5: a lone carriage return"),
    (b"abcd\tx\r", ":1:7: a lone carriage return"),
    ("åååå\tx\nåb□d\ty".encode(), ":2:3: the padding character □"),
    ("abcd\tå⁇".encode(), ":1:7: the mask character ⁇"),
    (
        "åbcd\tx\nå".encode() + "Málaga\n".encode("latin-1"),
        ":2:3: byte 0xE1 is not UTF-8; save the file as UTF-8, it looks like Latin-1",
    ),
    (b"abcd\tx\nab\x92cd\tx\n", ":2:3: byte 0x92 is not UTF-8; save"),
    ("abcd\tx\nefgh\tå".encode()[:-1], ":2:6: the file ends inside a UTF-8 character: it is truncated"),
    ("abcd\t□".encode()[:-1], ":1:6: the file ends inside a UTF-8 character"),
    (b"abcd\tx\n\nefgh\ty", ":2:1: the line is blank"),
    (b"abcd\tx\n\n", ":2:1: the line is blank"),
    ("abcd\tx\n \t \u2028\n".encode(), ":2:1: the line is blank"),
    (b"\n", ":1:1: the line is blank"),
]


@pytest.mark.parametrize("kind", ["documents", "answered"])
@pytest.mark.parametrize(("data", "expected"), ANY_FILE)
def test_damage_of_any_file(tmp_path: Path, data: bytes, expected: str, kind: str) -> None:
    assert message(tmp_path / "a.txt", data, kind).startswith(expected)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("documents", "abcd\nabc\n", ":2:1: the document has 3 characters, under 4; delete"),
        ("documents", "ååå", ":1:1: the document has 3 characters"),
        ("answered", "åb?\tx\ncå?", ":2:4: no tab and answer after the question; write"),
        ("answered", "ab?\tx\ncå?\ty\tz\n", ":2:6: a second tab"),
        ("answered", "åb?\t\tx", ":1:5: a second tab"),
        ("answered", "ab?\tx\n\ty", ":2:1: the question is empty"),
        ("answered", " \ty", ":1:1: the question is empty"),
        ("answered", "åb?\t", ":1:5: the answer is empty"),
        ("answered", "ab?\t \n", ":1:5: the answer is empty"),
        ("answered", " ab?\tx", ":1:1: a space at the start of the question"),
        ("answered", "ab? \tx", ":1:4: a space at the end of the question"),
        ("answered", "ab?\t x", ":1:5: a space at the start of the answer"),
        ("answered", "ab?\txy  ", ":1:7: a space at the end of the answer"),
        ("open", "åb?\ncå?\ty", ":2:4: a tab where no answers are expected; delete"),
        ("open", "ab? ", ":1:4: a space at the end of the question"),
        ("auto", "åb?\ncå?\ty", ":2:4: a tab where no answers are expected (line 1 has none)"),
        ("auto", "ab?\tx\ncå?", ":2:4: no tab and answer after the question (as line 1 has)"),
    ],
)
def test_damage_of_one_kind_of_file(tmp_path: Path, kind: str, text: str, expected: str) -> None:
    assert message(tmp_path / "a.tsv", text.encode(), kind).startswith(expected)


def test_control_bytes_do_not_look_like_latin_1(tmp_path: Path) -> None:
    assert message(tmp_path / "a", b"abcd\x92", "documents").endswith("byte 0x92 is not UTF-8; save the file as UTF-8")


# Any text that a line may hold; the surrogates are no characters.
fields = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r\t\ufeff□⁇"), min_size=4)
    .filter(str.strip)
    .filter(lambda text: text == text.strip(" "))
)


@given(documents=st.lists(fields, min_size=1), final_newline=st.booleans())
def test_documents_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], final_newline: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "documents.txt"
    path.write_bytes(("\n".join(documents) + "\n" * final_newline).encode())
    assert read_documents(path) == tuple(documents)


@given(pairs=st.lists(st.tuples(fields, fields), min_size=1), answered=st.booleans())
def test_questions_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], answered: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "questions.tsv"
    path.write_bytes("\n".join("\t".join(pair if answered else pair[:1]) for pair in pairs).encode())
    expected = tuple(Question(text, answer if answered else None) for text, answer in pairs)
    assert read_questions(path, answered) == read_questions(path, None) == expected


def test_only_the_newline_ends_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Ann\u2028Born\u0085in\u000bÅby\u001c .\nBobby".encode())
    assert read_documents(tmp_path / "a.txt") == ("Ann\u2028Born\u0085in\u000bÅby\u001c .", "Bobby")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Where was Ann born? born?", "Ann born?"),
        ("Where was José d'Ávila Jr. born?", "José d'Ávila Jr."),
        ("Who is Ann?", "Who is Ann?"),
        ("Where was Ann born", "Where was Ann born"),
        ("Where was  born?", "Where was  born?"),
    ],
)
def test_name_of_a_question(text: str, name: str) -> None:
    assert Question(text).name == name


def test_read_folder(tmp_path: Path) -> None:
    corpus = read_folder(str(write_folder(tmp_path)))
    assert corpus.documents == ("Ann Ö. Born in Åby .", "Bob. Born in Rome .", "Cy. Born in Oslo .")
    assert corpus.train == (Question("Where was Ann Ö born?", "Åby"),)
    assert corpus.dev == (Question("Where was Bob born?", "Rome"),)
    assert corpus.test == (Question("Where was Cy born?", None),)


def test_a_bad_line_names_the_file_within_the_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, dev="Where was Bob born?\n")
    with pytest.raises(CorpusError, match=f"^{re.escape(str(tmp_path / 'birth_dev.tsv'))}:1:20: no tab"):
        read_folder(tmp_path)


def test_all_missing_files_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    (tmp_path / FILES["dev"]).unlink()
    (tmp_path / FILES["test"]).unlink()
    (tmp_path / FILES["test"]).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingCorpusError) as caught:
        read_folder(".")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path.resolve()}: birth_dev.tsv, birth_test_inputs.tsv not found")
    for needed in [*FILES.values(), "a5_public.zip", "web.stanford.edu/class/cs224n", "data=world"]:
        assert needed in text
    assert isinstance(caught.value, FileNotFoundError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_names_with_two_places_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("A", "x"), ("B", "y"), ("A", "x"), ("B", "z"), ("C", "u"), ("C", "v"), ("D", "a"), ("D", "b"), ("E", "a"),
            ("E", "b"), ("B", "w")]  # fmt: skip
    write_folder(tmp_path, train="".join(f"Where was {name} born?\t{place}\n" for name, place in rows))
    with caplog.at_level(logging.WARNING):
        assert len(read_folder(tmp_path).train) == len(rows)
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith(f"{tmp_path / FILES['train']}: 4 names have two places")
    assert "B (lines 2 and 4: y, z); C (lines 5 and 6: u, v); D (lines 7 and 8: a, b); …" in text
    assert " A " not in text and " E " not in text


def test_clean_folder_is_read_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_folder(write_folder(tmp_path, train="Where was A born?\tx\nWhere was A born?\tx\n"))
    assert not caplog.records


def test_check_cs224n_names_absent_and_changed_files(tmp_path: Path) -> None:
    (tmp_path / FILES["dev"]).write_text("changed")
    assert check_cs224n(tmp_path) == list(FILES.values())


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_course_files(cs224n: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = read_folder(cs224n)
    assert [len(split) for split in (corpus.documents, corpus.train, corpus.dev, corpus.test)] == [2937, 2000, 500, 437]
    assert sum(map(len, corpus.documents)) + 2936 == 418351
    assert len({question.answer for question in corpus.train}) == 500
    questions = corpus.train + corpus.dev + corpus.test
    assert max(len(question.text + (question.answer or "")) for question in questions) == 68
    names = {question.name for question in questions}
    assert all(document.startswith(tuple(f"{name}." for name in names)) for document in corpus.documents)
    assert "9 names have two places" in caplog.text and "lines 196 and 830: Melbourne, Australia" in caplog.text
    assert {key: sha256_of(cs224n / name) for key, name in FILES.items()} == KNOWN_SHA256
    assert check_cs224n(cs224n) == []
    few = select_people(corpus, 100, 0)  # each question of a person has one document
    assert len({q.name for q in few.train + few.dev + few.test}) == 100
    assert len(few.documents) == len(few.train + few.dev + few.test) >= 100


def people(*names: str) -> Corpus:
    """Two documents and a train question a name; the last name has a test question too."""
    documents = tuple(f"{name}. {text} ." for name in names for text in ("Born in Rome", "A. B. Clark's friend"))
    train = tuple(Question(f"Where was {name} born?", "Rome") for name in names)
    return Corpus((*documents, "Nobody asked. About them ."), train, train[:1], (Question(train[-1].text),))


NAMES = ("Ann", "Ann B", "Ann B. C", "Bob St. John", "Bob St", "Cy", "Dee", "Ed")


@given(count=st.integers(1, len(NAMES) - 1), seed=st.integers())
def test_selected_people_come_with_all_that_is_theirs(count: int, seed: int) -> None:
    corpus = people(*NAMES)
    few = select_people(corpus, count, seed)
    chosen = [question.name for question in few.train]
    assert len(chosen) == count and chosen == [name for name in NAMES if name in chosen]
    assert few.documents == people(*chosen).documents[:-1]
    assert few.dev == tuple(q for q in corpus.dev if q.name in chosen)
    assert few.test == tuple(q for q in corpus.test if q.name in chosen)
    assert few == select_people(corpus, count, seed)
    assert set(chosen) <= {question.name for question in select_people(corpus, count + 1, seed).train}


@pytest.mark.parametrize("count", [-1, 0, len(NAMES), 99])
def test_selecting_everybody_changes_nothing(count: int) -> None:
    corpus = people(*NAMES)
    assert select_people(corpus, count, 0) is corpus


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    corpus, turned = people(*NAMES), people(*NAMES[::-1])
    draws = {frozenset(question.name for question in select_people(corpus, 3, seed).train) for seed in range(20)}
    assert len(draws) > 10
    assert {q.name for q in select_people(turned, 3, 5).train} == {q.name for q in select_people(corpus, 3, 5).train}


@given(share=st.floats(0, 1), seed=st.integers(), repeats=st.lists(st.integers(0, 9), max_size=40))
def test_hold_out_splits_by_name(share: float, seed: int, repeats: list[int]) -> None:
    questions = tuple(Question(f"Where was P{name} born?", str(place)) for place, name in enumerate(repeats))
    kept, held = hold_out(questions, share, seed)
    assert not {question.name for question in kept} & {question.name for question in held}
    for side in (kept, held):  # the order of the file
        assert list(side) == sorted(side, key=questions.index)
    assert len(kept) + len(held) == len(questions)
    names = len(set(repeats))
    expected = round(share * names) or (1 if share and names else 0)
    assert len({question.name for question in held}) == expected
    shuffled = random.Random(seed).sample(questions, len(questions))
    assert set(hold_out(shuffled, share, seed)[1]) == set(held)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_hold_out_refuses_a_bad_share(share: float) -> None:
    with pytest.raises(ValueError, match=f"between 0 and 1, got {share}"):
        hold_out((), share, 0)


def test_reading_needs_no_torch() -> None:
    code = "import sys, birthplace_lm.corpus; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_characters_that_text_may_not_hold_are_the_tokenizers_own(tmp_path: Path) -> None:
    tokenizer = pytest.importorskip("birthplace_lm.tokenizer")
    assert ":1:3: the padding" in message(tmp_path / "a", f"ab{tokenizer.PAD}cd".encode(), "documents")
    assert ":1:3: the mask" in message(tmp_path / "a", f"ab{tokenizer.MASK}cd".encode(), "documents")
