"""Ways to train: that they do the same work, that what is derived from their times is right, and that the command runs.

Times themselves are never asserted.
"""

import copy
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from birthplace_lm.benchmarks import decoding, on_gpu, training, training_table
from birthplace_lm.benchmarks.matmul import MatmulRate
from birthplace_lm.benchmarks.training import BARE, BFLOAT16, LIGHTNING, TEXTBOOK, Timing
from birthplace_lm.benchmarks.ways import UnavailableError, Way
from birthplace_lm.benchmarks.ways.recording import Recording
from birthplace_lm.benchmarks.ways.sizes import Sizes
from birthplace_lm.benchmarks.ways.textbook import Textbook
from birthplace_lm.cli import bench, bench_training, bench_way
from birthplace_lm.layouts import IGNORE, Batch
from birthplace_lm.tokenizer import MASK, PAD, PAD_ID
from birthplace_lm.transformer import Transformer
from tests.helpers import small_corpus, tiny, tokenizer_of
from tests.test_stages import tiny_run

CORPUS = small_corpus()
TOKENIZER = tokenizer_of(CORPUS)
BLOCK, ROWS, STEPS = 64, 32, 2
PEERS = [name for way in training.PEERS for name in training.names_of(way)]


def model(**changes: float) -> Transformer:
    """Wide enough that what other libraries leave out is less than 2 % of the weights."""
    return tiny(vocabulary_size=len(TOKENIZER), block_size=BLOCK, **{"d_model": 128, "n_layers": 3, **changes})


def recording() -> Recording:
    return Recording(CORPUS.documents * 6, TOKENIZER, BLOCK, batch_size=ROWS, steps=STEPS)


def made(name: str) -> Way:
    """The way, or a skip that says what to install."""
    torch.manual_seed(1)
    try:
        return training.make(name, model(), recording())
    except UnavailableError as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
        raise


def logits(peer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out = peer(x)
    return out if isinstance(out, torch.Tensor) else out.logits


@torch.no_grad()
def mean_loss(peer: nn.Module, batch: Batch) -> float:
    """Every row alone, its real characters alone: nothing of layouts, padding or shares is in it."""
    losses = []
    for x, y in zip(batch.inputs, batch.targets, strict=True):
        for row, targets in zip(x, y, strict=True):
            real = int((targets != IGNORE).sum())
            losses.append(F.cross_entropy(logits(peer, row[None, :real])[0], targets[:real], reduction="none"))
    return torch.cat(losses).mean().item()


def test_the_textbook_loop_sees_the_same_task() -> None:
    textbook = Textbook(CORPUS.documents, TOKENIZER, model(), BLOCK, 4)
    for document in CORPUS.documents:
        x, y = textbook.example(document)
        assert len(x) == len(y) == BLOCK - 1 and x[1:] == y[:-1]
        before, after, span = TOKENIZER.decode([*x, y[-1]]).rstrip(PAD).split(MASK)
        assert span and document.startswith(before + span + after)


def test_both_layouts_hold_the_same_examples() -> None:
    found = []
    for batches in (recording().padded, recording().length_aware):
        rows = [pair for batch in batches for x, y in zip(batch.inputs, batch.targets, strict=True)
                for pair in zip(x.tolist(), y.tolist(), strict=True)]  # fmt: skip
        ends = [y.index(IGNORE) if IGNORE in y else len(y) for _, y in rows]
        # What is asked for last is not read, unless the row is wider than the text: then nothing follows it.
        for (x, _), end in zip(rows, ends, strict=True):
            assert set(x[end + 1 :]) <= {PAD_ID} and PAD_ID not in x[:end]
        found.append(Counter((*x[:end], *y[:end]) for (x, y), end in zip(rows, ends, strict=True)))
    assert found[0] == found[1]
    assert all(tuple(batch.inputs[0].shape) == (ROWS, BLOCK - 1) for batch in recording().padded)
    assert all([len(x) for x in batch.inputs] == [16, 16] for batch in recording().length_aware)


@pytest.mark.parametrize("name", [BARE, BFLOAT16, LIGHTNING, *PEERS])
def test_all_count_the_same_real_characters(name: str) -> None:
    way = made(name)
    expected = sum(int((y != IGNORE).sum()) for batch in recording().padded for y in batch.targets)
    for _ in range(2):  # a second run begins at the first batch again
        seconds, characters = way.run(STEPS)
        assert seconds > 0 and characters == expected


def test_bfloat16_learns_the_same_with_eight_bits() -> None:
    ways = [made(name) for name in (BARE, BFLOAT16)]
    before = mean_loss(ways[0].model, recording().length_aware[0])
    for way in ways:
        way.run(STEPS)
    exact, coarse = (mean_loss(way.model.eval(), recording().length_aware[0]) for way in ways)
    assert exact != coarse and abs(exact - coarse) < 0.05 * (before - exact)
    assert all(parameter.dtype == torch.float32 for parameter in ways[1].model.parameters())


@pytest.mark.parametrize("name", PEERS)
def test_a_peers_step_follows_our_loss(name: str) -> None:
    way = made(name)
    before = copy.deepcopy(way.model)
    batch = recording().length_aware[0]
    expected = mean_loss(before, batch)
    way.run(1)
    assert way.loss == pytest.approx(expected, rel=1e-4)
    changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), way.model.parameters(), strict=True)]
    assert sum(changed) >= len(changed) - 1  # x-transformers' keys may have no gradient in one direction
    way.run(3)
    after = mean_loss(way.model.eval(), batch)
    assert 0 < after < expected


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_as_large_as_our_model(name: str) -> None:
    theirs = sum(parameter.numel() for parameter in made(name).model.parameters())
    assert theirs == pytest.approx(model().n_parameters(), rel=0.02)


