"""The facts of every attention: counted products against formulas, the committed table against what is counted now."""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from birthplace_lm.benchmarks import facts
from birthplace_lm.benchmarks.arithmetic import count, forward_backward
from birthplace_lm.cli import bench, bench_parts
from birthplace_lm.exploration.lookup_task import LookupTask
from birthplace_lm.transformer import Transformer
from tests.helpers import VARIANTS, tiny

D, H, K, ROWS, BLOCK = 16, 4, 4, 3, 24
WINDOW, CHUNK, LATENTS, RANK = 4, 8, 6, 3
COMMAND = "birthplace-bench facts --only parameters,flops,cache"
KNOBS: dict[str, dict[str, int]] = {
    "sliding_window": {"window": WINDOW},
    "linear": {"chunk": CHUNK},
    "perceiver": {"chunk": CHUNK, "n_latents": LATENTS},
    "synthesizer_factorized_random": {"rank": RANK},
}


def layers(t: int, *widths: int) -> int:
    """Linear layers from D to these widths: a product forward, two backward."""
    return 6 * t * D * sum(widths)


def norm(t: int) -> int:
    """The gradient of a root-mean-square norm: two products of a matrix and a vector."""
    return 4 * t * D


def scan(t: int, m: int, n: int) -> int:
    """Causal sums of H heads, features m, values n: within chunks, into the state of each and out of the one before.

    A chunk that is alone has nothing before it and nothing behind it that would read a state.
    """
    chunks = t // CHUNK
    through_states = (12 if chunks > 1 else 4) * CHUNK * m * n
    return H * chunks * (6 * CHUNK * CHUNK * (m + n) + through_states)


def matrix(t: int, width: int = K) -> int:
    """Scores of products of this width and the mixing of values, every pair of positions, three times."""
    return 6 * t * t * H * (width + K)


def grid(t: int, b: int) -> int:
    """Every pair of a number for a row and one for a column, as far as the last position sees, three times."""
    return 6 * t * H * math.ceil(t / b) * b


def written_out(t: int, width: int = 0, biased: bool = False, texts: int = 1) -> float:
    """A softmax of terms: every product three times, one coordinate more for a gradient and one for a keys' bias.

    Of the whole square, since it is one tile; for so many texts at once where these have the same scores.
    """
    return 2 * t * t * H * ((3 * width + 1) / texts + biased + 3 * K)


def fused(t: int, width: int, heads: int = H) -> int:
    """The lower triangle alone, of queries, keys and values of one width: two products forward, five backward."""
    return 14 * heads * width * t * (t + 1) // 2


# Multiplications and additions in matrix products, forward and backward, for one text of t positions.
FORMULAS: dict[str, Callable[[int], float]] = {
    "vanilla": lambda t: layers(t, D, D, D, D) + fused(t, K),
    "vanilla_qk_norm": lambda t: layers(t, D, D, D, D) + fused(t, K) + 2 * norm(t),
    "single_head": lambda t: layers(t, D, D, D, D) + fused(t, D, heads=1),
    "grouped_query": lambda t: layers(t, D, 2 * K, 2 * K, D) + fused(t, K),
    "multi_query": lambda t: layers(t, D, K, K, D) + fused(t, K),
    "sliding_window": lambda t: layers(t, D, D, D, D) + 14 * D * t * t,
    "linear": lambda t: layers(t, D, D, D, D) + scan(t, K, K + 1),
    "perceiver": lambda t: layers(t, D, D, D, D, H * LATENTS) + scan(t, K, LATENTS) + scan(t, LATENTS, K),
    "additive": lambda t: layers(t, D, D, D, D) + matrix(t, 0) + 4 * t * t * D,
    "differential": lambda t: layers(t, D, D, D, D) + fused(t, K, heads=2 * H) + norm(t),
    "talking_heads": lambda t: layers(t, D, D, D, D) + matrix(t) + 12 * H * H * t * t,
    "synthesizer": lambda t: layers(t, D, D, D) + fused(t, K + 1),
    "synthesizer_random": lambda t: layers(t, D, D) + written_out(t, texts=ROWS),
    "synthesizer_random_fixed": lambda t: layers(t, D, D) + 4 * t * t * D,
    "synthesizer_factorized_random": lambda t: layers(t, D, D) + written_out(t, RANK, texts=ROWS),
    "synthesizer_factorized_dense": lambda t: layers(t, D, D, 5 * H, 5 * H) + written_out(t) + grid(t, 5),
    "synthesizer_random_vanilla": lambda t: layers(t, D, D, D, D) + written_out(t, K),
    "synthesizer_random_dense": lambda t: layers(t, D, D, D) + written_out(t, K, biased=True),
    "synthesizer_dense_vanilla": lambda t: layers(t, D, D, D, D, D) + written_out(t, 2 * K, biased=True),
}
FORMULAS["hybrid"] = lambda t: (FORMULAS["vanilla"](t) + FORMULAS["synthesizer"](t)) / 2


