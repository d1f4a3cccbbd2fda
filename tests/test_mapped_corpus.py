"""A mapped corpus is the corpus: the same texts, errors, choices, batches and runs, wherever it lies."""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birthplace_lm import mapped_files, sources
from birthplace_lm.array_cache import ArrayCache
from birthplace_lm.cli import evaluate
from birthplace_lm.composing import ConfigError, build
from birthplace_lm.corpus import FILES, Corpus, CorpusError, Question, read_documents, read_folder, read_questions
from birthplace_lm.corruption import salient_spans
from birthplace_lm.datamodules import BirthplaceDataModule, SpanCorruptionDataModule
from birthplace_lm.jobs import _shown_in_training, prepare
from birthplace_lm.mapped_files import map_folder
from birthplace_lm.mapped_texts import AskedQuestions, Texts, distinct_answers
from birthplace_lm.people import hold_out, hold_out_people, select_people, spread
from birthplace_lm.run_corpus import with_held_out
from birthplace_lm.runs import RunFolder
from birthplace_lm.sources import Folder, sha256_of_corpus
from birthplace_lm.stages import run
from birthplace_lm.token_store import document_store
from birthplace_lm.tokenizer import MASK_ID, PAD_ID, CharTokenizer, UnknownCharacterError
from birthplace_lm.world import World
from tests.helpers import CONFIGS, option
from tests.test_configs import composed
from tests.test_configs import settings as composed_settings
from tests.test_corpus import ANY_FILE, fields, write_folder

BLOCK = 128
CORRUPTIONS = sorted(path.stem for path in (CONFIGS / "corruption").glob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of names with accents, some people with two documents' worth of wordings."""
    path = tmp_path_factory.mktemp("world")
    World(people=60, wordings="multi2", places=6).write(path)
    return path


@pytest.fixture
def mapped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setattr(mapped_files, "_BLOCK", 700)
    return map_folder(folder, ArrayCache(tmp_path / "cache"))


def as_tuples(corpus: Corpus) -> Corpus:
    return Corpus(*(tuple(part) for part in vars(corpus).values()))


def test_a_mapped_folder_holds_what_is_read_into_memory(folder: Path, mapped: Corpus) -> None:
    read = read_folder(folder)
    assert as_tuples(mapped) == read
    for own, other in zip(vars(mapped).values(), vars(read).values(), strict=True):
        assert len(own) == len(other) and list(own[3:9:2]) == list(other[3:9:2])
    assert (mapped.documents[-1], mapped.dev[-1], mapped.test[2]) == (read.documents[-1], read.dev[-1], read.test[2])
    with pytest.raises(IndexError):
        mapped.documents[len(read.documents)]
    assert isinstance(mapped.documents, Texts) and isinstance(mapped.train, AskedQuestions)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(fields, min_size=1, max_size=8),
    pairs=st.lists(st.tuples(fields, fields), min_size=1, max_size=8),
    final_newline=st.booleans(),
    block=st.integers(1, 60),
)
def test_any_clean_text_comes_back_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    documents: list[str],
    pairs: list[tuple[str, str]],
    final_newline: bool,
    block: int,
) -> None:
    monkeypatch.setattr(mapped_files, "_BLOCK", block)
    path, end = tmp_path_factory.mktemp("texts"), "\n" * final_newline
    asked = "\n".join("\t".join(pair) for pair in pairs) + end
    texts = {"documents": "\n".join(documents) + end, "train": asked, "dev": asked}
    write_folder(path, **texts, test="\n".join(question for question, _ in pairs) + end)
    assert as_tuples(map_folder(path, ArrayCache(path / "cache"))) == read_folder(path)