def test_a_model_that_is_not_as_large_is_refused_with_both_numbers() -> None:
    sizes = Sizes.of(model())
    one_row = nn.Linear(1, round(1.019 * sizes.parameters), bias=False)
    sizes.check(one_row)
    one_row = nn.Linear(1, round(1.021 * sizes.parameters), bias=False)
    with pytest.raises(UnavailableError, match=f"{one_row.out_features:,} weights and ours has {sizes.parameters:,}"):
        sizes.check(one_row)


def test_what_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("x_transformers", "transformers", "litgpt", "litgpt.config", "litgpt.model"):
        monkeypatch.setitem(sys.modules, library, None)
    ways, missing = training.make_all(training.WAYS, model(), recording())
    assert list(ways) == [TEXTBOOK, BARE, LIGHTNING, BFLOAT16] and list(missing) == list(training.PEERS)
    assert all("pip install 'birthplace-lm[" in reason for reason in missing.values())


def test_litgpt_is_compared_only_where_it_can_be_the_same_model() -> None:
    with pytest.raises(UnavailableError, match=r"our model has 0\.1: compare with --dropout 0"):
        training.make("litgpt, padded", model(dropout=0.1), recording())


def test_a_warm_up_counts_the_products_of_a_step() -> None:
    """A linear layer without bias: an output product and one for the gradient of its weights, 2·N·I·O each."""

    class Line:
        model = nn.Linear(3, 5, bias=False)

        def run(self, steps: int) -> tuple[float, int]:
            for _ in range(steps):
                self.model(torch.ones(7, 3)).sum().backward()
            return 0.5, 20

    turns: list[str] = []
    (timing,) = training.compare({"line": Line()}, steps=4, repetitions=3, between=lambda: turns.append("between"))
    assert timing.products == 2 * (2 * 7 * 3 * 5) and timing.parameters == 15
    assert timing.rates == [40.0, 40.0, 40.0] and len(turns) == 3


TIMINGS = [
    Timing(TEXTBOOK, 2, seconds=[1.0, 2.0, 4.0], characters=[100, 100, 100]),  # 100, 50, 25 a second
    Timing(BARE, 2, 7, 50.0, seconds=[0.5, 1.0, 1.0], characters=[100, 100, 100]),
    Timing(LIGHTNING, 2, seconds=[0.6, 1.1, 1.5], characters=[100, 100, 100]),
    Timing("litgpt, padded", 2, seconds=[1.0, 1.0, 2.0], characters=[100, 100, 100]),
    Timing("x-transformers, padded", 2, seconds=[2.0, 1.25, 2.0], characters=[100, 100, 100]),
]


