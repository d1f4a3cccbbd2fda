"""What the course's program does, as a textbook would write it: the way that the others are compared with."""

import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from birthplace_lm.benchmarks.ways import BETAS, CLIP, LR, WEIGHT_DECAY
from birthplace_lm.tokenizer import MASK, PAD, PAD_ID, CharTokenizer
from birthplace_lm.transformer import Transformer


class Textbook:
    """Examples one by one in Python, PAD up to the block, one forward and backward pass a batch, AdamW as it comes."""

    def __init__(
        self, documents: Sequence[str], tokenizer: CharTokenizer, model: Transformer, block_size: int, batch_size: int
    ):
        self.documents, self.tokenizer, self.model = documents, tokenizer, model.train()
        self.block_size, self.batch_size = block_size, batch_size
        self.device = next(model.parameters()).device
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
        """(seconds, real characters) of some steps, each on examples that were not drawn before."""
        begin, characters = time.perf_counter(), 0
        for x, y in islice(self.batches, steps):
            x, y = x.to(self.device), y.to(self.device)
            loss = F.cross_entropy(self.model(x).flatten(0, 1), y.flatten(), ignore_index=PAD_ID)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            characters += int((y != PAD_ID).sum())
        return time.perf_counter() - begin, characters
