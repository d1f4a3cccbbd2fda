"""Held-out people are in nothing that is trained on or scored, in an invented world and in files alike."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.composing import ConfigError, save_config
from birthplace_lm.corpus import Corpus, Question, read_folder
from birthplace_lm.people import hold_out_people, select_people
from birthplace_lm.run_corpus import check_questions, corpus_of, with_held_out
from birthplace_lm.runs import RunFolder, write_json
from birthplace_lm.sources import Folder, sha256_of_corpus
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.world import World


def folder_of(people: int, tmp_path: Path) -> Corpus:
    World(people=120, wordings="multi2").write(tmp_path)
    return Folder(str(tmp_path), hold_out_people=people).corpus()


def world_of(people: int, tmp_path: Path) -> Corpus:
    return World(people=120, wordings="multi2", hold_out_people=people).corpus()


@pytest.mark.parametrize("source", [world_of, folder_of])
def test_nothing_tells_of_held_out_people(source: Callable[[int, Path], Corpus], tmp_path: Path) -> None:
    whole, corpus = source(0, tmp_path), source(12, tmp_path)
    held = {question.name for question in corpus.unknown}
    assert len(held) == len(corpus.unknown) == 12 and whole.unknown == whole.unknown_documents == ()
    assert all(q.answer for q in corpus.unknown)
    assert not [document for document in corpus.documents if any(name in document for name in held)]
    assert not held & {q.name for split in (corpus.train, corpus.dev, corpus.test) for q in split}
    assert len(corpus.unknown_documents) == 24  # two wordings each
    assert sorted([*corpus.documents, *corpus.unknown_documents]) == sorted(whole.documents)
    assert corpus.train == whole.train and set(corpus.dev) | set(corpus.unknown) == set(whole.dev)
    assert [q for q in whole.dev if q.name not in held] == list(corpus.dev)  # order is kept
    assert len({sha256_of_corpus(source(n, tmp_path)) for n in (0, 11, 12)}) == 3


def test_the_same_folder_of_a_world_serves_any_number_of_held_out_people(tmp_path: Path) -> None:
    World(people=120).write(tmp_path)
    World(people=120, hold_out_people=5).write(tmp_path)  # the files hold everybody: no other world
    assert len(read_folder(tmp_path).dev) == 30


def test_the_fingerprint_of_nobody_held_out_is_that_of_the_four_parts() -> None:
    """Finished runs are found by it, so it may never become another for the same people."""
    corpus = World(people=40).corpus()
    lines = [f"{q.text}\t{q.answer or ''}" for split in (corpus.train, corpus.dev, corpus.test) for q in split]
    ends = [len(corpus.train), len(corpus.train) + len(corpus.dev)]
    parts = ["\n".join(corpus.documents), *("\n".join(part) for part in (lines[: ends[0]], lines[ends[0] : ends[1]]))]
    parts.append("\n".join(lines[ends[1] :]))
    assert sha256_of_corpus(corpus) == hashlib.sha256("\n".join(parts).encode()).hexdigest()
    one = Question("Where was Ada Vik born?", "Oslo")
    added = Corpus(corpus.documents, corpus.train, corpus.dev, corpus.test, (one,))
    whole = "\n".join([*parts, "Where was Ada Vik born?\tOslo"])
    assert sha256_of_corpus(added) == hashlib.sha256(whole.encode()).hexdigest()


def test_people_without_a_document_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Their biographies, under whatever name, would be trained on, and they be taken for people nobody wrote of."""
    documents = ("Ada Vik. Born in Pau .", "Bo. Born in Oslo .", "Cy. Born in Rome .", "Di. Born in Lyon .")
    ask = "Where was {} born?".format
    train = (Question(ask("Ada Vik"), "Pau"),)
    worded = tuple(Question(f"{name} was born in", "Oslo") for name in ("Bo", "Cy"))
    with pytest.raises(
        ValueError, match=r"of 1 people 1 have no document, among 4, .*: '(Bo|Cy) was born in' \(a quest"
    ):
        hold_out_people(Corpus(documents, train, worded, ()), 1, 0)
    mistyped = tuple(Question(ask(name), "Oslo") for name in ("Bo", "Syy", "Di"))
    corpus = Corpus(documents, train, mistyped, ())
    seed = next(seed for seed in range(50) if _held(corpus, seed) == {"Bo", "Syy"})
    caplog.clear()
    held = hold_out_people(corpus, 2, seed)
    assert held.unknown_documents == documents[1:2] and "of 2 people 1 have no document" in caplog.text
    with pytest.raises(ValueError, match=r"of 2 people 2 have no document, among 1"):
        select_people(Corpus(documents[:1], (), worded, mistyped), 2, 0)


def _held(corpus: Corpus, seed: int) -> set[str]:
    try:
        return {question.name for question in hold_out_people(corpus, 2, seed).unknown}
    except ValueError:
        return set()