def test_ratios_are_medians_of_pairs_and_the_best_peer_is_the_fastest() -> None:
    rows = training_table.rows(TIMINGS, [400.0, 100.0, 50.0], {BARE: {"before": 2 << 20, "peak": 5 << 20}})
    bare = dict(rows[1])
    assert bare["characters_per_second"] == 100 and bare["step_milliseconds"] == 500
    assert bare["ratio"] == 2.0  # of 2, 2, 4
    assert bare["ratio_to_best_padded_peer"] == 2.0  # litgpt's: of 2, 1, 2
    assert bare["ratio_to_best_length_aware_peer"] is None
    assert bare["share_of_matmul_rate"] == 50 / 0.5 / 100  # a step of 50 operations in half a second
    assert (bare["peak_memory"], bare["memory_of_training"]) == (5, 3)
    assert rows[3]["ratio_to_best_padded_peer"] == 1.0 and rows[0]["peak_memory"] is None
    assert training_table.lightning_overhead(TIMINGS) == pytest.approx(0.2)  # of 0.2, 0.1, 0.5
    assert training_table.lightning_overhead(TIMINGS[:2]) is None


def test_tables_show_every_row_and_what_was_not_measured() -> None:
    rows = training_table.rows(TIMINGS, [100.0], {})
    lines = training_table.markdown(rows).splitlines()
    assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1
    assert lines[3] == f"| {BARE} | 100 | 500 | 2.00 x | 2.00 x | – | 100% | – | – | 7 |"
    head, below, *cells = training_table.text(rows).splitlines()
    ends = [head.index("ms a") + 4, below.index("step") + 4, cells[1].index(" 500 ") + 4]
    assert len(set(ends)) == 1  # columns stand below their titles


def test_the_rate_is_that_of_the_better_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))  # every shape takes one second
    rate = MatmulRate(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 3)), rows=[10, 4])
    assert rate.rates == [] and rate.measure() == 6 * 10 * (2 * 3 + 3 * 2) / 2 and len(rate.rates) == 1


SMALL = ["--model", "small", "--batch-size", "4", "--steps", "1"]


@pytest.mark.slow
def test_the_command_prints_and_writes_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("x_transformers", reason="needs the extra peers: pip install 'birthplace-lm[peers]'")
    torch.manual_seed(0)
    out, table, profile = (tmp_path / name for name in ("bench.json", "bench.md", "profile.md"))
    chosen = ["--ways", "textbook", "bare", "lightning", "bfloat16", "x-transformers", "litgpt", "--no-memory"]
    written = ["--out", str(out), "--markdown", str(table), "--profile", str(profile)]
    bench.main([*SMALL, "--repetitions", "1", "--questions", "3", *chosen, *written])
    printed = capsys.readouterr().out
    figures = json.loads(out.read_text())
    names = [TEXTBOOK, BARE, LIGHTNING, BFLOAT16, "x-transformers, padded", "x-transformers, length-aware"]
    assert [row["name"] for row in figures["training"]] == names and all(name in printed for name in names)
    assert all(f"| {name} |" in table.read_text() for name in names)
    assert "litgpt is left out: it has no ReLU²" in printed and list(figures["missing"]) == ["litgpt"]
    assert figures["training"][0]["ratio"] == 1.0 and figures["decoding"]["questions"] == 3
    assert "GFLOP/s" in printed and "Lightning adds" in printed and "3 questions" in table.read_text()
    both = profile.read_text()
    assert both.count("| attention |") == 2 and "small, 4 examples" in both and both.count(", bfloat16\n") == 1


def test_a_process_is_told_to_measure_what_was_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[tuple[list[list[str]], int]] = []

    def at_once(commands: list[list[str]], threads: int) -> list[dict[str, float]]:
        started.append((commands, threads))
        return [{"characters": 30, "seconds": 3.0} for _ in commands]

    monkeypatch.setattr("birthplace_lm.benchmarks.side_by_side.at_once", at_once)
    out = tmp_path / "jobs.json"
    asked = ["--threads", str(max(2, torch.get_num_threads())), "--dropout", "0.25", "--seconds", "5"]
    before = torch.get_num_threads()
    bench.main(["jobs", *SMALL, *asked, "--repetitions", "1", "--out", str(out)])
    torch.set_num_threads(before)
    (commands, one_thread), (alone, all_threads) = started
    assert (len(commands), one_thread, len(alone), all_threads) == (all_threads, 1, 1, max(2, before))
    options = bench_way._parser().parse_args(commands[0][3:])
    assert (options.name, options.threads, options.seconds, options.dropout) == (BARE, 1, 5.0, 0.25)
    assert (options.model, options.batch_size, options.steps, options.data) == ("small", 4, 1, None)
    assert json.loads(out.read_text())["jobs"]["ratio"] == len(commands)


