"""The benchmark: that what it compares is the same work, and that it runs. Its numbers are not asserted."""

import json
from pathlib import Path

import pytest
import torch

from birthplace_lm.benchmarks import attention, decoding, training
from birthplace_lm.benchmarks.peers import PEERS, difference
from birthplace_lm.cli import bench
from birthplace_lm.composing import build
from birthplace_lm.datamodules import IGNORE
from birthplace_lm.tokenizer import MASK, PAD, PAD_ID
from tests.helpers import option, roughened, small_corpus, tiny, tokenizer_of

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
    bare = training.Bare(CORPUS.documents, TOKENIZER, tiny(vocabulary_size=len(TOKENIZER), block_size=BLOCK), BLOCK, 4)
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


def test_attention_is_compared_with_vanilla(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = tmp_path / "attention.json", tmp_path / "attention.md"
    chosen = ["--attention", "linear", "hybrid", "--lengths", "16", "32", "--tokens", "32", "--repetitions", "2"]
    bench.main(["attention", *chosen, "--out", str(out), "--markdown", str(table)])
    rows = json.loads(out.read_text())["attention"]
    assert [(row["length"], row["attention"]) for row in rows] == [
        (length, name) for length in (16, 32) for name in ("vanilla", "linear", "hybrid")
    ]
    for row in rows:
        assert row["repetitions"] == 2 and row["over_arithmetic"] == row["ratio"] / row["arithmetic_ratio"]
        assert (row["attention"] == "vanilla") == (row["arithmetic_ratio"] == 1)
    assert table.read_text().count("\n") == 5 and "| linear |" in table.read_text()
    assert capsys.readouterr().out.count("linear") == 2


def test_a_batch_has_the_same_tokens_at_any_length() -> None:
    size = attention.Size(d_model=8, n_heads=2, tokens=64)
    assert [tuple(size.inputs(length).shape) for length in (16, 64, 128)] == [(4, 16, 8), (1, 64, 8), (1, 128, 8)]


def test_layers_of_a_kind_are_measured_once_and_weighed() -> None:
    size = attention.Size(d_model=8, n_heads=2, n_layers=3, tokens=64)
    kinds = attention.kinds_of_layers(build(option("attention", "hybrid")), size, 20)
    assert [type(layer).__name__ for layer, _ in kinds] == ["VanillaAttention", "SynthesizerAttention"]
    assert [share for _, share in kinds] == pytest.approx([2 / 3, 1 / 3])
    assert min(layer.max_length for layer, _ in kinds) == 20  # the block is one longer for the synthesizer


def test_a_name_that_is_none_is_told_with_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["attention", "--attention", "psychic"])
    assert "there is no attention 'psychic': choose from additive, " in capsys.readouterr().err


@pytest.mark.parametrize("variant", PEERS)
def test_x_transformers_computes_the_same_with_the_same_weights(variant: str) -> None:
    pytest.importorskip("x_transformers", reason="needs the extra peers: pip install 'birthplace-lm[peers]'")
    assert difference(variant, length=40, rows=2) < 1e-5
    assert difference(variant, torch.float64, length=40, rows=2) < 1e-6  # their softmax rounds to float32
