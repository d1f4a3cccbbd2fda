"""Attention whose weights stand in memory as a matrix, computed tile by tile, and what it asks of a score module.

A score module says how much position i wants of position j before the causal mask and the softmax:

    forward(x: (B, T, D), offset: int, cache: dict[str, Tensor] | None) -> (B or 1, H, T, S)
    terms(x, offset, cache) -> a product and a table whose sum that is, where it is no more (`terms.Terms`)
    tiles(x, offset, cache, texts, rows) -> the same by `texts` of the batch, and within them by `rows`, each block as
        wide as its last row may see: to be written by a module that has no terms

where the T rows of x stand at positions offset … offset + T - 1 and S = offset + T. Tiles leave most of the future
uncomputed, and are small enough to stay near the processor from the scores to the mixed values.

Legend: B batch, T new positions, S all positions so far, D width, H heads, K = D/H, ℓ longest sequence, b texts and n
rows a tile.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from birthplace_lm.attention.fused_terms import attend_fused, fuses
from birthplace_lm.attention.heads import (
    AttentionWeights,
    causal,
    listened_to,
    mask_of,
    merge_heads,
    remember,
    seen_so_far,
    split_heads,
)
from birthplace_lm.attention.terms import Terms, first
from birthplace_lm.attention.tiled_softmax import attend

ROWS_AT_ONCE = 128  # asking positions in a tile: the reference T; larger matrices cost more in memory than in sums
NUMBERS_AT_ONCE = 2**18  # scores in a tile, a megabyte of float32, unless one text's rows are more
NUMBERS_AT_ONCE_ON_GPU = 2**28  # which is fast by being given much at once
# Positions from which a processor's fused kernel is quicker than tiles: of the dense synthesizer on one thread 64 take
# 1.03 of their time, 96 0.99, 192 0.93; of the differential one 1.03, 0.91 and, at 256, 0.72; more is gained on two.
LONG = 96


class Scores(nn.Module):
    """What a score module has to bring: its terms, or its tiles where it has none."""

    has_terms = True

    def forward(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Tensor:
        """All rows at once: (B or 1, H, T, S)."""
        return next(self.tiles(x, offset, cache, *x.shape[:2]))

    def terms(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None) -> Terms:
        """Either this or `tiles` is called, not both: both write to the cache."""
        raise NotImplementedError

    def tiles(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, texts: int, rows: int) -> Iterator[Tensor]:
        """All rows of the first texts, then of the next: (b or 1, H, n, offset + rows so far) each."""
        return self.terms(x, offset, cache).tiles(len(x), x.shape[1], offset + x.shape[1], texts, rows)


class ScoredAttention(nn.Module):
    """weights(scores(x)) V, with the weights as a matrix in memory, computed tile by tile: O(HT²) for a text.

    `scores` is a score module; `weights` normalises what it says, by default with a softmax, and `head_norm` acts on
    every head's mixed values (B, H, T, K). Somebody who listens to `weights` gets them in one piece.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        max_length: int,
        dropout: float,
        scores: Scores,
        weights: AttentionWeights | None = None,
        head_norm: nn.Module | None = None,
    ):
        super().__init__()
        self.n_heads, self.max_length = n_heads, max_length
        self.scores = scores
        self.weights = weights or AttentionWeights(dropout)
        self.head_norm = head_norm or nn.Identity()
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        offset = seen_so_far(cache, "v")
        v = remember(cache, "v", split_heads(self.value(x), self.n_heads))  # (B, H, S, K)
        mixed = self.mixed(x, offset, cache, v)  # (B, H, T, K)
        return self.output(merge_heads(self.head_norm(mixed)))  # (B, T, D)

    def mixed(self, x: Tensor, offset: int, cache: dict[str, Tensor] | None, v: Tensor) -> Tensor:
        """The values (B, H, S, K) as every new position weighs them: (B, H, T, K)."""
        terms = self.scores.terms(x, offset, cache) if self.scores.has_terms else None
        if terms is not None and type(self.weights) is AttentionWeights and self.unseen(v.device):
            return softmax_of(terms, v, x.shape[1])
        texts, rows = self._tile(x.shape[0], x.shape[1], v.shape[2], terms is not None and terms.shared)
        if terms is None:
            tiles = self.scores.tiles(x, offset, cache, texts, rows)
        else:
            tiles = terms.tiles(len(x), x.shape[1], v.shape[2], texts, rows)
        begins = range(offset, v.shape[2], rows)
        masks = [self._mask(begin, min(begin + rows, v.shape[2])) for begin in begins]  # (n, end) each
        mixed = []
        for values in v.split(texts):
            blocks = [
                _mixed(self.weights(next(tiles), mask, len(values)), first(values, mask.shape[1], dim=2))
                for mask in masks
            ]
            mixed.append(torch.cat(blocks, dim=2))  # (b, H, T, K)
        return torch.cat(mixed)

    def unseen(self, device: torch.device) -> bool:
        """Whether nobody drops weights or asks for them: a processor has quicker ways for softmaxes of terms then."""
        dropping = self.training and self.weights.dropout.p > 0
        quick = device.type == "cpu" and not torch.compiler.is_compiling()
        return quick and not dropping and not listened_to(self.weights)

    def _mask(self, begin: int, end: int) -> Tensor:
        """What rows begin … end - 1 may see, to be added to their scores: (end - begin, end)."""
        like = self.value.weight
        return mask_of(causal(end - begin, end, like.device), like.dtype)

    def _tile(self, n_texts: int, n_rows: int, n_all: int, shared: bool) -> tuple[int, int]:
        """How many texts and rows at once: all when somebody listens, all texts when they share their scores."""
        if listened_to(self.weights):
            return n_texts, n_rows
        rows = min(n_rows, ROWS_AT_ONCE)
        on_gpu = self.value.weight.device.type == "cuda"
        numbers = NUMBERS_AT_ONCE_ON_GPU if on_gpu else NUMBERS_AT_ONCE
        fitting = max(1, numbers // (self.n_heads * rows * n_all))
        return n_texts if shared else min(n_texts, fitting), rows


def softmax_of(terms: Terms, v: Tensor, n_rows: int) -> Tensor:
    """Values (B, H, S, W) as a softmax of terms weighs them, (B, H, T, W), the quickest way a processor has for it."""
    if is_long(n_rows) and fuses(terms, v, n_rows):
        return attend_fused(terms, v)
    return attend(terms, v, n_rows, ROWS_AT_ONCE, NUMBERS_AT_ONCE)


def is_long(n_rows: int) -> bool:
    """Whether so many asking positions pay for the fused kernel."""
    return n_rows >= LONG


def _mixed(weights: Tensor, v: Tensor) -> Tensor:
    """Weights (B, H, n, S) times values (B, H, S, K); one table for all rows of the batch is multiplied once."""
    if len(v) == 1 or weights.stride(0) != 0:
        return weights @ v
    rows_beside_each_other = v.permute(1, 2, 0, 3).flatten(2)  # (H, S, B·K)
    return (weights[0] @ rows_beside_each_other).unflatten(2, (len(v), -1)).permute(2, 0, 1, 3)  # (B, H, n, K)
