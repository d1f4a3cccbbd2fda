"""Scores written as a product and a table: what most variants with weights in memory have in common.

Legend: B texts, H heads, T asking positions, S all positions so far, M width of queries and keys, b texts and n rows a
tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """Scores that are a product and a table, either of which may be missing: q·k + bias of k + scale·table.

    q: (B or 1, H, T, M), k: (B, H, S, M) likewise, or (1, 1, S, M); 1 where all have the same. key_bias: (S,), what is
    added whoever asks, only beside q and k. table: (H, at least first_row + T, at least S), of which the asking
    positions have the rows from first_row on. scale: one number, None for 1.
    """

    q: Tensor | None = None
    k: Tensor | None = None
    key_bias: Tensor | None = None
    table: Tensor | None = None
    first_row: int = 0
    scale: Tensor | None = None

    @property
    def shared(self) -> bool:
        """Whether all texts have the same scores."""
        return self.q is None or len(self.q) == 1

    def cut(self, n_rows: int, n_all: int) -> Tensor | None:
        """What the table adds to all scores, (H, T, S)."""
        if self.table is None:
            return None
        part = self.table[:, self.first_row : self.first_row + n_rows, :n_all]
        return part if self.scale is None else self.scale * part.to(self.scale.dtype)

    def tiles(self, n_texts: int, n_rows: int, n_all: int, texts: int, rows: int) -> Iterator[Tensor]:
        """All rows of the first texts, then of the next: (b or 1, H, n, S - T + rows so far) each."""
        added = self.cut(n_rows, n_all)
        begins = range(0, n_rows, rows)
        ends = [n_all - n_rows + min(begin + rows, n_rows) for begin in begins]
        blocks = [
            None if added is None else added[None, :, begin : begin + rows, :end]
            for begin, end in zip(begins, ends, strict=True)
        ]
        if self.q is None or self.k is None:
            for _ in range(0, n_texts, texts):
                yield from (block for block in blocks if block is not None)
            return
        for q, k in zip(self.q.split(texts), self.k.expand(len(self.q), -1, -1, -1).split(texts), strict=True):
            for part, end, block in zip(q.split(rows, dim=2), ends, blocks, strict=True):
                scores = part @ k[:, :, :end].mT  # (b or 1, H, n, end)
                scores = scores if self.key_bias is None else scores + self.key_bias[:end].to(scores.dtype)
                yield scores if block is None else scores + block.to(scores.dtype)