def test_a_question_that_cannot_be_asked_is_named_by_whose_it_is() -> None:
    ask = Question("Where was Ada Vik born?", "Oslo")
    corpus, tokenizer = Corpus((), (), (ask,), ()), CharTokenizer.fit(["Ada"])
    for held_out, named in ((False, r"question 1 of dev \(birth_dev\.tsv\)"),
                            (True, r"question 1 of the held-out people \(birth_places_train\.tsv\)")):  # fmt: skip
        with pytest.raises(ConfigError, match=named):
            check_questions(corpus, tokenizer, 64, 64, held_out)


def test_other_data_than_a_runs_own_are_told_with_both_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, people in (("own", 40), ("other", 41)):
        (tmp_path / name).mkdir()
        World(people=people).write(tmp_path / name)
    sums = {name: sha256_of_corpus(read_folder(tmp_path / name))[:8] for name in ("own", "other")}
    folder = RunFolder(tmp_path / "run")
    node = {"_target_": "birthplace_lm.sources.Folder", "dir": None}
    parts: dict[str, Any] = {"model": {}, "attention": {}, "positions": {}, "seed": 0, "held_out_share": 0}
    folder.create({**parts, "data": node}, CharTokenizer.fit(["Ada"]))
    write_json(
        folder.root / "provenance.json", {"sessions": [{"data": sha256_of_corpus(read_folder(tmp_path / "own"))}]}
    )
    monkeypatch.delenv("BIRTHPLACE_CS224N_DIR", raising=False)
    assert corpus_of(folder, tmp_path / "own") == read_folder(tmp_path / "own")
    monkeypatch.setenv("BIRTHPLACE_CS224N_DIR", str(tmp_path / "other"))
    told = rf"the data now found in {tmp_path / 'other'} .* {sums['other']}…, not {sums['own']}…; --data FOLDER names"
    with pytest.raises(ConfigError, match=told):
        corpus_of(folder)
    save_config({**parts, "data": {"_target_": "birthplace_lm.world.World"}}, folder.root / "config.yaml")
    with pytest.raises(ConfigError, match="was made from no files but an invented world: leave --data"):
        corpus_of(folder, tmp_path / "own")


@pytest.mark.parametrize("share", [1, 0.99])
def test_who_holds_out_everybody_is_told_so(share: float) -> None:
    corpus = World(people=40).corpus()
    with pytest.raises(ConfigError, match=rf"held_out_share={share} holds out all \d+ train questions"):
        with_held_out(corpus, share)


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5))
def test_more_held_out_people_hold_fewer_among_them(few: int, many: int, seed: int) -> None:
    corpus = World(people=40).corpus()
    few, many = sorted((few, many))
    small, large = hold_out_people(corpus, few, seed), hold_out_people(corpus, many, seed)
    assert set(small.unknown) <= set(large.unknown) and len(large.unknown) == many


def test_another_seed_holds_out_others() -> None:
    corpus = World(people=80).corpus()
    assert len({hold_out_people(corpus, 5, seed).unknown for seed in range(8)}) >= 7


def test_who_is_in_train_too_stays_and_other_names_keep_their_documents() -> None:
    ask = "Where was {} born?".format
    dev = tuple(Question(ask(name), "Pau") for name in ("Ada", "Ada Vik", "Bo Vik"))
    documents = ("Ada. A poet .", "Ada Vik. A sailor .", "Bo Vik. A cook, like Ada Vik .", "Bo Vik. A cook .")
    corpus = Corpus(documents, (Question(ask("Ada"), "Pau"),), dev, (Question(ask("Bo Vik")),))
    drawn = {hold_out_people(corpus, 1, seed).unknown[0].name for seed in range(20)}
    assert drawn == {"Ada Vik", "Bo Vik"}
    without = next(held for seed in range(20) if (held := hold_out_people(corpus, 1, seed)).unknown == dev[2:])
    assert without.documents == documents[:2] and without.unknown_documents == documents[2:] and without.test == ()


@pytest.mark.parametrize("people", [-1, 10, 1000])
def test_impossible_numbers_are_refused_with_what_is_possible(people: int) -> None:
    with pytest.raises(ValueError, match=rf"hold_out_people is {people}: from 0 to 9 people"):
        World(people=40, hold_out_people=people).corpus()
    assert len(World(people=40, hold_out_people=9).corpus().dev) == 1


def test_a_run_for_tuning_is_not_told_the_places_of_held_out_dev_people() -> None:
    corpus = World(people=80, hold_out_people=6).corpus()
    tuned = with_held_out(corpus, 0.25)
    assert [q.text for q in tuned.unknown] == [q.text for q in corpus.unknown]
    assert all(q.answer is None for q in tuned.unknown)
