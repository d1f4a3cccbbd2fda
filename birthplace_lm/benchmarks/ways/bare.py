"""This package's batches and model in a loop of ten lines: what its training costs without Lightning around it."""

import time
from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F

from birthplace_lm.benchmarks.ways import BETAS, CLIP, LR, WEIGHT_DECAY
from birthplace_lm.benchmarks.ways.recording import data_of
from birthplace_lm.layouts import IGNORE
from birthplace_lm.optimization import adamw
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer


class Bare:
    """Every group of rows goes back as soon as it went forward, as in PretrainModule.

    Every run makes its batches anew, as a training does. With `bfloat16` matrices are multiplied in it, as
    trainer.precision=bf16-mixed has it; weights stay float32.
    """

    def __init__(
        self,
        documents: Sequence[str],
        tokenizer: CharTokenizer,
        model: Transformer,
        block_size: int,
        batch_size: int,
        bfloat16: bool = False,
    ):
        self.model, self.bfloat16 = model.train(), bfloat16
        self.optimizer = adamw(model, LR, BETAS, WEIGHT_DECAY)
        self.batches = data_of(documents, tokenizer, block_size, batch_size).train_dataloader()

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some steps, from the first of the training on."""
        begin, characters = time.perf_counter(), 0
        for batch in islice(self.batches, steps):
            self.optimizer.zero_grad()
            # around all groups, so that weights are cast once
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                for x, y in zip(batch.inputs, batch.targets, strict=True):
                    logits = self.model(x).flatten(0, 1)  # (B·T, V)
                    loss = F.cross_entropy(logits, y.flatten(), ignore_index=IGNORE, reduction="sum")
                    with torch.autocast("cpu", enabled=False):
                        (loss / batch.n_targets).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            characters += batch.n_characters
        return time.perf_counter() - begin, characters
