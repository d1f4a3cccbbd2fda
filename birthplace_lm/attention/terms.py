"""Scores written as a product, a table and a grid: what most variants with weights in memory have in common.

Legend: B texts, H heads, T asking positions, S all positions so far, M width of queries and keys, b texts and n rows a
tile.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

from birthplace_lm.attention.grids import grid


@dataclass(frozen=True)
class Terms:
    """Scores that are a sum of these, any of which may be missing: q·k + bias of k + scale·table + grid.

    q: (B or 1, H, T, M), k: (B, H, S, M) likewise, or (1, 1, S, M); 1 where all have the same. key_bias: (S,), what is
    added whoever asks, only beside q and k. table: (H, at least first_row + T, at least S), of which the asking
    positions have the rows from first_row on. scale: one number, None for 1. outer and inner: (B, H, T, a) and
    (B, H, T, b), a·b at least S, the sides of a grid whose places follow each other: outer[⌊j/b⌋]·inner[j mod b] for
    place j.
    """

    q: Tensor | None = None
    k: Tensor | None = None
    key_bias: Tensor | None = None
    table: Tensor | None = None
    first_row: int = 0
    scale: Tensor | None = None
    outer: Tensor | None = None
    inner: Tensor | None = None

    @property
    def shared(self) -> bool:
        """Whether all texts have the same scores."""
        return all(part is None or len(part) == 1 for part in (self.q, self.outer))

    def cut(self, n_rows: int, n_all: int) -> Tensor | None:
        """What the table adds to all scores, (H, T, S)."""
        if self.table is None:
            return None
        part = self.table[:, self.first_row : self.first_row + n_rows, :n_all]
        return part if self.scale is None else self.scale * part.to(self.scale.dtype)

    def tiles(self, n_texts: int, n_rows: int, n_all: int, texts: int, rows: int) -> Iterator[Tensor]:
        """All rows of the first texts, then of the next: (b or 1, H, n, S - T + rows so far) each."""
        ends = [n_all - n_rows + min(begin + rows, n_rows) for begin in range(0, n_rows, rows)]
        added = self.cut(n_rows, n_all)
        tables = [None] * len(ends) if added is None else added[None].split(rows, dim=2)
        n_times = -(-n_texts // texts)
        parts = (_of_texts(part, texts, n_times) for part in (self.q, self.k, self.outer, self.inner))
        for q, k, outer, inner in zip(*parts, strict=True):
            asking = zip(*(_of_rows(part, rows, len(ends)) for part in (q, outer, inner)), tables, ends, strict=True)
            for q_rows, outer_rows, inner_rows, table, end in asking:
                scores = [] if table is None else [first(table, end)]
                if q_rows is not None and k is not None:
                    product = q_rows @ first(k.mT, end)
                    bias = self.key_bias
                    scores.append(product if bias is None else product + bias[:end].to(product.dtype))
                if outer_rows is not None and inner_rows is not None:
                    scores.append(grid(outer_rows, inner_rows, end))
                yield reduce(add, (one.to(scores[-1].dtype) for one in scores))


def with_bias(q: Tensor, k: Tensor, key_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Queries (…, T, M) and keys (…, S, M) of q·k + bias of k (S,), as one product: q·k + 1·bias, of width M + 1."""
    return F.pad(q, (0, 1), value=1.0), torch.cat((k, key_bias[:, None].expand(*k.shape[:-1], 1)), dim=-1)


def first(x: Tensor, end: int, dim: int = -1) -> Tensor:
    """The first `end` of a dimension; all of it as it is, for a slice's gradient fills as much with zeros."""
    return x if end == x.shape[dim] else x.narrow(dim, 0, end)


def _of_texts(part: Tensor | None, texts: int, n_times: int) -> Sequence[Tensor | None]:
    """(B or 1, …) for so many texts at a time; split and not sliced, so that gradients are put together only once."""
    return [part] * n_times if part is None or len(part) == 1 else part.split(texts)


def _of_rows(part: Tensor | None, rows: int, n_times: int) -> Sequence[Tensor | None]:
    """(b, H, T, …) for so many asking positions at a time, likewise."""
    return [part] * n_times if part is None else part.split(rows, dim=2)
