"""How a step's sequences lie in memory: in groups of like length, trimmed on a processor, in few shapes on a GPU.

Legend: N sequences of some steps, B of one step, M groups, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from birthplace_lm.batches import by_length, dealt, rounded_up
from birthplace_lm.corruption import Pieces, assemble, moved
from birthplace_lm.token_store import TokenStore
from birthplace_lm.tokenizer import PAD_ID

IGNORE = -100  # a target that the loss passes over


@dataclass
class Batch:
    """One optimizer step's examples in groups of like length, or this rank's share of them.

    inputs and targets: M tensors (B/M, T) each, targets IGNORE where nothing is asked; n_targets: how many targets the
    whole batch has over all ranks; n_characters: how many inputs of the whole batch are no PAD. A share without an
    example is one PAD with no target: every parameter gets a gradient, all zeros, as the other ranks expect.
    """

    inputs: list[Tensor]
    targets: list[Tensor]
    n_targets: int
    n_characters: int


class Part(NamedTuple):
    """Sequences that are made of one store's pieces, and which examples of those asked for they are: (n,)."""

    store: TokenStore
    pieces: Pieces
    places: Tensor


@dataclass(frozen=True)
class Layout:
    """Into how many groups a batch goes, and what shapes these have.

    A group is as wide as its longest row takes, in a multiple of 4 but no wider than the batch, or as `width` says.
    With `rows` all groups have as many: PAD with no target fills them up.
    """

    groups: int
    width: int | None = None
    rows: int | None = None

    @classmethod
    def on_gpu(cls, width: int, rows: int) -> "Layout":
        """One shape for all steps, which is compiled and recorded once: more kernels take longer than some padding."""
        return cls(1, width, rows)

    def of(self, rows: Tensor, totals: Tensor, widest: int) -> list[tuple[Tensor, int]]:
        """A share of a batch as groups, (their rows, their width), longest first: rows and all sequences' lengths.

        `widest` is what no group exceeds; len(totals) stands for a row of PAD.
        """
        pad = len(totals)
        if not len(rows):
            return [(torch.full((self.rows or 1,), pad), self.width or 1)]
        shares = [rows] if self.groups == 1 else [rows[group] for group in by_length(totals[rows], self.groups)]
        found = []
        for members in shares:
            width = self.width or min(widest, rounded_up(int(totals[members].max()) - 1))
            filled = max(0, (self.rows or 0) - len(members))
            found.append((torch.cat([members, members.new_full((filled,), pad)]) if filled else members, width))
        return found


def lay_out(
    parts: Sequence[Part],
    sizes: Sequence[int],
    layout: Layout,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
) -> list[Batch]:
    """The batches of some steps that have so many examples each, or this rank's share of them.

    Of the ranks' shares each is grouped by itself. Targets begin where `asked` says. The sequences are put together on
    the device, if there is one; what they are made of may lie on the processor.
    """
    totals = torch.cat([part.pieces.totals for part in parts])  # (N,)
    asked = torch.cat([part.pieces.asked for part in parts]).clamp(min=1)  # (N,)
    step = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[torch.cat([part.places for part in parts])]
    of_steps = torch.argsort(step, stable=True).split(list(sizes))  # the rows of each, documents before questions
    widest = layout.width or int(totals.max()) - 1
    shares = of_steps if world_size == 1 else [rows[dealt(totals[rows], world_size)[rank]] for rows in of_steps]
    groups = [layout.of(rows, totals, widest) for rows in shares]
    order = torch.cat([rows for groups_of_step in groups for rows, _ in groups_of_step])
    x, y = _sequences(parts, order, asked, widest, device)
    each = torch.stack([totals - asked, totals - 1], 1)  # (N, 2)
    counts = torch.zeros(len(sizes), 2, dtype=torch.int64).index_add_(0, step, each).tolist()
    batches, begin = [], 0
    for (n_targets, n_characters), groups_of_step in zip(counts, groups, strict=True):
        batch = Batch([], [], n_targets, n_characters)
        for members, width in groups_of_step:
            end = begin + len(members)
            batch.inputs.append(x[begin:end, :width])
            batch.targets.append(y[begin:end, :width])
            begin = end
        batches.append(batch)
    return batches


def _sequences(
    parts: Sequence[Part], order: Tensor, asked: Tensor, widest: int, device: torch.device | None
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the rows in this order, (len(order), widest) each; the row behind the last is all PAD."""
    rows = [assemble(part.store.on(device), part.pieces.to(device), widest + 1) for part in parts]
    rows.append(rows[0].new_full((1, widest + 1), PAD_ID))
    asked = torch.cat([asked, asked.new_ones(1)])[order]
    sequences = torch.cat(rows)[moved(order, device)]  # (len(order), widest + 1)
    targets = sequences[:, 1:].masked_fill(sequences[:, 1:] == PAD_ID, IGNORE)
    places = torch.arange(1, widest + 1, device=sequences.device)
    return sequences[:, :-1], targets.masked_fill_(places < moved(asked, device)[:, None], IGNORE)
