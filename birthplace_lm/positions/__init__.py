"""How a model knows where a character stands: interchangeable, one file each.

An object of this folder holds no parameters of its own layer's; a model with learned or sinusoidal positions adds
`embedding()` to its input, and an attention whose scores compare two positions turns queries and keys by `rotate`.

Legend: B batch, H heads, T time, K width of a head, D width.
"""

from torch import Tensor, nn


class Positions:
    """The contract, and what does nothing: no embedding, no rotation."""

    needs_scores = False  # whether it acts on query-key scores, which only some attentions have

    def __init__(self, block_size: int, d_model: int, n_heads: int):
        self.block_size, self.d_model, self.n_heads = block_size, d_model, n_heads

    def embedding(self) -> nn.Module | None:
        """A module from position numbers (T,) to vectors (T, D) that are added to the characters', or None."""
        return None

    def rotate(self, x: Tensor, offset: int) -> Tensor:
        """Queries or keys (B, H, T, K) whose first one stands at position `offset`, marked with their positions."""
        return x
