"""What an attention costs and can do, one row a variant, and the table of it beside the variants' files.

Every column can be made again by itself; the others stay as they are. `attention/facts.json` holds the figures,
`attention/README.md` shows them between two marks, so that the prose around them stays.

    parameters  of the reference model with this attention, and of one of its attention layers
    flops       forward and backward of one attention layer at T = 128, a token, as counted while it runs
    cache       what decoding keeps: bytes a character of text so far, and bytes that stay the same
    speed       characters a second of training, vanilla being 1
    lookup      accuracy in looking things up by content and by position, from what `birthplace-explore` measured

Legend: B batch, T time.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from birthplace_lm.benchmarks.arithmetic import count, forward_backward
from birthplace_lm.benchmarks.training import Bare
from birthplace_lm.exploration.lookup_task import LookupTask
from birthplace_lm.replacing import replace_file
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer

COLUMNS = ("parameters", "flops", "cache", "speed", "lookup")
EXACT = COLUMNS[:3]  # the same on every machine
BASELINE, VOCABULARY, LENGTH, ROWS = "vanilla", 256, 128, 2
TASKS, REACHED = ("content", "position"), 0.9
BEGIN, END = "<!-- facts: written by birthplace-bench facts -->", "<!-- end of facts -->"

Models = Mapping[str, Callable[[int], Transformer]]  # name -> a new model for so many different characters
Rows = dict[str, dict[str, Any]]  # name -> column -> figures


def folder() -> Path:
    """Where facts.json and README.md lie: beside the variants."""
    return Path(__file__).resolve().parents[1] / "attention"


def parameters(model: Transformer) -> dict[str, int]:
    """Of the whole model, and of an attention layer: the mean where the layers differ."""
    layers = _attentions(model)
    attention = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    return {"model": model.n_parameters(), "attention_layer": round(attention / len(layers))}


def _attentions(model: Transformer) -> list[nn.Module]:
    return [layer for block in model.blocks if isinstance(layer := block.attention, nn.Module)]


def flops(model: Transformer) -> dict[str, int]:
    """Floating-point operations a token of an attention layer's forward and backward pass, without dropout.

    T = 128, or the longest sequence that the model sees. `products` are those of matrix products, `elementwise` one for
    every number and step of the rest, which takes longer an operation. The mean where the layers differ.
    """
    length = min(LENGTH, model.max_length)
    x = torch.randn(ROWS, length, model.characters.embedding_dim)
    counted = [count(partial(forward_backward, layer, x)) for layer in _attentions(model.eval())]
    tokens = len(counted) * ROWS * length
    return {
        "products": round(sum(one.products for one in counted) / tokens),
        "elementwise": round(sum(one.elementwise for one in counted) / tokens),
    }


@torch.no_grad()
def cache(model: Transformer) -> dict[str, int]:
    """Bytes that decoding keeps for one text, all layers: so many a character, so many however long it is.

    Measured after n and 2n characters, one by one; n is the half of what the model sees.
    """
    n, sizes, memory = model.max_length // 2, [0], model.eval().new_cache()
    for position in range(2 * n):
        model(torch.zeros(1, 1, dtype=torch.long), memory, position)
        if position + 1 in (n, 2 * n):
            kept = (tensor for layer in memory for tensor in layer.values())
            sizes.append(sum(tensor.numel() * tensor.element_size() for tensor in kept))
    _, once, twice = sizes
    slope = (twice - once) // n
    return {"bytes_a_character": slope, "constant_bytes": once - n * slope}


def speed(
    models: Models, documents: Sequence[str], repetitions: int = 5, steps: int = 2, batch_size: int = 128
) -> dict[str, dict[str, float]]:
    """Characters a second of each variant over vanilla's: a few steps of each by turns, the median of the pairs."""
    tokenizer = CharTokenizer.fit(documents)

    def trained(name: str) -> Bare:
        model = models[name](len(tokenizer))
        return Bare(documents, tokenizer, model, model.max_length, batch_size)

    def rate(way: Bare) -> float:
        seconds, characters = way.run(steps)
        return characters / seconds

    if BASELINE not in models:
        raise ValueError(f"speed is measured against {BASELINE}: name it too, or leave speed out with --only")
    vanilla, found = trained(BASELINE), {}
    for name in models:
        own = trained(name)
        for way in (vanilla, own):
            way.run(1)
        pairs = [(rate(own), rate(vanilla)) for _ in range(repetitions)]
        found[name] = {"relative": round(median(one / other for one, other in pairs), 3)}
    return found


