"""What a layer keeps of the positions it has seen, so that decoding computes each of them once.

Legend: B batch, H heads, S all positions so far, S₀ those of a trunk, T new ones, K width of a head, R rows that go on
from a trunk.
"""

import torch
from torch import Tensor

_ROOM = 32  # positions that can be appended before what is there is copied again: most answers are shorter


class LayerMemory(dict[str, Tensor]):
    """Tensors by name, the batch as their first dimension, that grow along their last dimension but one.

    From the second time on they grow in memory that is longer than they are, so that a character more copies the others
    seldom: that took a quarter of the time of greedy answers. Only while gradients are recorded is there no room, for
    what a gradient needs must stay as it was.

    With `forks` its layer can read a `trunk`: positions that many rows go on from, kept once for all of them. What is
    in the memory itself is then what came behind it.
    """

    def __init__(self, kept: dict[str, Tensor] | None = None, forks: bool = False, trunk: "Trunk | None" = None):
        super().__init__(kept or {})
        self.forks, self.trunk = forks, trunk
        self._rooms: dict[str, Tensor] = {}  # (B, …, at least S, K), with the tensor of that name at their beginning

    def length(self, name: str) -> int:
        """How many positions are kept under this name, those of the trunk included."""
        own = self[name].shape[-2] if name in self else 0
        return own if self.trunk is None else own + self.trunk.length

    def append(self, name: str, new: Tensor) -> Tensor:
        """All positions so far, kept under this name: (B, …, T, K) -> (B, …, S, K)."""
        if name not in self:
            self[name] = new
            return new
        kept, room = self[name], self._rooms.get(name)
        begin, end = kept.shape[-2], kept.shape[-2] + new.shape[-2]
        if torch.is_grad_enabled() or room is None or room.data_ptr() != kept.data_ptr():
            room = torch.cat((kept, new), dim=-2)  # who appends twice will go on: there is room from then on
        else:
            if room.shape[-2] < end:
                room = kept.new_empty((*kept.shape[:-2], end + _ROOM, kept.shape[-1]))
                room[..., :begin, :] = kept
            room[..., begin:end, :] = new
        self[name], self._rooms[name] = room[..., :end, :], room
        return self[name]

    def rows(self, index: Tensor) -> "LayerMemory":
        """Some rows of everything, more than once if asked for so, copied: index (R,)."""
        # index_select copies whole rows, in a third of the time that kept[index] takes
        kept = {name: kept.index_select(0, index) for name, kept in self.items()}
        return LayerMemory(kept, self.forks, self.trunk and self.trunk.rows(index))

    def fork(self, index: Tensor) -> "LayerMemory":
        """The same rows, uncopied as far as the layer can do without: for many that go on from few."""
        if not self or not self.forks or self.trunk is not None:
            return self.rows(index)
        return LayerMemory({}, True, Trunk(dict(self), index))


class Trunk:
    """Positions by name, (Q, G, S₀, K), and which of the Q each of R rows goes on from: `of` (R,).

    A product of every row with its own of the Q is made as Q products, of all rows beside each other that have the
    same: no row of the trunk is copied for each that goes on from it.
    """

    def __init__(self, kept: dict[str, Tensor], of: Tensor):
        self.kept, self.of = kept, of
        order = of.argsort(stable=True)
        self._asked, number, count = of[order].unique_consecutive(return_inverse=True, return_counts=True)
        place = torch.arange(len(of), device=of.device) - (count.cumsum(0) - count)[number]
        self._shape = len(self._asked), int(count.max()) if len(of) else 0
        self._at = torch.empty_like(of)  # (R,), where a row stands among all of all, each filled up to the most
        self._at[order] = number * self._shape[1] + place

    @property
    def length(self) -> int:
        """S₀."""
        return self.kept["k"].shape[-2]

    def rows(self, index: Tensor) -> "Trunk":
        """Some rows, more than once if asked for so: index (R,)."""
        return Trunk(self.kept, self.of[index])

    def scores(self, q: Tensor) -> Tensor:
        """Every row's queries (R, G, M, K) with the keys `k` that it goes on from: (R, G, M, S₀)."""
        return self._product(q, self.kept["k"].mT)

    def mixed(self, weights: Tensor) -> Tensor:
        """The values `v` by every row's weights (R, G, M, S₀): (R, G, M, K)."""
        return self._product(weights, self.kept["v"])

    def _product(self, x: Tensor, kept: Tensor) -> Tensor:
        """(R, G, M, ·) times (Q, G, ·, ·)."""
        n, most = self._shape
        if n < len(kept):
            kept = kept.index_select(0, self._asked)
        beside = x.new_zeros(n * most, *x.shape[1:]).index_copy_(0, self._at, x)  # (n·most, G, M, ·)
        beside = beside.unflatten(0, (n, most)).transpose(1, 2).flatten(2, 3)  # (n, G, most·M, ·)
        product = (beside @ kept).unflatten(2, (most, x.shape[2])).transpose(1, 2)  # (n, most, G, M, ·)
        return product.flatten(0, 1).index_select(0, self._at)
