"""What a layer keeps of the positions it has seen, so that decoding computes each of them once.

Legend: B batch, H heads, S all positions so far, T new ones, K width of a head.
"""

import torch
from torch import Tensor

_ROOM = 32  # positions that can be appended before what is there is copied again: most answers are shorter


class LayerMemory(dict[str, Tensor]):
    """Tensors by name, the batch as their first dimension, that grow along their last dimension but one.

    From the second time on they grow in memory that is longer than they are, so that a character more copies the others
    seldom: that took a quarter of the time of greedy answers. Only while gradients are recorded is there no room, for
    what a gradient needs must stay as it was.
    """

    def __init__(self, kept: dict[str, Tensor] | None = None):
        super().__init__(kept or {})
        self._rooms: dict[str, Tensor] = {}  # (B, …, at least S, K), with the tensor of that name at their beginning

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
        return LayerMemory({name: kept.index_select(0, index) for name, kept in self.items()})
