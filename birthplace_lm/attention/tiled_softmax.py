"""softmax(QKᵀ + αR + grid) V behind a causal mask, tile by tile on a processor, with its gradient written out.

What autograd makes of the same goes through memory some ten times a tile and way: for the mask, for α, for every slice
of a key or of a table that a tile was cut from. Here a tile stays where it is from the scores to the mixed values; its
mask is added to the square on the diagonal alone; what is kept for the way back is the weights, and gradients are added
up in place. Σ_j dW_ij W_ij, which a softmax's gradient takes off, is g_i·o_i (Dao et al. 2022, arXiv 2205.14135,
appendix B.2), so it goes into the product that makes dW, as one coordinate more.

Legend: B texts, H heads, T asking positions, S all positions so far, M width of queries and keys, W width of values, n
rows and e columns a tile, b attentions (heads of some texts) a tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from birthplace_lm.attention.grids import add_grid, grid_gradients
from birthplace_lm.attention.heads import causal, mask_of
from birthplace_lm.attention.terms import Terms, with_bias


def attend(terms: Terms, v: Tensor, n_rows: int, rows: int, numbers: int) -> Tensor:
    """The values (B, H, S, W) as each of T positions weighs them: (B, H, T, W), by tiles of about so many numbers.

    In float32 at least. Only for a processor, outside of torch.compile. Where all texts have the same scores these are
    computed once, and the texts' values stand beside each other.
    """
    n_texts, n_heads, n_all, width = v.shape
    at_least = torch.promote_types(v.dtype, torch.float32)
    values = v.permute(1, 2, 0, 3).flatten(2) if terms.shared else v.flatten(0, 1)  # (H, S, B·W) or (B·H, S, W)
    q, k = (None if part is None else part.flatten(0, 1).to(at_least) for part in (terms.q, terms.k))
    others = (None if part is None else part.to(at_least) for part in (terms.key_bias, terms.table, terms.scale))
    sides = (None if part is None else part.flatten(0, 1).to(at_least) for part in (terms.outer, terms.inner))
    fitting = max(1, numbers // (n_heads * min(rows, n_rows) * n_all)) * n_heads
    mixed: Tensor = _TiledSoftmax.apply(
        q, k, *others, *sides, values.to(at_least), terms.first_row, (n_rows, rows, fitting), torch.is_grad_enabled()
    )
    if terms.shared:
        mixed = mixed.unflatten(2, (n_texts, width)).permute(2, 0, 1, 3)
    else:
        mixed = mixed.unflatten(0, (n_texts, n_heads))
    return mixed.to(v.dtype)


@dataclass(frozen=True)
class _Tile:
    """Attentions `some` of N, asking rows `rows` of T, and the columns before `end`."""

    some: slice
    rows: slice
    end: int

    @property
    def n_rows(self) -> int:
        return self.rows.stop - self.rows.start


def _tiles(n: int, n_all: int, sizes: tuple[int, int, int]) -> Iterator[_Tile]:
    """Rows by rows, the attentions of the same rows one after the other: a table's part is then still near."""
    n_rows, at_once, fitting = sizes
    for begin in range(0, n_rows, at_once):
        rows = slice(begin, min(begin + at_once, n_rows))
        for first in range(0, n, fitting):
            yield _Tile(slice(first, min(first + fitting, n)), rows, n_all - n_rows + rows.stop)


