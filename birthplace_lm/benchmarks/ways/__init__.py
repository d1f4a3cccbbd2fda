"""Ways to train the same model on the same text, one file a way; `training` measures them by turns.

A way is made once and run many times. All have the same settings of AdamW and clipping and the same number of threads,
and all but the textbook loop, which draws its own as such loops do, the same batches.

Legend: B batch, M micro-batches, T time, V vocabulary.
"""

from typing import Protocol

from torch import nn

LR, BETAS, WEIGHT_DECAY, CLIP = 6e-3, (0.9, 0.95), 0.1, 1.0


class Way(Protocol):
    """One way to train."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some optimizer steps, from the first batch on; the textbook loop draws anew."""
        ...


class UnavailableError(Exception):
    """A way that cannot be measured here: its library is missing, or cannot make a model of this kind. Says which."""
