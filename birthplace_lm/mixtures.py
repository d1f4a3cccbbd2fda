"""Questions among documents: how many an epoch has and which they are, as pure functions of seed and epoch.

Legend: B examples.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from birthplace_lm.batches import stream


@dataclass(frozen=True)
class Mixture:
    """Every document once an epoch, and questions that are a share of the epoch's examples.

    Several `shares` are a schedule: they stand at equal distances from the first epoch to the last, with straight lines
    between. All questions take their turn before any comes again, however many an epoch has.
    """

    n_documents: int
    n_questions: int
    shares: tuple[float, ...]
    epochs: int
    seed: int

    def __post_init__(self) -> None:
        if wrong := [share for share in self.shares if not 0 <= share < 1]:
            raise ValueError(f"question_share is a share in [0, 1), not {wrong[0]}")
        if not self.shares:
            raise ValueError("question_share is a share or several, one after another, and there is none: 0 for none")
        if self.epochs == 1 < len(self.shares):
            raise ValueError(f"question_share has {len(self.shares)} values for 1 epoch: name one, or train for more")

    @cached_property
    def questions_in(self) -> tuple[int, ...]:
        """How many questions every epoch has."""
        if not self.n_questions:
            return (0,) * self.epochs
        shares = np.interp(np.linspace(0, 1, self.epochs), np.linspace(0, 1, len(self.shares)), self.shares)
        return tuple(round(self.n_documents * share / (1 - share)) for share in shares.tolist())

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many examples every epoch has: documents 0 … n_documents - 1, then the places of questions."""
        return tuple(self.n_documents + n for n in self.questions_in)

    @cached_property
    def _questions_before(self) -> tuple[int, ...]:
        return tuple(accumulate(self.questions_in, initial=0))

    def split(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Which of some examples of an epoch are documents, and which are questions: (B,) -> (D,), (B - D,)."""
        documents = index < self.n_documents
        return documents.nonzero()[:, 0], (~documents).nonzero()[:, 0]

    def questions(self, epoch: int, places: Tensor) -> Tensor:
        """Which questions stand in some places of an epoch: (B,) -> (B,)."""
        count = self._questions_before[epoch] + places
        turn = count // self.n_questions
        order = {int(t): _order_of_turn(self.seed, int(t), self.n_questions) for t in turn.unique()}
        return torch.stack([order[int(t)][c % self.n_questions] for t, c in zip(turn, count, strict=True)])


@lru_cache(maxsize=2)  # a batch may end one turn and begin the next; a million numbers are not sorted for each batch
def _order_of_turn(seed: int, turn: int, n: int) -> Tensor:
    """The order in which a turn takes n questions: (n,)."""
    return torch.argsort(stream(seed, turn, torch.arange(n), -3))
