"""Small transformers taught to look things up: the model, the training, and how it is scored.

Every step brings sequences that were never there before, so the share of right answers in a training batch, taken
before the step, is an estimate on unseen sequences, and nothing can be learned by heart.

Legend: B sequences, T places, n pairs, V values.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.exploration.lookup_task import LookupTask, PairEmbedding
from birthplace_lm.optimization import adamw
from birthplace_lm.positions.learned import LearnedPositions
from birthplace_lm.transformer import Attention, Transformer

Goal = Literal["content", "position"]
GOALS: tuple[Goal, Goal] = ("content", "position")
D_MODEL, N_HEADS = 64, 4
ROWS = 16  # sequences a step
STEPS = 1500  # at most: vanilla needs 140 to 250, in either task and with one layer or two
LEVEL_FROM, LEVEL_OVER, LEVEL = 600, 200, 0.02  # from step 600 on, whoever gains less than 0.02 in 200 steps stops
LEARNING_RATE, WARM_UP = 2e-3, 50
SOLVED, PATIENCE = 0.99, 50  # the share of right answers over so many steps at which training stops
TEST_ROWS = 512


@dataclass(frozen=True)
class Outcome:
    """What a training came to: the share of right answers at every step and on 512 fresh sequences at the end.

    `seconds` are of the processor, not of the clock.
    """

    curve: tuple[float, ...]
    accuracy: float
    seconds: float
    model: Transformer

    @property
    def steps(self) -> int:
        return len(self.curve)


def lookup_model(task: LookupTask, attention: Callable[..., Attention], n_layers: int, seed: int) -> Transformer:
    """The package's transformer of width 64 with 4 heads, from pairs to values; its weights follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transformer(
            vocabulary_size=task.n_values,
            n_layers=n_layers,
            n_heads=N_HEADS,
            d_model=D_MODEL,
            block_size=task.length + 1,  # a dense synthesizer sees one place less than its block
            attention=attention,
            positions=LearnedPositions,
            dropout=0.0,
        )
        model.add_module("characters", PairEmbedding(task, D_MODEL))
    return model


def answers(model: Transformer, task: LookupTask, tokens: Tensor) -> Tensor:
    """Logits (B, n, V) over the values at the asking places: the last n."""
    return model.head(model.hidden(tokens)[:, -task.n_pairs :])


def teach(model: Transformer, task: LookupTask, goal: Goal, seed: int, n_steps: int = STEPS) -> list[float]:
    """AdamW on the cross-entropy at the asking places, in place; the share of right answers before every step.

    Ends early where `over` says so. The learning rate is the same for every attention, one at which vanilla learns
    quickly: that another stays low says that it does not get there in this way; that it cannot takes an argument.
    """
    optimizer = adamw(model, LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    shares: list[float] = []
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP)
        examples = task.examples(seed, step, ROWS)
        logits, wanted = answers(model, task, examples.tokens), getattr(examples, goal)  # (B, n, V), (B, n)
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), wanted.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shares.append(float((logits.argmax(-1) == wanted).float().mean()))
        if over(shares):
            break
    return shares


def over(shares: Sequence[float]) -> bool:
    """Whether a training has come to its end, by the shares of right answers so far.

    It is solved once the mean of 50 steps reaches 0.99, and level once it is 600 steps long and the mean of the last 50
    is not 0.02 above that of the 50 before the last 200 steps began.
    """
    if len(shares) < PATIENCE:
        return False
    latest = sum(shares[-PATIENCE:]) / PATIENCE
    if latest >= SOLVED:
        return True
    before = shares[-LEVEL_OVER - PATIENCE : -LEVEL_OVER]
    return len(shares) >= LEVEL_FROM and latest < sum(before) / PATIENCE + LEVEL


@torch.no_grad()
def accuracy(model: Transformer, task: LookupTask, goal: Goal, seed: int) -> float:
    """The share of right answers on 512 sequences that no step of a training brings."""
    examples = task.examples(seed, -1, TEST_ROWS)
    chosen = answers(model.eval(), task, examples.tokens).argmax(-1)  # (B, n)
    return float((chosen == getattr(examples, goal)).float().mean())


def train(
    task: LookupTask, goal: Goal, attention: Callable[..., Attention], n_layers: int, seed: int, n_steps: int = STEPS
) -> Outcome:
    """A new model, taught one goal and scored: a function of its arguments, the seconds aside."""
    start = time.process_time()
    model = lookup_model(task, attention, n_layers, seed)
    curve = teach(model, task, goal, seed, n_steps)
    return Outcome(tuple(curve), accuracy(model, task, goal, seed), time.process_time() - start, model)
