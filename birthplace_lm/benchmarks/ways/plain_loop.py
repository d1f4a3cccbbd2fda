"""The loop that a careful user writes around somebody else's model."""

import time
from collections.abc import Sequence
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import nn

from birthplace_lm.benchmarks.ways import BETAS, CLIP, LR, WEIGHT_DECAY
from birthplace_lm.layouts import IGNORE, Batch
from birthplace_lm.optimization import adamw


class PlainLoop:
    """A model that makes logits (B, T, V) of tokens (B, T), trained on batches that are there already.

    The loss is ours: the mean cross-entropy a target of the whole batch. Each micro-batch goes back as soon as it went
    forward, which needs the least memory; AdamW is the fused one.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Batch]):
        self.model, self.batches = model.train(), batches
        self.optimizer = adamw(model, LR, BETAS, WEIGHT_DECAY)
        self.loss = float("nan")  # of the last step

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some steps."""
        begin, characters = time.perf_counter(), 0
        for batch in islice(cycle(self.batches), steps):
            self.optimizer.zero_grad()
            self.loss = sum(
                self._backward(x, y, batch.n_targets) for x, y in zip(batch.inputs, batch.targets, strict=True)
            )
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            characters += batch.n_characters
        return time.perf_counter() - begin, characters

    def _backward(self, x: torch.Tensor, y: torch.Tensor, n_targets: int) -> float:
        logits = self.model(x).flatten(0, 1)  # (B·T, V)
        loss = F.cross_entropy(logits, y.flatten(), ignore_index=IGNORE, reduction="sum") / n_targets
        loss.backward()
        return loss.item()
