"""Scores written as a product, a table and a grid: what most variants with weights in memory have in common.

Legend: B texts, H heads, T asking positions, S all positions so far, M width of queries and keys, b texts and n rows a
tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

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
        added = self.cut(n_rows, n_all)
        of_each = [part for part in (self.q, self.outer) if part is not None]
        for first in range(0, len(of_each[-1]) if of_each else n_texts, texts):
            for begin in range(0, n_rows, rows):
                some, part = slice(first, first + texts), slice(begin, begin + rows)
                end = n_all - n_rows + min(begin + rows, n_rows)
                scores = [] if added is None else [added[None, :, part, :end]]
                if self.q is not None and self.k is not None:
                    product = self.q[some, :, part] @ self.k.expand(len(self.q), -1, -1, -1)[some, :, :end].mT
                    scores.append(product if self.key_bias is None else product + self.key_bias[:end].to(product.dtype))
                if self.outer is not None and self.inner is not None:
                    scores.append(grid(self.outer[some, :, part], self.inner[some, :, part], end))
                yield reduce(add, (one.to(scores[-1].dtype) for one in scores))