class _TiledSoftmax(torch.autograd.Function):
    """(N, T, M), (N, S, M), (S,), (H, ℓ, ℓ), (), (N, T, a), (N, T, b) and (N, S, W) to (N, T, W), N = H or B·H."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor | None,
        k: Tensor | None,
        key_bias: Tensor | None,
        table: Tensor | None,
        scale: Tensor | None,
        outer: Tensor | None,
        inner: Tensor | None,
        v: Tensor,
        first_row: int,
        sizes: tuple[int, int, int],
        keep: bool,
    ) -> Tensor:
        out = v.new_empty(len(v), sizes[0], v.shape[2])
        alpha = 1.0 if scale is None else scale.item()
        kept: list[Tensor] = []
        buffer = _Buffer(v)
        with torch.autocast("cpu", enabled=False):
            if q is not None and k is not None and key_bias is not None:
                q, k = with_bias(q, k, key_bias)
            for tile in _tiles(len(v), v.shape[1], sizes):
                scores = buffer(tile)  # (b, n, e)
                if table is not None:
                    scores.view(-1, len(table), *scores.shape[1:]).copy_(_part(table, first_row, tile))
                if q is not None and k is not None:
                    times = alpha if table is not None else 0.0
                    _add_product(scores, q[tile.some, tile.rows], _some(k, tile).mT, times)
                elif scale is not None:
                    scores.mul_(alpha)
                if outer is not None and inner is not None:
                    sides = outer[tile.some, tile.rows], inner[tile.some, tile.rows]
                    add_grid(scores, *sides, alone=table is None and q is None)
                scores[:, :, tile.end - tile.n_rows :] += mask_of(
                    causal(tile.n_rows, tile.n_rows, scores.device), scores.dtype
                )
                weights = scores.softmax(-1)
                torch.bmm(weights, _some(v, tile), out=out[tile.some, tile.rows])
                if keep:
                    kept.append(weights)
        ctx.save_for_backward(q, k, key_bias, table, outer, inner, v, out, *kept)
        ctx.first_row, ctx.sizes, ctx.alpha = first_row, sizes, alpha
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients  # (N, T, W)
        q, k, key_bias, table, outer, inner, v, out, *kept = ctx.saved_tensors
        if key_bias is not None:
            q, k = q[..., :-1], k[..., :-1]
        of_q, of_k, of_bias = (None if part is None else torch.zeros_like(part) for part in (q, k, key_bias))
        of_outer, of_inner = (None if part is None else torch.zeros_like(part) for part in (outer, inner))
        of_v = torch.zeros_like(v)
        of_table = None
        if any(ctx.needs_input_grad[3:5]):
            of_table = _TableGradient(table, ctx.first_row, ctx.alpha, ctx.needs_input_grad[4])
        buffer = _Buffer(v)
        with torch.autocast("cpu", enabled=False):
            g_more = torch.cat((g, -(g * out).sum(-1, keepdim=True)), dim=-1)  # (N, T, W + 1)
            v_more = F.pad(v, (0, 1), value=1.0)  # (N, S, W + 1)
            for tile, weights in zip(_tiles(len(v), v.shape[1], ctx.sizes), kept, strict=True):
                _add_product(_some(of_v, tile), weights.mT, g[tile.some, tile.rows])
                if not any(ctx.needs_input_grad[:7]):
                    continue
                of_scores = buffer(tile)  # (b, n, e)
                torch.bmm(g_more[tile.some, tile.rows], _some(v_more, tile).mT, out=of_scores)
                of_scores.mul_(weights)
                if of_q is not None and of_k is not None:
                    of_q[tile.some, tile.rows] = of_scores @ _some(k, tile)
                    _add_product(_some(of_k, tile), of_scores.mT, q[tile.some, tile.rows])
                if of_bias is not None:
                    of_bias[: tile.end] += of_scores.sum((0, 1))
                if of_table is not None:
                    of_table.add(of_scores, tile)
                if of_outer is not None and of_inner is not None:
                    here = (tile.some, tile.rows)
                    grid_gradients(of_scores, outer[here], inner[here], of_outer[here], of_inner[here])
        of_tables = of_table.found() if of_table else (None, None)
        return of_q, of_k, of_bias, *of_tables, of_outer, of_inner, of_v, None, None, None


def _some(of_keys: Tensor, tile: _Tile) -> Tensor:
    """Keys or values (N, S, ·) as far as a tile sees them, (b, e, ·), or (1, e, ·) where all have the same."""
    return of_keys[tile.some if len(of_keys) > 1 else slice(1), : tile.end]


def _add_product(to: Tensor, left: Tensor, right: Tensor, times: float = 1.0) -> None:
    """times·to + left·right, in place, for each of b matrices: one product where all have the same `right` or `to`."""
    if len(left) == len(right) == len(to):
        to.baddbmm_(left, right, beta=times)
    elif len(right) == 1:  # (b, n, M), (1, M, e) to (b, n, e)
        to.view(-1, to.shape[2]).addmm_(left.flatten(0, 1), right[0], beta=times)
    else:  # (b, e, n), (b, n, M) to (1, e, M)
        to[0].addmm_(left.mT.flatten(0, 1).mT, right.flatten(0, 1), beta=times)


def _part(table: Tensor, first_row: int, tile: _Tile) -> Tensor:
    """What a tile has of a table (H, ℓ, ℓ): (H, n, e)."""
    return table[:, first_row + tile.rows.start : first_row + tile.rows.stop, : tile.end]


class _Buffer:
    """Memory for one tile at a time, the same for all."""

    def __init__(self, like: Tensor):
        self._room = like.new_empty(0)

    def __call__(self, tile: _Tile) -> Tensor:
        shape = (tile.some.stop - tile.some.start, tile.n_rows, tile.end)
        numbers = shape[0] * shape[1] * shape[2]
        if self._room.numel() < numbers:
            self._room = self._room.new_empty(numbers)
        return self._room[:numbers].view(shape)


class _TableGradient:
    """The gradients of a table (H, ℓ, ℓ) and of α, tile after tile, those of the same rows in a row.

    Nothing is filled with zeros that is written to later: a table of 4,096 positions has half a gigabyte.
    """

    def __init__(self, table: Tensor, first_row: int, alpha: float, alpha_learns: bool):
        self.table, self.first_row, self.alpha, self.alpha_learns = table, first_row, alpha, alpha_learns
        self.of_table, self.of_alpha = torch.empty_like(table), table.new_zeros(())
        self._last: _Tile | None = None
        self._written = 0  # rows from the top

    def add(self, of_scores: Tensor, tile: _Tile) -> None:
        """(b, n, e), whole texts: those of the first tile with these rows are written, the next are added."""
        of_texts = of_scores.view(-1, len(self.table), *of_scores.shape[1:])  # (b/H, H, n, e)
        found = of_texts[0] if len(of_texts) == 1 else of_texts.sum(0)
        if self._last and self._last.rows == tile.rows:
            _part(self.of_table, self.first_row, tile).add_(found)
            return
        self._scale()
        begin = self.first_row + tile.rows.start
        self.of_table[:, self._written : begin] = 0.0
        _part(self.of_table, self.first_row, tile).copy_(found)
        self._last, self._written = tile, begin + tile.n_rows
        self.of_table[:, begin : self._written, tile.end :] = 0.0

    def found(self) -> tuple[Tensor, Tensor | None]:
        """Of the table, and of α where it learns."""
        self._scale()
        self.of_table[:, self._written :] = 0.0
        return self.of_table, self.of_alpha if self.alpha_learns else None

    def _scale(self) -> None:
        """What is left to do for the rows of the last tile, when all texts have been at them."""
        if self._last and (self.alpha_learns or self.alpha != 1.0):
            of_part = _part(self.of_table, self.first_row, self._last)
            if self.alpha_learns:
                self.of_alpha += (of_part * _part(self.table, self.first_row, self._last)).sum()
            of_part.mul_(self.alpha)
