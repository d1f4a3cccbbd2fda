"""How a model knows where a character stands: interchangeable, one file each.

An object of this folder holds no parameters of its own layer's; a model with learned or sinusoidal positions adds
`embedding()` to its input, and an attention whose scores compare two positions turns queries and keys by `rotate` and
adds `score_bias` to their scores.

Legend: B batch, H heads, T time (new positions), S all positions so far, K width of a head, D width.
"""

from copy import copy
from typing import Self

import torch
from torch import Tensor, nn


class Positions:
    """The contract, and what does nothing: no embedding, no rotation, no bias."""

    needs_scores = False  # whether it acts on scores that compare two positions, which only some attentions have
    needs_products = False  # whether those scores have to be dot products

    def __init__(self, block_size: int, d_model: int, n_heads: int):
        self.block_size, self.d_model, self.n_heads = block_size, d_model, n_heads

    def for_heads(self, n_heads: int) -> Self:
        """The same positions, knobs included, for an attention with another number of heads than the model says."""
        other = copy(self)
        other.n_heads = n_heads
        return other

    def embedding(self) -> nn.Module | None:
        """A module from position numbers (T,) to vectors (T, D) that are added to the characters', or None."""
        return None

    def rotate(self, x: Tensor, offset: int) -> Tensor:
        """Queries or keys (B, H, T, K) whose first one stands at position `offset`, marked with their positions."""
        return x

    def score_bias(self, n_new: int, n_all: int, device: torch.device) -> Tensor | None:
        """What is added to the scores of the newest n_new of n_all positions, (H, T, S), or None."""
        return None
