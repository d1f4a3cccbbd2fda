"""A different attention in every layer: the variants take turns."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from torch import nn

from birthplace_lm.positions import Positions


class Hybrid:
    """A factory that builds the first of `layers` for a model's first layer, the second for the second, and so on.

    After the last it begins again with the first. A model builds its layers in order and hands the same Positions
    object to all of them and to no other model, so that object tells the models apart: every model starts with the
    first variant, however many layers the one before had. Positions have to suit all variants that are used. Cost in
    time, memory and cache: the sum of what the layers take. Raises ValueError when there is nothing to alternate.
    """

    def __init__(self, layers: Sequence[Callable[..., nn.Module]]):
        if not layers:
            raise ValueError("a hybrid of 0 attentions: list one or more factories under layers")
        self.layers = list(layers)
        self._built: WeakKeyDictionary[Positions, int] = WeakKeyDictionary()  # how many layers of each model

    def __call__(self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions) -> nn.Module:
        number = self._built.get(positions, 0)
        self._built[positions] = number + 1
        return self.layers[number % len(self.layers)](
            d_model=d_model, n_heads=n_heads, block_size=block_size, dropout=dropout, positions=positions
        )