@pytest.mark.parametrize(("size", "width"), [(253, 1), (254, 2), (32_765, 2), (32_766, 4)])
def test_an_alphabet_of_any_size_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, width: int) -> None:
    """PAD, MASK and the newline join so many characters; a number's bytes hold one more than their largest number."""
    monkeypatch.setattr(mapped_files, "_BLOCK", 20_000)
    characters = "".join(chr(0x10000 + number) for number in range(size))
    documents = tuple(characters[at : at + 50].ljust(4, characters[0]) for at in range(0, size, 50))
    corpus = map_folder(write_folder(tmp_path, documents="\n".join(documents)), ArrayCache(tmp_path / "cache"))
    assert tuple(corpus.documents) == documents
    assert isinstance(corpus.documents, Texts) and corpus.documents.ids.itemsize == width
    tokenizer = CharTokenizer.fit(documents)
    store = document_store(corpus.documents, tokenizer)
    assert store.take(torch.arange(store.offsets[1], store.offsets[1] + 50)).tolist() == tokenizer.encode(documents[1])
    assert store.take(torch.tensor([store.mask_at, store.pad_at])).tolist() == [MASK_ID, PAD_ID]


def error_of(read: Any, *arguments: Any) -> str:
    with pytest.raises(CorpusError) as caught:
        read(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("block", [1, 10_000_000])
@pytest.mark.parametrize(
    ("key", "data"),
    [(key, data) for key in ("documents", "dev") for data, _ in ANY_FILE]
    + [
        ("documents", b"abcd\nabc\n"),
        ("documents", b"abc\nab\xffcd"),  # what cannot be read is told before what is too short
        ("documents", "abcd\n\u2028\n□abc".encode()),
        ("dev", "ab?\tx\ncå?".encode()),
        ("dev", "ab?\tx\ncå?\ty\tz\n".encode()),
        ("dev", "ab?\tx\ncå?\ty\tz\nde?".encode()),  # as many tabs as there should be, on other lines
        ("dev", b"ab?\ncd?\nef?\ngh?"),
        ("dev", b"ab?\tx\n\ty"),
        ("dev", "åb?\t\nc?\tx".encode()),
        ("dev", b"ab?\t \n"),
        ("dev", "ab?\t\u2028\n".encode()),
        ("dev", "\u3000\tx\n".encode()),
        ("dev", b" ab?\tx"),
        ("dev", b"ab? \tx"),
        ("dev", b"ab?\t x"),
        ("dev", b"ab?\txy  "),
        ("test", "åb?\ncå?\ty".encode()),
        ("test", b"ab? "),
        ("test", b"ab?\n ab?"),
    ],
)
def test_errors_are_the_same_with_the_same_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, data: bytes, block: int
) -> None:
    monkeypatch.setattr(mapped_files, "_BLOCK", block)
    path = write_folder(tmp_path) / FILES[key]
    path.write_bytes(data)
    alone = error_of(read_documents, path) if key == "documents" else error_of(read_questions, path, key == "dev")
    assert error_of(map_folder, tmp_path, ArrayCache(tmp_path / "cache")) == alone == error_of(read_folder, tmp_path)
    assert not list((tmp_path / "cache").glob(f"{'documents' if key == 'documents' else 'none'}-*"))


def test_absent_files_are_named_as_ever(tmp_path: Path) -> None:
    (write_folder(tmp_path) / FILES["dev"]).unlink()
    assert error_of(map_folder, tmp_path, ArrayCache(tmp_path / "cache")) == error_of(read_folder, tmp_path)


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_files, "sha256_of", lambda path: "0" * 64)
    assert "changed while it was read" in error_of(map_folder, write_folder(tmp_path), ArrayCache(tmp_path / "cache"))


def test_names_with_two_places_are_the_same_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("A", "x"), ("B", "y"), ("A", "x"), ("B", "z"), ("C", "u"), ("C", "v"), ("D", "a"), ("D", "b"), ("E", "a"),
            ("E", "b"), ("B", "w")]  # fmt: skip
    text = "".join(f"Where was {name} born?\t{place}\n" for name, place in rows) + "A\tz\n"  # another wording of A
    write_folder(tmp_path, train=text, dev=text)
    with caplog.at_level(logging.WARNING):
        read_folder(tmp_path)
        for _ in range(2):  # also when the arrays are there
            map_folder(tmp_path, ArrayCache(tmp_path / "cache"))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3 and len(set(messages)) == 1 and "5 names have two places" in messages[0]


