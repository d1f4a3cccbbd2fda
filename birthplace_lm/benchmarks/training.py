"""Real characters a second in pretraining: a textbook loop, this package bare and through Lightning, and its peers.

All train a model of the same sizes with the same optimizer settings. The ways themselves stand in `ways`; here they are
made, run by turns, and timed.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from birthplace_lm.benchmarks.arithmetic import count
from birthplace_lm.benchmarks.ways import UnavailableError, Way
from birthplace_lm.benchmarks.ways.bare import Bare
from birthplace_lm.benchmarks.ways.litgpt import litgpt_loop
from birthplace_lm.benchmarks.ways.recording import Recording
from birthplace_lm.benchmarks.ways.textbook import Textbook
from birthplace_lm.benchmarks.ways.through_lightning import ThroughLightning
from birthplace_lm.benchmarks.ways.transformers_trainer import Gpt2Trainer
from birthplace_lm.benchmarks.ways.x_transformers import x_transformers_loop
from birthplace_lm.transformer import Transformer

OURS: dict[str, Callable[..., Way]] = {
    "textbook": Textbook,
    "bare": Bare,
    "lightning": ThroughLightning,
    "bfloat16": partial(Bare, bfloat16=True),
}
PEERS: dict[str, Callable[..., Way]] = {
    "transformers": Gpt2Trainer,
    "x-transformers": x_transformers_loop,
    "litgpt": litgpt_loop,
}
WAYS = (*OURS, *PEERS)
TEXTBOOK, BARE, LIGHTNING = "textbook loop", "this package, bare", "this package, Lightning"
BFLOAT16 = "this package, bare, bfloat16"
_NAMES = {"textbook": TEXTBOOK, "bare": BARE, "lightning": LIGHTNING, "bfloat16": BFLOAT16}
_NAMES |= {"transformers": "transformers Trainer"}
LAYOUTS = ("padded", "length-aware")


@dataclass
class Timing:
    """One way: seconds and real characters of each repetition of so many steps, and what a step multiplies."""

    name: str
    steps: int
    parameters: int = 0
    products: float = 0.0  # floating-point operations of a step's matrix products, forward and backward
    seconds: list[float] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Real characters a second, repetition by repetition."""
        return [characters / seconds for characters, seconds in zip(self.characters, self.seconds, strict=True)]


def names_of(way: str) -> list[str]:
    """What a way is called in the tables: this package's have one name, a peer has two, one a layout of its batches.

    >>> names_of("litgpt")
    ['litgpt, padded', 'litgpt, length-aware']
    """
    name = _NAMES.get(way, way)
    return [f"{name}, {layout}" for layout in LAYOUTS] if way in PEERS else [name]


def is_this_package(name: str) -> bool:
    """Whether a way is this package's own training; the textbook loop trains our model, but is what we compare with.

    >>> is_this_package("this package, bare"), is_this_package("textbook loop")
    (True, False)
    """
    return name in (BARE, LIGHTNING, BFLOAT16)


def make(name: str, model: Transformer, recording: Recording) -> Way:
    """The way of this name in the tables, with a model of its own; raises UnavailableError where it cannot be had."""
    (way,) = (way for way in WAYS if name in names_of(way))
    if way in PEERS:
        return PEERS[way](model, recording.length_aware if name.endswith(LAYOUTS[1]) else recording.padded)
    of_documents = (recording.documents, recording.tokenizer)
    return OURS[way](*of_documents, copy.deepcopy(model), recording.block_size, recording.batch_size)


def make_all(ways: Sequence[str], model: Transformer, recording: Recording) -> tuple[dict[str, Way], dict[str, str]]:
    """What can be had of these ways, by name, and why the others cannot."""
    made: dict[str, Way] = {}
    missing: dict[str, str] = {}
    for way in ways:
        try:
            made |= {name: make(name, model, recording) for name in names_of(way)}
        except UnavailableError as error:
            missing[way] = str(error)
    return made, missing


def compare(
    ways: Mapping[str, Way],
    steps: int,
    repetitions: int,
    between: Callable[[], Any] = lambda: None,
    timed: Callable[[str], tuple[float, int]] | None = None,
) -> list[Timing]:
    """Run the ways in turn; every one is warmed up by a run whose operations are counted.

    `between` is called once a repetition, for what is to be measured beside them in the same minutes. `timed` gives the
    seconds and characters of a way by its name where it is not here that they run.
    """
    timed = timed or (lambda name: ways[name].run(steps))
    timings = []
    for name, way in ways.items():
        arithmetic = count(partial(way.run, steps))
        parameters = sum(parameter.numel() for parameter in way.model.parameters())
        timings.append(Timing(name, steps, parameters, arithmetic.products / steps))
    for _ in range(repetitions):
        for timing in timings:
            seconds, characters = timed(timing.name)
            timing.seconds.append(seconds)
            timing.characters.append(characters)
        between()
    return timings
