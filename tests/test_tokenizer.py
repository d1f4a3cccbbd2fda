"""The vocabulary: SPEC'd ids, round trips, and what it refuses."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthplace_lm.corpus import read_folder
from birthplace_lm.tokenizer import MASK, PAD, CharTokenizer, UnknownCharacterError

text = st.text(st.characters(blacklist_characters=PAD + MASK, blacklist_categories=["Cs"]), max_size=60)


@given(st.lists(text, max_size=5))
def test_decoding_undoes_encoding(texts: list[str]) -> None:
    tokenizer = CharTokenizer.fit(texts)
    assert [tokenizer.decode(tokenizer.encode(t)) for t in texts] == texts
    assert len(tokenizer) == len({*"".join(texts), "\n"}) + 2
    assert list(tokenizer.characters[2:]) == sorted(tokenizer.characters[2:])


def test_specials_come_first_and_newline_is_always_there() -> None:
    assert CharTokenizer.fit(["ba"]).characters == (PAD, MASK, "\n", "a", "b")


def test_the_real_text_has_256_ids_and_covers_every_question(cs224n: Path) -> None:
    corpus = read_folder(cs224n)
    tokenizer = CharTokenizer.fit(corpus.documents)
    assert len(tokenizer) == 256
    for question in corpus.train + corpus.dev + corpus.test:
        tokenizer.encode(question.text + (question.answer or ""))


@pytest.mark.parametrize("special", [PAD, MASK])
def test_text_with_a_special_is_refused(special: str) -> None:
    with pytest.raises(ValueError, match=f"U\\+{ord(special):04X}"):
        CharTokenizer.fit(["fine", f"not {special} fine"])


def test_an_unknown_character_is_named_with_its_place() -> None:
    with pytest.raises(UnknownCharacterError, match=r"'ł' \(U\+0142\) at position 3 of 'Pał'"):
        CharTokenizer.fit(["Pau"]).encode("Pał")


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.fit(["Žoë — naïve\u2028"])
    tokenizer.save(tmp_path / "vocabulary.json")
    loaded = CharTokenizer.load(tmp_path / "vocabulary.json")
    assert (loaded.characters, loaded.fingerprint) == (tokenizer.characters, tokenizer.fingerprint)
    assert CharTokenizer.fit(["other"]).fingerprint != loaded.fingerprint


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"characters": ["a", "b"]}), '{"characters": 3}'])
def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"vocabulary\.json"):
        CharTokenizer.load(path)
