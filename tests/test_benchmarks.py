"""The benchmark: that what it compares is the same work, and that it runs. Its numbers are not asserted."""

import json
from pathlib import Path

import pytest
import torch

from birthplace_lm.benchmarks import decoding, training
from birthplace_lm.cli import bench
from birthplace_lm.datamodules import IGNORE
from birthplace_lm.tokenizer import MASK, PAD, PAD_ID
from tests.helpers import roughened, small_corpus, tiny, tokenizer_of

CORPUS = small_corpus()
TOKENIZER = tokenizer_of(CORPUS)
BLOCK = 64


def test_the_textbook_loop_sees_the_same_task() -> None:
    model = tiny(vocabulary_size=len(TOKENIZER), block_size=BLOCK)
    textbook = training._Textbook(CORPUS.documents, TOKENIZER, model, BLOCK, 4)
    for document in CORPUS.documents:
        x, y = textbook.example(document)
        assert len(x) == len(y) == BLOCK - 1 and x[1:] == y[:-1]
        before, after, span = TOKENIZER.decode([*x, y[-1]]).rstrip(PAD).split(MASK)
        assert span and document.startswith(before + span + after)


def test_all_three_count_the_characters_that_have_a_target() -> None:
    bare = training._Bare(CORPUS.documents, TOKENIZER, tiny(vocabulary_size=len(TOKENIZER), block_size=BLOCK), BLOCK, 4)
    batch = next(bare.batches)
    assert batch.n_characters == sum(int((y != IGNORE).sum()) for y in batch.targets)
    assert batch.n_characters == sum(int((x != PAD_ID).sum()) for x in batch.inputs)


def test_ratios_are_medians_of_pairs() -> None:
    baseline = training.Timing("a", [100.0, 200.0, 400.0], [10.0, 20.0, 30.0])
    other = training.Timing("b", [300.0, 400.0, 400.0], [1.0, 2.0, 9.0])
    assert other.row(baseline) == {"name": "b", "characters_per_second": 400.0, "step_milliseconds": 2.0, "ratio": 2.0}


def test_both_ways_of_decoding_give_the_same_answers() -> None:
    model = roughened(tiny(vocabulary_size=len(TOKENIZER), block_size=128)).double()
    figures = decoding.compare(model, TOKENIZER, [question.text for question in CORPUS.train], sample=5)
    assert figures["same_answers"] == figures["compared"] == 5


def test_the_command_prints_and_writes_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    out = tmp_path / "bench.json"
    small = ["--model", "small", "--batch-size", "4", "--steps", "1", "--repetitions", "1", "--questions", "3"]
    bench.main([*small, "--out", str(out)])
    printed = capsys.readouterr().out
    figures = json.loads(out.read_text())
    names = ["textbook loop", "this package, bare", "this package, Lightning"]
    assert [row["name"] for row in figures["training"]] == names and all(name in printed for name in names)
    assert figures["training"][0]["ratio"] == 1.0 and figures["decoding"]["questions"] == 3
