"""The reference policy: a random contiguous span of a document that was cut to a random length."""

from collections.abc import Sequence

import torch
from torch import Tensor

from birthplace_lm.corruption import Cut, Pieces, TokenStore, ask_for_span, choose


class RandomSpans:
    """Length uniform in {min_length … max_length}, at most the document's; a quarter of it is asked for on average.

    For a cut of L characters and a corruption rate r the span's length is uniform in [⌊r/2·L⌋, ⌊3r/2·L⌋] (at least 1)
    and its position uniform. max_length null means ⌊7/8·block⌋. `window` says where the cut lies: "start" keeps the
    beginning (the reference; what stands late is then seen rarely), "anywhere" moves it uniformly over the document.
    `third_sentinel` closes the span with a MASK, the terminator that answers have. `min_prefix: 1` never asks for the
    first character, as in the published program.

    Source: Stanford CS224N 2021, assignment 5, part (e); the span law after Raffel et al. 2020 (T5).
    """

    n_uniforms = 4

    def __init__(
        self,
        block_size: int,
        rate: float = 0.25,
        min_length: int = 4,
        max_length: int | None = None,
        window: str = "start",
        min_prefix: int = 0,
        third_sentinel: bool = False,
    ):
        sentinels = 2 + third_sentinel
        max_length = 7 * block_size // 8 if max_length is None else max_length
        if not 1 <= min_length <= max_length <= block_size - sentinels:
            raise ValueError(
                f"lengths {min_length} … {max_length} do not fit: 1 <= min_length <= max_length <= "
                f"{block_size - sentinels} is needed (block {block_size} less {sentinels} sentinels)"
            )
        if not 0 < rate <= 2 / 3:
            raise ValueError(f"corruption rate {rate} is outside (0, 2/3]: spans reach 3/2 of it")
        if window not in ("start", "anywhere"):
            raise ValueError(f"window is 'start' or 'anywhere', not {window!r}")
        if not 0 <= min_prefix < min_length:
            raise ValueError(f"min_prefix {min_prefix} must be in 0 … {min_length - 1}, below min_length")
        self.rate, self.min_length, self.max_length = rate, min_length, max_length
        self.window, self.min_prefix, self.third_sentinel = window, min_prefix, third_sentinel

    @property
    def max_total(self) -> int:
        return self.max_length + 2 + self.third_sentinel

    def prepare(self, documents: Sequence[str], answers: Sequence[str]) -> None:
        """Random spans need to know nothing of the documents."""

    def cut(self, store: TokenStore, index: Tensor, u: Tensor) -> Cut:
        """The random choice alone, so that other policies can fall back on it."""
        full = store.lengths[index]
        length = torch.minimum(choose(u[:, 0], self.min_length, self.max_length), full)
        begin = choose(u[:, 3], 0, full - length) if self.window == "anywhere" else torch.zeros_like(length)
        shortest = (self.rate / 2 * length).long().clamp(min=1)
        longest = torch.maximum((3 * self.rate / 2 * length).long(), shortest)
        prefix = (length - 1).clamp(max=self.min_prefix)  # a document may be as short as that: one character is asked
        size = torch.minimum(choose(u[:, 1], shortest, longest), length - prefix)
        span = begin + choose(u[:, 2], prefix, length - size)
        return Cut(torch.zeros_like(begin), begin, span, span + size, begin + length)

    def __call__(self, store: TokenStore, index: Tensor, u: Tensor) -> Pieces:
        """Pieces for the documents index (B,), given u (B, n_uniforms)."""
        return ask_for_span(store, index, self.cut(store, index, u), self.third_sentinel)