def test_one_way_in_a_process_reports_once_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    bench_way.main([BARE, "--threads", str(torch.get_num_threads()), *SMALL])
    ready, report = capsys.readouterr().out.splitlines()[-2:]
    found = json.loads(report)
    assert ready == "ready" and found["characters"] > 0 and found["seconds"] > 0
    assert 0 < found["before"] <= found["peak"]


def test_apart_only_our_own_processes_are_set_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is timed is what the processes say: ten characters a second the loop, twenty this package."""
    started: dict[str, list[str]] = {}

    @contextmanager
    def by_turns(commands: dict[str, list[str]], threads: int) -> Iterator[dict[str, Callable[[], dict[str, float]]]]:
        started.update(commands)
        yield {name: lambda n=1 + n: {"characters": 10 * n, "seconds": 1.0} for n, name in enumerate(commands)}

    monkeypatch.setattr("birthplace_lm.benchmarks.own_process.by_turns", by_turns)
    out = tmp_path / "apart.json"
    ways = ["--ways", "textbook", "bare", "--apart", "--no-memory", "--questions", "0", "--repetitions", "1"]
    bench.main([*SMALL, *ways, "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["apart"] and [row["ratio"] for row in found["training"]] == [1.0, 2.0]
    assert {name: "--plain" in command for name, command in started.items()} == {TEXTBOOK: True, BARE: False}


@pytest.mark.parametrize("plain", [True, False])
def test_a_plain_process_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    calls: list[None] = []
    monkeypatch.setattr("birthplace_lm.process.set_up_process", lambda: nullcontext(calls.append(None)))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")  # of the process that starts this one
    bench_way.main([BARE, "--threads", str(torch.get_num_threads()), *SMALL, *(["--plain"] if plain else [])])
    assert len(calls) == (not plain) and ("ONEDNN_PRIMITIVE_CACHE_CAPACITY" in os.environ) == (not plain)


def test_a_way_starts_from_what_a_run_has_pretrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_run(tmp_path / "runs", "stages=[pretrain,finetune]")
    asked: list[Any] = []
    monkeypatch.setattr(decoding, "compare", lambda model, *_: asked.append(model))
    out = tmp_path / "found.json"
    which = ["--start-from", str(folder.root), "--batch-size", "4", "--steps", "1", "--repetitions", "1"]
    bench.main([*which, "--no-memory", "--questions", "3", "--ways", "bare", "x-transformers", "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["missing"] == {"x-transformers": "it cannot begin with weights of ours"}
    assert [row["parameters"] for row in found["training"]] == [folder.load_model("pretrain").n_parameters()]
    options = bench._parser().parse_args(which)
    model, recording = bench_training.material(options, bench_training.corpus_of(options))
    expected = folder.load_model("pretrain").state_dict()
    assert all(torch.equal(weights, expected[name]) for name, weights in model.state_dict().items())
    assert recording.block_size == folder.config()["model"]["block_size"]
    (answering,), expected = asked, folder.load_model("finetune").state_dict()  # and questions are answered as it does
    assert all(torch.equal(weights, expected[name]) for name, weights in answering.state_dict().items())
    with pytest.raises(SystemExit, match="2"):
        bench.main([*which, "--model", "small"])
    assert "--start-from takes the model of the run" in capsys.readouterr().err


def test_the_figures_of_a_gpu_are_medians_and_ratios_to_the_textbook_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    textbook = Timing(TEXTBOOK, 10, seconds=[1.0, 2.0, 3.0], characters=[100, 200, 300])
    bare = Timing(BARE, 100, seconds=[1.0, 1.0, 2.0], characters=[1000, 500, 1200])
    lightning = Timing(LIGHTNING, 100, seconds=[1.1, 1.2, 2.2], characters=[1000, 500, 1200])
    found = on_gpu.figures([textbook, bare, lightning])
    assert [row["step_milliseconds"] for row in found["training"]] == pytest.approx([200, 10, 12])
    assert [row["ratio"] for row in found["training"][:2]] == pytest.approx([1, 6])
    assert found["lightning_overhead"] == pytest.approx(0.1) and (found["gpu"], found["peak_memory"]) == ("a GPU", 3)
    table = on_gpu.markdown(found)
    assert "| this package, bare | 10.00 | 600 | 6.0 x |" in table and "a GPU; Lightning adds +10.0%" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(["gpu", "--model", "small"])
    assert "there is no CUDA device here" in capsys.readouterr().err
