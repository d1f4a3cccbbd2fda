"""The benchmark: that what it compares is the same work, and that it runs. Its numbers are not asserted."""

import json
from pathlib import Path

import pytest
import torch

from birthplace_lm.benchmarks import attention, decoding, facts, training
from birthplace_lm.benchmarks.arithmetic import Arithmetic
from birthplace_lm.benchmarks.peers import PEERS, difference
from birthplace_lm.cli import bench
from birthplace_lm.cli.bench_parts import model_of
from birthplace_lm.composing import build, config_folder
from tests.helpers import option, roughened, small_corpus, tiny, tokenizer_of
from tests.test_stages import tiny_run

CORPUS = small_corpus()
TOKENIZER = tokenizer_of(CORPUS)


def test_both_ways_of_decoding_give_the_same_answers() -> None:
    model = roughened(tiny(vocabulary_size=len(TOKENIZER), block_size=128)).double()
    figures = decoding.compare(model, TOKENIZER, [question.text for question in CORPUS.train], sample=5)
    assert figures["same_answers"] == figures["compared"] == 5


def test_the_products_of_answers_are_those_of_their_positions() -> None:
    """One by one: 32 passes over all so far. At once with a cache: every position of a row once at most."""
    model = tiny(vocabulary_size=len(TOKENIZER), block_size=128)
    torch.nn.init.zeros_(model.head.weight)  # so no answer ends: the first of equal ones is PAD
    questions = ["Where was Ada born?", "Where was Bo born?"]
    figures = decoding.compare(model, TOKENIZER, questions, sample=2)
    linear = sum(2 * m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    width, layers = model.characters.embedding_dim, len(model.blocks)

    def slow(n: int) -> int:
        """A pass over n positions: products with weights, then scores and mixed values of a triangle or a square."""
        seen = n * (n + 1) // 2 if n > 16 else n * n  # few positions have no fused kernel
        return n * linear + layers * 4 * seen * width

    lengths = [len(question) + 1 for question in questions]
    assert figures["one_by_one_operations"] == sum(slow(n + i) for n in lengths for i in range(32))
    at_least = (lengths[0] + 31) * (linear - 2 * model.head.weight.numel())  # of one row alone
    assert at_least < figures["batched_operations"] < figures["one_by_one_operations"] / 10


def test_a_model_with_little_room_is_asked_as_far_as_it_sees() -> None:
    model = tiny(vocabulary_size=len(TOKENIZER), block_size=32)
    torch.nn.init.zeros_(model.head.weight)
    figures = decoding.compare(model, TOKENIZER, ["Where was Ada Vik born?"])
    assert figures["same_answers"] == figures["compared"] == 1


def test_one_by_one_is_measured_on_a_sample_and_scaled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))  # whatever is measured takes one second
    model = tiny(vocabulary_size=len(TOKENIZER), block_size=128)
    questions = [question.text for question in CORPUS.train][:6]
    figures, all_asked = (decoding.compare(model, TOKENIZER, questions, 3, sample) for sample in (2, 6))
    assert (figures["batched_seconds"], figures["one_by_one_seconds"], figures["ratio"]) == (1.0, 3.0, 3.0)
    assert (figures["compared"], all_asked["compared"]) == (2, 6) and all_asked["ratio"] == 1.0
    assert figures["batched_operations"] == all_asked["batched_operations"]


def test_decoding_is_measured_of_a_new_model_and_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run(tmp_path / "runs", "stages=[pretrain,finetune]")
    out, table, profile = (tmp_path / name for name in ("found.json", "found.md", "profile.md"))
    for which in (["--model", "small"], ["--start-from", str(run.root)]):
        written = ["--out", str(out), "--markdown", str(table), "--profile", str(profile)]
        bench.main(["decoding", *which, "--questions", "3", "--repetitions", "2", *written])
        found = json.loads(out.read_text())["decoding"]
        assert found["questions"] == found["compared"] == found["same_answers"] == 3
        assert "3 questions: " in capsys.readouterr().out and "| one by one, everything again |" in table.read_text()
        assert f"{which[1]}, 3 questions" in profile.read_text()
    with pytest.raises(SystemExit) as ended:
        bench.main(["decoding", "--start-from", str(run.root), "--questions", "0"])
    assert ended.value.code and "give --questions 1 or more" in capsys.readouterr().err


