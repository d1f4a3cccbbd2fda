"""Real characters a second in pretraining: a textbook loop, this package bare, this package through Lightning.

All three train the same model with the same optimizer settings on the same documents, batch for batch of like size.
The textbook loop is what the course's program does: examples built one by one in Python, every one padded to the block.
"""

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.datamodules import IGNORE, SpanCorruptionDataModule
from birthplace_lm.lightning_modules import PretrainModule
from birthplace_lm.optimization import adamw
from birthplace_lm.schedules import WarmupCosine
from birthplace_lm.tokenizer import MASK, PAD, PAD_ID, CharTokenizer
from birthplace_lm.transformer import Transformer

LR, BETAS, WEIGHT_DECAY, CLIP = 6e-3, (0.9, 0.95), 0.1, 1.0


@dataclass(frozen=True)
class Timing:
    """One way to train: real characters a second of each repetition, and milliseconds a step."""

    name: str
    characters_per_second: list[float]
    step_milliseconds: list[float]

    def row(self, baseline: "Timing") -> dict[str, Any]:
        """Medians, and the median of the ratios repetition by repetition, so that the machine's drift cancels."""
        pairs = zip(self.characters_per_second, baseline.characters_per_second, strict=True)
        return {
            "name": self.name,
            "characters_per_second": median(self.characters_per_second),
            "step_milliseconds": median(self.step_milliseconds),
            "ratio": median(own / other for own, other in pairs),
        }


def compare(
    documents: Sequence[str], model: Transformer, block_size: int, batch_size: int, steps: int, repetitions: int
) -> list[Timing]:
    """Run the three ways in turn, after one step each to warm up."""
    tokenizer = CharTokenizer.fit(documents)
    ways: dict[str, Callable[[int], tuple[float, int]]] = {
        "textbook loop": _Textbook(documents, tokenizer, copy.deepcopy(model), block_size, batch_size).run,
        "this package, bare": Bare(documents, tokenizer, copy.deepcopy(model), block_size, batch_size).run,
        "this package, Lightning": _Lightning(documents, tokenizer, copy.deepcopy(model), block_size, batch_size).run,
    }
    for run in ways.values():
        run(1)
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, run in ways.items():
            results[name].append(run(steps))
    return [
        Timing(name, [n / s for s, n in runs], [1000 * s / steps for s, _ in runs]) for name, runs in results.items()
    ]


class _Textbook:
    """Examples one by one in Python, PAD up to the block, one forward and backward pass a batch, AdamW as it comes."""

    def __init__(
        self, documents: Sequence[str], tokenizer: CharTokenizer, model: Transformer, block_size: int, batch_size: int
    ):
        self.documents, self.tokenizer, self.model = documents, tokenizer, model.train()
        self.block_size, self.batch_size = block_size, batch_size
        self.optimizer = torch.optim.AdamW(model.parameters(), LR, BETAS, weight_decay=WEIGHT_DECAY)
        self.rng = random.Random(0)
        self.batches = self._batches()

    def example(self, document: str) -> tuple[list[int], list[int]]:
        """x and y of a document, each block - 1 long."""
        text = document[: self.rng.randint(4, 7 * self.block_size // 8)]
        size = max(self.rng.randint(len(text) // 8, 3 * len(text) // 8), 1)
        start = self.rng.randint(0, len(text) - size)
        sequence = text[:start] + MASK + text[start + size :] + MASK + text[start : start + size]
        ids = self.tokenizer.encode(sequence + PAD * (self.block_size - len(sequence)))
        return ids[:-1], ids[1:]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            order = self.rng.sample(range(len(self.documents)), len(self.documents))
            for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
                pairs = [self.example(self.documents[i]) for i in order[start : start + self.batch_size]]
                yield torch.tensor([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some steps."""
        begin, characters = time.perf_counter(), 0
        for x, y in islice(self.batches, steps):
            loss = F.cross_entropy(self.model(x).flatten(0, 1), y.flatten(), ignore_index=PAD_ID)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            characters += int((y != PAD_ID).sum())
        return time.perf_counter() - begin, characters


def _data(
    documents: Sequence[str], tokenizer: CharTokenizer, block_size: int, batch_size: int
) -> SpanCorruptionDataModule:
    return SpanCorruptionDataModule(
        documents, [], tokenizer, RandomSpans(block_size), block_size, batch_size, epochs=10_000
    )


class Bare:
    """This package's batches and model in a loop of ten lines."""

    def __init__(
        self, documents: Sequence[str], tokenizer: CharTokenizer, model: Transformer, block_size: int, batch_size: int
    ):
        self.model = model.train()
        self.optimizer = adamw(model, LR, BETAS, WEIGHT_DECAY)
        self.batches = cycle(_data(documents, tokenizer, block_size, batch_size).train_dataloader())

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some steps."""
        begin, characters = time.perf_counter(), 0
        for batch in islice(self.batches, steps):
            self.optimizer.zero_grad()
            sums = [
                F.cross_entropy(self.model(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction="sum")
                for x, y in zip(batch.inputs, batch.targets, strict=True)
            ]
            (torch.stack(sums).sum() / batch.n_targets).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            characters += batch.n_characters
        return time.perf_counter() - begin, characters


class _Lightning:
    """The fit of birthplace-train without its files: a Trainer, the module, the DataModule."""

    def __init__(
        self, documents: Sequence[str], tokenizer: CharTokenizer, model: Transformer, block_size: int, batch_size: int
    ):
        def optimizer(module: torch.nn.Module) -> torch.optim.Optimizer:
            return adamw(module, LR, BETAS, WEIGHT_DECAY)

        self.learner = PretrainModule(model, tokenizer, optimizer, WarmupCosine(), seed=0)
        self.data = _data(documents, tokenizer, block_size, batch_size)

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some steps; setting up the Trainer is not counted, as a run does it once."""
        trainer = pl.Trainer(
            accelerator="cpu", max_steps=steps, gradient_clip_val=CLIP, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        before = self.learner.characters_seen
        self.learner.seconds_before = 0.0
        watch = _Watch()
        trainer.callbacks.append(watch)  # type: ignore[attr-defined]
        trainer.fit(self.learner, datamodule=self.data)
        return watch.seconds, self.learner.characters_seen - before


class _Watch(pl.Callback):
    """Seconds between the start and the end of training."""

    seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self._begin