def lookup(path: Path) -> dict[str, dict[str, Any]]:
    """{"vanilla": {"content 1": 0.99, …}}: accuracy by task and number of layers, from {"results": [row, …]}.

    A row: {"attention": "vanilla", "layers": 1, "task": "content" or "position", "accuracy": 0.99, "seeds": 3}; several
    rows of one attention, task and number of layers are averaged, by their seeds. Raises ValueError for anything else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows, sequences = found["results"], found.get("setting", {})
        gathered: dict[str, dict[str, list[tuple[float, int]]]] = {}
        for row in rows:
            cell = gathered.setdefault(row["attention"], {}).setdefault(f"{row['task']} {row['layers']}", [])
            cell.append((float(row["accuracy"]), len(row["seeds"]) if isinstance(row["seeds"], list) else row["seeds"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f'{path} is no table of lookups ({error!r}): expected {{"results": [{{"attention", "layers", "task", '
            '"accuracy", "seeds"}, …]}, as birthplace-explore lookup --table writes it'
        ) from error
    others = {
        knob: sequences[knob] for knob, value in vars(LookupTask()).items() if sequences.get(knob, value) != value
    }
    if others:
        raise ValueError(
            f"{path} was made with {others}, where the table has what birthplace-explore lookup --table makes without "
            "more options"
        )
    return {
        name: {
            key: round(sum(a * n for a, n in cell) / sum(n for _, n in cell), 4) for key, cell in sorted(cells.items())
        }
        for name, cells in gathered.items()
    }


def regenerate(
    models: Models,
    only: Sequence[str],
    before: Rows,
    documents: Sequence[str] = (),
    lookups: Path | None = None,
    repetitions: int = 5,
    machine: str = "",
) -> Rows:
    """The rows of these variants with some columns made anew and the others as they were.

    Speed is measured on `documents`, and `machine` noted with it; the column of lookups stays as it is where no file of
    `lookups` is named.
    """
    rows: Rows = {name: {c: v for c, v in before.get(name, {}).items() if c in COLUMNS} for name in models}
    measures: dict[str, Callable[[Transformer], dict[str, int]]] = {
        "parameters": parameters,
        "flops": flops,
        "cache": cache,
    }
    for name, make in models.items():
        if set(only) & set(EXACT):
            model = make(VOCABULARY)
            rows[name].update({column: measures[column](model) for column in EXACT if column in only})
    new: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    if "speed" in only:
        new["speed"] = {name: {**row, "on": machine} for name, row in speed(models, documents, repetitions).items()}
    if "lookup" in only and lookups is not None:
        new["lookup"] = lookup(lookups)
    for column, found in new.items():
        for name in models:
            rows[name].pop(column, None)
            if name in found:
                rows[name][column] = dict(found[name])
    return {name: {c: row[c] for c in COLUMNS if c in row} for name, row in rows.items()}


def read(path: Path) -> Rows:
    """The rows of facts.json; none where there is no such file."""
    if not path.is_file():
        return {}
    try:
        rows: Rows = json.loads(path.read_text(encoding="utf-8"))["attention"]
        return rows
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no table of facts ({error!r}): move it away, all columns are then made"
        ) from error


def write(rows: Rows, where: Path) -> None:
    """facts.json, and the table in README.md between its marks; ValueError when README.md has lost them."""
    readme = where / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, begun, rest = text.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{readme} has no room for the table: it goes between the lines {BEGIN} and {END}")
    replace_file(where / "facts.json", json.dumps({"attention": rows}, indent=1) + "\n")
    replace_file(readme, f"{head}{BEGIN}\n{table(rows)}{END}{tail}")


def table(rows: Rows) -> str:
    """The facts as Markdown, "–" where something was not measured; below them on which machine the speed was."""
    head = [
        "attention", "parameters, model", "a layer", "kFLOP a token: products", "other",
        "cache: bytes a character", "constant bytes", "training speed", "by content: 1 layer", "2 layers",
        "by position: 1 layer", "2 layers", "looks up by",
    ]  # fmt: skip
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *([name, *_cells(row)] for name, row in rows.items())]
    machines: dict[str, list[str]] = {}
    for name, row in rows.items():
        if machine := row.get("speed", {}).get("on"):
            machines.setdefault(machine, []).append(name)
    whose = [f" of {', '.join(names)}" for names in machines.values()] if len(machines) > 1 else [""]
    told = [f"\nTraining speed{of}: {machine}.\n" for of, machine in zip(whose, machines, strict=False)]
    return "".join([*(f"| {' | '.join(line)} |\n" for line in lines), *told])


def _cells(row: Mapping[str, Any]) -> list[str]:
    shown = [
        ("parameters", "model", "{:,}"), ("parameters", "attention_layer", "{:,}"),
        ("flops", "products", "k"), ("flops", "elementwise", "k"),
        ("cache", "bytes_a_character", "{:,}"), ("cache", "constant_bytes", "{:,}"), ("speed", "relative", "{:.2f}"),
        *(("lookup", f"{task} {layers}", "{:.0%}") for task in TASKS for layers in (1, 2)),
    ]  # fmt: skip
    values = [(row.get(column, {}).get(key), form) for column, key, form in shown]
    cells = ["–" if v is None else f"{v / 1000:,.0f}" if form == "k" else form.format(v) for v, form in values]
    return [*cells, looks_up_by(row.get("lookup", {}))]


def looks_up_by(accuracy: Mapping[str, float]) -> str:
    """The tasks of {"content 1": 0.99, …} that one or two layers solve nine times in ten; "–" where none was tried."""
    reached = [task for task in TASKS if max(accuracy.get(f"{task} {layers}", 0.0) for layers in (1, 2)) >= REACHED]
    return " and ".join(reached) or ("neither" if accuracy else "–")