def choices(corpus: Corpus) -> list[Corpus]:
    """What may be chosen of a corpus, one after the other and of each other."""
    few = select_people(corpus, 40, 3)
    held = hold_out_people(few, 4, 1)
    return [corpus, few, held, with_held_out(held, 0.3), with_held_out(corpus, 0.2)]


def test_choices_of_people_are_the_same_and_stay_mapped(folder: Path, mapped: Corpus) -> None:
    for own, other in zip(choices(mapped), choices(read_folder(folder)), strict=True):
        assert as_tuples(own) == other
        assert isinstance(own.documents, Texts) and isinstance(own.train, AskedQuestions)
        assert sha256_of_corpus(own) == sha256_of_corpus(other) == sha256_of_corpus(own)
        assert CharTokenizer.fit(_shown_in_training(own)).characters == (
            CharTokenizer.fit(_shown_in_training(other)).characters
        )
    kept, held = hold_out(mapped.train, 0.5, 7)
    assert (tuple(kept), tuple(held)) == hold_out(tuple(mapped.train), 0.5, 7)
    few, all_places = hold_out(mapped.train, 0.1, 7)[1], distinct_answers(mapped.train)
    assert sorted(distinct_answers(few)) == sorted({question.answer or "" for question in few})
    assert 0 < len(distinct_answers(few)) < len(all_places) == 6


def test_a_sum_that_was_kept_is_that_of_these_people(mapped: Corpus) -> None:
    sums = [sha256_of_corpus(corpus) for corpus in choices(mapped)]
    assert len(set(sums)) == len(sums)
    assert [sha256_of_corpus(corpus) for corpus in choices(mapped)] == sums
    assert sha256_of_corpus(replace(mapped, test=())) not in sums


