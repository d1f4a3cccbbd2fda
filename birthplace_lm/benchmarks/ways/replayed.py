"""This package's batches and model on a GPU in a loop of ten lines: what its training costs there without Lightning."""

import time
from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from birthplace_lm.benchmarks.ways import BETAS, CLIP, LR, WEIGHT_DECAY
from birthplace_lm.benchmarks.ways.recording import data_of
from birthplace_lm.cuda_graphs import ReplayedSum
from birthplace_lm.layouts import IGNORE
from birthplace_lm.optimization import adamw
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer


class Replayed:
    """Every step's gradient is one CUDA graph of compiled blocks, in bfloat16 with float32 weights."""

    def __init__(
        self, documents: Sequence[str], tokenizer: CharTokenizer, model: Transformer, block_size: int, batch_size: int
    ):
        self.model = model.cuda().train()
        self.optimizer = adamw(model, LR, BETAS, WEIGHT_DECAY)
        data = data_of(documents, tokenizer, block_size, batch_size)
        data.device = torch.device("cuda", torch.cuda.current_device())
        self.batches = data.train_dataloader()
        self.gradient = ReplayedSum(self._sum_of_losses, list(model.parameters()), model.passes())

    def _sum_of_losses(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self.model(x).flatten(0, 1)  # (B·T, V)
        return F.cross_entropy(logits, y.flatten(), ignore_index=IGNORE, reduction="sum")

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some steps, from the first of the training on."""
        torch.cuda.synchronize()
        begin, characters = time.perf_counter(), 0
        for batch in islice(self.batches, steps):
            with torch.autocast("cuda", torch.bfloat16):
                self.gradient.prepare(batch.inputs, batch.targets)
                self.gradient(batch.inputs, batch.targets, batch.n_targets)
            self.gradient.hand_out()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            characters += batch.n_characters
        torch.cuda.synchronize()
        return time.perf_counter() - begin, characters
