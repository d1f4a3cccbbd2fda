"""A different attention in every layer: the variants take turns."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from torch import nn

from birthplace_lm.positions import Positions


class Hybrid:
    """A factory that builds the first of `layers` for a model's first layer, the second for the second, and so on.

    Layer n is x + attention_{n mod L}(x) of the L listed, so the model computes whatever its layers can one after the
    other: places gathered by a synthesizer and compared by the vanilla layer above, which neither does alone. Within a
    layer nothing is mixed (for that there are the mixtures), and what the first layer lacks only a later one can do.
    Interleaving kinds is older than Transformers; with attention e.g. Lieber et al. 2024 (Jamba, arXiv 2403.19887).

    After the last it begins again with the first. A model builds its layers in order and hands the same Positions
    object to all of them and to no other model, so that object tells the models apart: every model starts with the
    first variant, however many layers the one before had. Positions have to suit all variants that are used. Cost in
    time, memory and cache: the sum of what the layers take. Raises ValueError when there is nothing to
    alternate or something is listed that makes no layer.
    """

    def __init__(self, layers: Sequence[Callable[..., nn.Module]]):
        if isinstance(layers, str) or not layers or not all(map(callable, layers)):
            raise ValueError(
                f"layers of a hybrid are {layers!r}: list one or more attentions, as attention.layers=[vanilla,linear]"
            )
        self.layers = list(layers)
        self._built: WeakKeyDictionary[Positions, int] = WeakKeyDictionary()  # how many layers of each model

    def __call__(self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions) -> nn.Module:
        number = self._built.get(positions, 0)
        self._built[positions] = number + 1
        return self.layers[number % len(self.layers)](
            d_model=d_model, n_heads=n_heads, block_size=block_size, dropout=dropout, positions=positions
        )
