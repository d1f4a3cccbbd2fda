"""Scores for many places out of few numbers: a grid whose places follow each other, row after row.

outer (..., a) and inner (..., b) are its sides, and place j has outer[⌊j/b⌋]·inner[j mod b].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def grid(outer: Tensor, inner: Tensor, end: int) -> Tensor:
    """The first `end` places, (..., end).

    As a matrix product, though it adds nothing up: its gradient is one, too, and no a × b grid again.
    """
    return (outer[..., : _rows(inner, end), None] @ inner[..., None, :]).flatten(-2)[..., :end]


def add_grid(scores: Tensor, outer: Tensor, inner: Tensor, alone: bool) -> None:
    """Add it to scores (m, n, e), or write it there where it is `alone`; the sides are (m, n, a) and (m, n, b)."""
    width, end = inner.shape[-1], scores.shape[-1]
    if not alone:
        scores += grid(outer, inner, end)
    elif end % width:
        scores.copy_(grid(outer, inner, end))
    else:
        columns = outer[..., : end // width].flatten(0, 1)[..., None]
        torch.bmm(columns, inner.flatten(0, 1)[:, None], out=scores.view(-1, end // width, width))


def grid_gradients(of_scores: Tensor, outer: Tensor, inner: Tensor, of_outer: Tensor, of_inner: Tensor) -> None:
    """Write those of both sides, given that of scores (m, n, e); rows of the grid that nobody needed keep theirs."""
    needed, width, end = _rows(inner, of_scores.shape[-1]), inner.shape[-1], of_scores.shape[-1]
    if missing := needed * width - end:  # a padding of nothing would be a copy, too
        of_scores = F.pad(of_scores, (0, missing))
    of_grid = of_scores.view(-1, needed, width)
    of_outer[..., :needed] = (of_grid @ inner.flatten(0, 1)[..., None]).view(*outer.shape[:2], needed)
    of_inner.copy_((outer[..., :needed].flatten(0, 1)[:, None] @ of_grid).view(inner.shape))


def _rows(inner: Tensor, end: int) -> int:
    """How many rows of a grid the first `end` places take."""
    return -(-end // inner.shape[-1])