@pytest.mark.parametrize("length", [16, 8])
@pytest.mark.parametrize("attention", VARIANTS)
def test_counted_products_are_those_of_the_formula(
    attention: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("birthplace_lm.attention.fused._FEW", 0)  # so few positions are attended to as more of them are
    monkeypatch.setattr("birthplace_lm.attention.scored.LONG", 0)
    assert attention in FORMULAS, f"write down in FORMULAS how many products {attention} takes"
    model = tiny(attention, knobs=KNOBS.get(attention))
    x = torch.randn(ROWS, length, D)
    counted = [count(partial(forward_backward, block.attention, x)).products for block in model.blocks]
    assert sum(counted) / len(counted) == pytest.approx(ROWS * FORMULAS[attention](length), rel=1e-12)


def test_what_is_no_product_is_counted_by_numbers_and_steps() -> None:
    x = torch.randn(4, 6)
    assert (count(lambda: x.tanh()).elementwise, count(lambda: x.softmax(-1)).elementwise) == (24, 5 * 24)
    assert count(lambda: x.sum(0)).elementwise == 24
    assert count(lambda: torch.cat((x, x)).T.clone().masked_fill(torch.ones(6, 8).bool(), 0)).total == 0


def reference(attention: str) -> Transformer:
    return bench_parts.model_of(attention, "cs224n")(facts.VOCABULARY)


@pytest.mark.parametrize("attention", VARIANTS)
def test_the_committed_facts_are_those_of_now(attention: str) -> None:
    row = facts.read(facts.folder() / "facts.json").get(attention)
    assert row is not None, f"{attention} has no row of facts: run {COMMAND}"
    model = reference(attention)
    now = {"parameters": facts.parameters(model), "flops": facts.flops(model), "cache": facts.cache(model)}
    other = now["flops"].pop("elementwise")  # may differ a little from one PyTorch to the next
    assert row["flops"].pop("elementwise") == pytest.approx(other, rel=0.1), f"run {COMMAND}"
    assert {column: row[column] for column in now} == now, f"the facts of {attention} have changed: run {COMMAND}"


def test_the_readme_shows_the_committed_facts() -> None:
    rows = facts.read(facts.folder() / "facts.json")
    shown = (facts.folder() / "README.md").read_text(encoding="utf-8")
    assert list(rows) == VARIANTS and f"{facts.BEGIN}\n{facts.table(rows)}{facts.END}" in shown, f"run {COMMAND}"


def test_what_decoding_keeps() -> None:
    """4 bytes a number, two layers."""

    def cache(attention: str) -> tuple[int, int]:
        found = facts.cache(tiny(attention, knobs=KNOBS.get(attention)))
        return found["bytes_a_character"], found["constant_bytes"]

    assert cache("vanilla") == (2 * 4 * 2 * D, 0)
    assert cache("multi_query") == (2 * 4 * 2 * K, 0)
    assert cache("synthesizer") == (2 * 4 * D, 0)
    assert cache("sliding_window") == (0, 2 * 4 * 2 * D * (WINDOW - 1))
    assert cache("linear") == (0, 2 * 4 * D * (K + 1))


def test_parameters_of_the_reference() -> None:
    assert facts.parameters(reference("vanilla")) == {"model": 3_323_392, "attention_layer": 4 * 256 * 257}
    assert facts.parameters(reference("synthesizer"))["model"] == 3_076_988


def lookups(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "lookup.json"
    path.write_text(json.dumps({"results": list(rows)}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("accuracy", "told"),
    [
        ({"content 1": 0.12, "content 2": 0.9, "position 1": 0.95}, "content and position"),
        ({"content 1": 0.12, "content 2": 0.89, "position 1": 1.0, "position 2": 0.3}, "position"),
        ({"content 1": 0.95}, "content"),
        ({"content 1": 0.1, "position 2": 0.75}, "neither"),
        ({}, "–"),
    ],
)
def test_what_an_attention_looks_up_by(accuracy: dict[str, float], told: str) -> None:
    assert facts.looks_up_by(accuracy) == told
    assert facts.table({"x": {"lookup": accuracy} if accuracy else {}}).splitlines()[-1].endswith(f"| {told} |")


def test_lookups_are_read_and_averaged_by_seeds(tmp_path: Path) -> None:
    row = {"attention": "vanilla", "layers": 1, "task": "content"}
    path = lookups(tmp_path, {**row, "accuracy": 1.0, "seeds": 3}, {**row, "accuracy": 0.6, "seeds": 1})
    assert facts.lookup(path) == {"vanilla": {"content 1": 0.9}}
    path.write_text('{"results": [{"attention": "vanilla"}]}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"is no table of lookups \(KeyError.*birthplace-explore lookup"):
        facts.lookup(path)
    path.write_text(json.dumps({"setting": {**vars(LookupTask(gap=8)), "steps": 9}, "results": []}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"was made with \{'gap': 8\}, where the table has"):
        facts.lookup(path)
    path.write_text(json.dumps({"setting": vars(LookupTask()), "results": []}), encoding="utf-8")
    assert facts.lookup(path) == {}


def test_a_column_made_anew_leaves_the_others(tmp_path: Path) -> None:
    before = {"vanilla": {"flops": {"products": 7, "elementwise": 1}, "speed": {"relative": 1.0}, "gone": {}}}
    models = {name: partial(tiny, name) for name in ("vanilla", "linear")}
    made = {name: (lambda size, make=make: make(vocabulary_size=size)) for name, make in models.items()}
    path = lookups(tmp_path, {"attention": "linear", "layers": 2, "task": "position", "accuracy": 0.5, "seeds": 1})
    rows = facts.regenerate(made, ["parameters", "lookup"], before, lookups=path)
    assert list(rows) == ["vanilla", "linear"] and "gone" not in rows["vanilla"]
    assert rows["vanilla"]["flops"] == before["vanilla"]["flops"] and "lookup" not in rows["vanilla"]
    assert rows["linear"]["lookup"] == {"position 2": 0.5} and "flops" not in rows["linear"]
    assert rows["vanilla"]["parameters"]["model"] == tiny("vanilla", vocabulary_size=256).n_parameters()
    lines = facts.table(rows).splitlines()
    assert lines[3].startswith("| linear |") and lines[3].endswith("| – | – | – | – | – | – | – | – | 50% | neither |")


def test_the_machine_of_each_speed_stands_below_the_table() -> None:
    documents = [f"Ada Vik {number} was born in Pau ." for number in range(8)]
    made = {name: (lambda size, name=name: tiny(name, vocabulary_size=size)) for name in ("vanilla", "linear")}
    rows = facts.regenerate(made, ["speed"], {}, documents, repetitions=1, machine="one")
    assert {row["speed"]["on"] for row in rows.values()} == {"one"}
    assert facts.table(rows).endswith("|\n\nTraining speed: one.\n")
    rows["linear"]["speed"]["on"] = "another"
    assert facts.table(rows).endswith("Training speed of vanilla: one.\n\nTraining speed of linear: another.\n")
    del rows["linear"]["speed"]["on"], rows["vanilla"]["speed"]["on"]
    assert facts.table(rows).endswith("|\n") and "Training speed:" not in facts.table(rows)
    assert re.search(
        r", \d+ threads?, torch \d+\.\d+\.\d+.*, (commit [0-9a-f]{10}|an installed package)", bench_parts.in_words()
    )


def test_the_prose_around_the_table_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"Before.\n{facts.BEGIN}\nold\n{facts.END}\nAfter.\n", encoding="utf-8")
    facts.write({"vanilla": {}}, tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("Before.\n") and text.endswith("\nAfter.\n") and "old" not in text
    assert facts.read(tmp_path / "facts.json") == {"vanilla": {}}
    (tmp_path / "facts.json").write_text('{"rows": {}}')
    with pytest.raises(ValueError, match=r"facts\.json holds no table of facts \(KeyError"):
        facts.read(tmp_path / "facts.json")
    (tmp_path / "README.md").write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="has no room for the table"):
        facts.write({}, tmp_path)


def test_speed_is_relative_to_vanilla_and_says_so() -> None:
    documents = [f"Ada Vik {number} was born in Pau ." for number in range(8)]
    made = {name: (lambda size, name=name: tiny(name, vocabulary_size=size)) for name in ("vanilla", "linear")}
    found = facts.speed(made, documents, repetitions=1, steps=1, batch_size=4)
    assert set(found) == {"vanilla", "linear"} and all(0 < row["relative"] < math.inf for row in found.values())
    with pytest.raises(ValueError, match="speed is measured against vanilla"):
        facts.speed({"linear": made["linear"]}, documents)


def test_the_command_regenerates_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text(f"{facts.BEGIN}\n{facts.END}\n", encoding="utf-8")
    bench.main(["facts", "--only", "parameters", "--attention", "linear", "--folder", str(tmp_path)])
    rows = facts.read(tmp_path / "facts.json")
    assert list(rows) == VARIANTS and rows["linear"]["parameters"]["model"] == 3_323_392 and rows["vanilla"] == {}
    assert "| linear | 3,323,392 | 263,168 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench.main(["facts", "--only", "beauty"])