def test_padding_is_no_part_of_an_answer_either_way() -> None:
    model = tiny(vocabulary_size=len(TOKENIZER), block_size=128)
    torch.nn.init.zeros_(model.head.weight)  # the first of equal ones is PAD, which an untrained model may write
    figures = decoding.compare(model, TOKENIZER, [question.text for question in CORPUS.train], sample=3)
    assert figures["same_answers"] == figures["compared"] == 3


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
        assert row["over_arithmetic_time"] == row["ratio"] / row["arithmetic_time_ratio"]
        assert (row["attention"] == "vanilla") == (row["arithmetic_ratio"] == 1) == (row["arithmetic_time_ratio"] == 1)
    assert table.read_text().count("\n") == 5 and "| linear |" in table.read_text()
    assert capsys.readouterr().out.count("linear") == 2


def test_every_measure_takes_so_many_threads(tmp_path: Path) -> None:
    before, out = torch.get_num_threads(), tmp_path / "attention.json"
    asked = ["--attention", "vanilla", "--lengths", "16", "--tokens", "32", "--repetitions", "1", "--out", str(out)]
    try:
        bench.main(["attention", *asked, "--threads", str(before + 1)])
    finally:
        torch.set_num_threads(before)
    assert json.loads(out.read_text())["hardware"]["threads"] == before + 1


def test_arithmetic_takes_the_time_of_its_two_rates() -> None:
    rates = attention.Rates(products=100.0, elementwise=10.0)
    assert rates.seconds(Arithmetic(products=300, elementwise=20)) == pytest.approx(3 + 2)
    measured = attention.Rates.measured(attention.Size(d_model=64, tokens=512))
    assert measured.products > 0 and measured.elementwise > 0


def test_a_batch_has_the_same_tokens_at_any_length() -> None:
    size = attention.Size(d_model=8, n_heads=2, tokens=64)
    assert [tuple(size.inputs(length).shape) for length in (16, 64, 128)] == [(4, 16, 8), (1, 64, 8), (1, 128, 8)]


def test_layers_of_a_kind_are_measured_once_and_weighed() -> None:
    size = attention.Size(d_model=8, n_heads=2, n_layers=3, tokens=64)
    kinds = attention.kinds_of_layers(build(option("attention", "hybrid")), size, 20)
    assert [type(layer).__name__ for layer, _ in kinds] == ["VanillaAttention", "SynthesizerAttention"]
    assert [share for _, share in kinds] == pytest.approx([2 / 3, 1 / 3])
    assert min(layer.max_length for layer, _ in kinds) == 20  # the block is one longer for the synthesizer


@pytest.mark.parametrize("name", [path.stem for path in sorted((config_folder() / "model").glob("*.yaml"))])
def test_every_model_can_be_measured(name: str) -> None:
    model = model_of("vanilla_qk_norm", name)(30)
    assert model.max_length == 128 and len(model.blocks) >= 3


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["peers", "--attention", "vanilla"], "peers does not read --attention: that is for training, gpu, jobs"),
        (["gpu", "--apart"], "gpu does not read --apart: that is for training"),
        (["training", "--seconds", "3"], "training does not read --seconds: that is for jobs"),
        (["attention", "--start-from", "RUN"], "attention does not read --start-from"),
        (["attention", "--lengths", "0"], "--lengths: at least 1, not 0"),
        (["attention", "--tokens", "0"], "--tokens: at least 1, not 0"),
        (["training", "--questions", "-3"], "--questions: at least 0, not -3"),
        (["facts", "--attention", "nonsense"], "there is no attention 'nonsense': choose from additive"),
        (["jobs", "--threads", "2", "--data", "/nowhere"], "error: /nowhere"),
        (["attention", "--out", "."], "error: . is a folder: name a file in it"),
        (["attention", "--markdown", f"{__file__}/table.md"], "error: "),
        (["training", "--profile", "."], "error: . is a folder"),
    ],
)
def test_what_a_measure_does_not_read_is_refused(
    asked: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(asked)
    assert told in capsys.readouterr().err


def test_the_command_knows_every_column_and_way_without_loading_them() -> None:
    assert bench.COLUMNS == facts.COLUMNS and sorted(bench.WAYS) == sorted(training.WAYS)


def test_a_name_that_is_none_is_told_with_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["attention", "--attention", "psychic"])
    assert "there is no attention 'psychic': choose from additive, " in capsys.readouterr().err


@pytest.mark.parametrize("variant", PEERS)
def test_x_transformers_computes_the_same_with_the_same_weights(variant: str) -> None:
    pytest.importorskip("x_transformers", reason="needs the extra peers: pip install 'birthplace-lm[peers]'")
    assert difference(variant, length=40, rows=2) < 1e-5
    assert difference(variant, torch.float64, length=40, rows=2) < 1e-6  # their softmax rounds to float32