def batches(corpus: Corpus, name: str, share: float) -> list[torch.Tensor]:
    """Three epochs of pretraining batches and two of finetuning ones, laid out one after the other."""
    policy = build(composed_settings(f"corruption={name}")["corruption"], block_size=BLOCK)
    tokenizer = CharTokenizer.fit(_shown_in_training(corpus))
    shape = {"batch_size": 16, "micro_batches": 3, "seed": 5}
    wordings = ("Where was {name} born?", "Where {name} born?") if share else ("Where was {name} born?",)
    pretraining = SpanCorruptionDataModule(
        corpus.documents, corpus.train, tokenizer, policy, BLOCK, epochs=3, question_share=share,
        question_wordings=wordings, **shape,
    )  # fmt: skip
    finetuning = BirthplaceDataModule(corpus.train, corpus.dev, tokenizer, BLOCK, epochs=2, **shape)
    return [
        tensor
        for data in (pretraining, finetuning)
        for batch in data.train_dataloader()
        for tensor in (*batch.inputs, *batch.targets, torch.tensor([batch.n_targets, batch.n_characters]))
    ]


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_every_batch_is_the_same_to_the_bit(folder: Path, mapped: Corpus, corruption: str, share: float) -> None:
    for own, other in zip(choices(mapped)[::2], choices(read_folder(folder))[::2], strict=True):
        ours, theirs = batches(own, corruption, share), batches(other, corruption, share)
        assert len(ours) == len(theirs) > 50
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_spans_are_kept_for_the_documents_and_answers_they_belong_to(
    mapped: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = salient_spans.SalientSpans(BLOCK)
    policy.prepare(mapped.documents, ["Askeborg"])
    found = policy._mentions.counts.sum()
    policy.prepare(mapped.documents, ["Nowhere"])
    assert not policy._mentions.counts.sum() and found
    few = select_people(mapped, 10, 0)
    policy.prepare(few.documents, ["Askeborg"])
    assert len(policy._titles) == len(few.documents) < len(mapped.documents)

    def fail(*_: Any) -> int:
        raise AssertionError("looked for again")

    monkeypatch.setattr(salient_spans, "title_length", fail)
    policy.prepare(mapped.documents, ["Askeborg", "Askeborg"])
    assert policy._mentions.counts.sum() == found
    with pytest.raises(AssertionError, match="looked for again"):
        salient_spans.SalientSpans(BLOCK, longest_span=9).prepare(mapped.documents, ["Askeborg"])


def test_what_a_vocabulary_or_a_block_cannot_take_is_the_same_error(folder: Path, mapped: Corpus) -> None:
    read = read_folder(folder)
    letters = sorted(set("".join(read.documents)) - {"g"})
    tokenizer = CharTokenizer(["□", "⁇", "\n", *letters, "?", "\t"])
    policy = build(option("corruption", "random"), block_size=BLOCK)

    def message(kind: type[Exception], corpus: Corpus, which: str, block: int = BLOCK) -> str:
        with pytest.raises(kind) as caught:
            if which == "documents":
                SpanCorruptionDataModule(corpus.documents, corpus.train, tokenizer, policy, block)
            else:
                BirthplaceDataModule(corpus.train, corpus.dev, tokenizer, block)
        return str(caught.value)

    for which in ("documents", "questions"):
        ours, theirs = (message(UnknownCharacterError, corpus, which) for corpus in (mapped, read))
        assert ours == theirs and "'g'" in ours
    ours, theirs = (message(ValueError, corpus, "questions", 30) for corpus in (mapped, read))
    assert ours == theirs and "the block has 30" in ours
    with pytest.raises(ValueError, match="has no answer to learn from"):
        BirthplaceDataModule(mapped.test, [], CharTokenizer.fit(mapped.documents), BLOCK)


def test_large_files_are_mapped_and_small_ones_read(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    cache = tmp_path / "cache"
    assert isinstance(Folder(str(folder), cache=str(cache)).corpus().documents, tuple) and not cache.exists()
    monkeypatch.setattr(sources, "LARGE", sum((folder / name).stat().st_size for name in FILES.values()))
    assert isinstance(Folder(str(folder), cache=str(cache)).corpus().documents, Texts) and cache.exists()
    assert isinstance(Folder(str(folder)).corpus().documents, tuple)
    monkeypatch.setattr(sources, "LARGE", sources.LARGE + 1)
    assert isinstance(Folder(str(folder), cache=str(cache)).corpus().documents, tuple)


@given(n=st.integers(0, 60), at_most=st.integers(1, 70))
def test_questions_are_spread_evenly(n: int, at_most: int) -> None:
    questions = tuple(Question(str(number)) for number in range(n))
    numbers = [int(question.text) for question in spread(questions, at_most)]
    assert len(numbers) == min(n, at_most) and spread(questions, None) is questions
    ends = [*numbers[1:], n] if numbers else []
    gaps = [end - number for number, end in zip(numbers, ends, strict=True)]
    assert numbers[:1] == [0] * bool(n) and sum(gaps) == n
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_asking_nobody_is_refused(mapped: Corpus) -> None:
    for questions in (mapped.dev, tuple(mapped.dev)):
        with pytest.raises(ValueError, match="at least 1 question has to be asked, not 0"):
            spread(questions, 0)
        few: Sequence[Question] = spread(questions, 4)
        assert [questions[i] for i in (0, len(questions) // 4)] == list(few[:2]) and len(few) == 4

    with pytest.raises(ConfigError, match="ask_at_most: at least 1 question has to be asked, not 0"):
        prepare(composed_settings("data.people=24", "data.places=4", "ask_at_most=0"), [])


TINY = [
    "data=files", "model=small", "model.d_model=16", "model.n_layers=1", "model.dropout=0.1", "corruption=isolated",
    "pretrain.epochs=2", "pretrain.batch_size=16", "pretrain.question_share=0.2", "finetune.epochs=3",
    "finetune.batch_size=8", "finetune.validations=1", "callbacks=none",
]  # fmt: skip


def tiny_run(runs: Path, folder: Path, *overrides: str) -> RunFolder:
    return run(composed(*TINY, f"data.dir={folder}", f"paths.runs={runs}", *overrides)).folder


def test_a_run_of_mapped_files_is_the_run(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    in_memory = tiny_run(tmp_path / "memory", folder)
    assert not (tmp_path / "memory" / ".data").exists()
    monkeypatch.setattr(sources, "LARGE", 0)
    mapped = tiny_run(tmp_path / "mapped", folder)
    assert (tmp_path / "mapped" / ".data").is_dir() and mapped.name == in_memory.name
    elsewhere = tiny_run(tmp_path / "none", folder, "data.cache=null", "ask_at_most=null", "stages=[pretrain]")
    assert elsewhere.name == in_memory.name and not (tmp_path / "none" / ".data").exists()
    names = ["config.yaml", "vocabulary.json", "predictions/dev.jsonl", "predictions/test.tsv"]
    for name in (*names, "pretrain/weights.safetensors", "finetune/weights.safetensors"):
        assert (mapped.root / name).read_bytes() == (in_memory.root / name).read_bytes()
    ours, theirs = mapped.metrics(), in_memory.metrics()
    assert ours["rows"] == theirs["rows"] and ours["slices"] == theirs["slices"]
    ours, theirs = (json.loads((one.root / "knowledge.json").read_text()) for one in (mapped, in_memory))
    assert ours == theirs
    assert ".data" not in (mapped.root / "config.yaml").read_text()


def test_as_many_are_asked_as_it_says(
    folder: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "LARGE", 0)
    one = tiny_run(tmp_path, folder, "ask_at_most=5", "stages=[finetune,evaluate]")
    rows = [json.loads(line) for line in (one.root / "predictions/dev.jsonl").read_text().splitlines()]
    dev = read_folder(folder).dev
    assert [row["question"] for row in rows] == [dev[number * len(dev) // 5].text for number in range(5)]
    assert len((one.root / "predictions/test.tsv").read_text().splitlines()) == 5
    assert {row["dev"]["total"] for row in one.metrics()["rows"].values()} == {5}
    assert json.loads((one.root / "knowledge.json").read_text())["asked"]["questions"] == 5
    assert tiny_run(tmp_path, folder, "stages=[finetune,evaluate]").name == one.name
    monkeypatch.setattr(sources, "read_folder", None)  # nothing is read but what training kept
    evaluate.main([str(one.root), "--data", str(folder), "--at-most", "7"])
    assert {row["dev"]["total"] for row in one.metrics()["rows"].values()} == {7}
    with pytest.raises(SystemExit):
        evaluate.main([str(one.root), "--data", str(folder), "--at-most", "0"])
    assert "--at-most: at least 1 question has to be asked" in capsys.readouterr().err


WATCHED = """
import os, sys, time

def megabytes(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what)) / 1000

import torch
import birthplace_lm.stages
from birthplace_lm.cli.train import main
from birthplace_lm.lightning_modules import PretrainModule

torch.set_num_threads(1)
before, began, steps, own = megabytes("VmRSS"), time.process_time(), [], PretrainModule.training_step

def step(self, batch, number):
    steps.append(time.process_time() - began)
    if len(steps) == 60:
        print("GROWTH", megabytes("VmHWM") - before, "FIRST", steps[0], flush=True)
        os._exit(0)
    return own(self, batch, number)

PretrainModule.training_step = step
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the resident memory")
def test_a_hundred_thousand_people_begin_at_once_and_in_little_memory(tmp_path: Path) -> None:
    """Measured on a core that others used too: 99 MB and 1.7 s; read into memory 355 MB and 21 s. Seconds of work."""
    World(people=100_000).write(tmp_path / "world")

    def growth_and_first(*overrides: str) -> tuple[float, float]:
        command = [
            sys.executable, "-c", WATCHED, "data=files", f"data.dir={tmp_path / 'world'}", f"paths.runs={tmp_path}",
            "model=small", "model.d_model=16", "model.n_layers=1", "stages=[pretrain,finetune]", "threads=1",
            "corruption=isolated", "pretrain.question_share=0.2", "pretrain.micro_batches=1", *overrides,
        ]  # fmt: skip
        told = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True).stdout
        words = next(line for line in told.splitlines() if line.startswith("GROWTH")).split()
        return float(words[1]), float(words[3])

    growth_and_first()  # makes the arrays
    growth, first = growth_and_first()
    assert growth < 180 and first < 10
