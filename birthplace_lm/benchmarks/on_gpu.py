"""Real characters a second in pretraining on a GPU: a textbook loop, this package bare and through Lightning.

Each trains a copy of the same model, and they run by turns. The textbook loop is the one of `training`, in float32 as
torch comes; this package computes in bfloat16 with float32 weights, as trainer=gpu has it.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from birthplace_lm.benchmarks.training import BARE, LIGHTNING, TEXTBOOK, Timing
from birthplace_lm.benchmarks.training_table import lightning_overhead, ratio
from birthplace_lm.benchmarks.ways import Way
from birthplace_lm.benchmarks.ways.recording import Recording
from birthplace_lm.benchmarks.ways.replayed import Replayed
from birthplace_lm.benchmarks.ways.textbook import Textbook
from birthplace_lm.benchmarks.ways.through_lightning import ThroughLightning
from birthplace_lm.transformer import Transformer

LONGER = 25  # steps of ours for one of the textbook loop's, which is so much slower


def compare(model: Transformer, recording: Recording, steps: int, repetitions: int) -> list[Timing]:
    """The three ways by turns; raises ValueError where there is no GPU."""
    if not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here: birthplace-bench training measures the processor")
    made: dict[str, tuple[Callable[..., Way], int]] = {
        TEXTBOOK: (Textbook, steps),
        BARE: (Replayed, LONGER * steps),
        LIGHTNING: (partial(ThroughLightning, on_gpu=True), LONGER * steps),
    }
    ways: list[tuple[Way, Timing]] = []
    for name, (make, of_steps) in made.items():
        own = copy.deepcopy(model).cuda()
        way = make(recording.documents, recording.tokenizer, own, recording.block_size, recording.batch_size)
        way.run(steps)
        ways.append((way, Timing(name, of_steps, own.n_parameters())))
    for _ in range(repetitions):
        for way, timing in ways:
            torch.cuda.synchronize()
            seconds, characters = way.run(timing.steps)
            timing.seconds.append(seconds)
            timing.characters.append(characters)
    return [timing for _, timing in ways]


def replayed(model: Transformer, recording: Recording) -> Replayed:
    """This package bare, with a copy of the model."""
    own = copy.deepcopy(model).cuda()
    return Replayed(recording.documents, recording.tokenizer, own, recording.block_size, recording.batch_size)


def figures(timings: Sequence[Timing]) -> dict[str, Any]:
    """Medians of the repetitions, ratios repetition by repetition, and the GPU that they are of."""
    textbook = timings[0]
    rows = [
        {
            "name": timing.name,
            "step_milliseconds": 1000 * median(timing.seconds) / timing.steps,
            "characters_per_second": median(timing.rates),
            "ratio": ratio(timing, textbook),
        }
        for timing in timings
    ]
    peak = torch.cuda.max_memory_allocated() / 2**20
    return {
        "gpu": torch.cuda.get_device_name(),
        "training": rows,
        "lightning_overhead": lightning_overhead(timings),
        "peak_memory": peak,
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The rows as a table, and below it what Lightning costs."""
    lines = ["| way | ms a step | real characters/s | to the textbook loop |", "| --- | ---: | ---: | ---: |"]
    for row in found["training"]:
        cells = (f"{row['step_milliseconds']:.2f}", f"{row['characters_per_second']:,.0f}", f"{row['ratio']:.1f} x")
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    lines += ["", f"{found['gpu']}; Lightning adds {found['lightning_overhead']:+.1%} to the bare loop's time"]
    return "\n".join(lines) + "\n"
