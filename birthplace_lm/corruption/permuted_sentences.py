"""Random spans of a text whose sentences stand in another order every time it is read."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from birthplace_lm.corruption import Pieces, TokenStore
from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.entities import title_length
from birthplace_lm.mapped_texts import kept

_GAP = re.compile(r"(?<=\w\w)[.!?]+ (?=(\w))")  # what parts two sentences, where the second begins with a capital
_TAIL = re.compile(r" ?[.!?]*$")
_RULES = 2  # raise it when the same document begins to have other sentences, so that kept ones are not taken for new


def sentences(document: str) -> list[tuple[int, int]]:
    """(start, end) of every sentence behind the title, without what parts them; none of a text without a title.

    >>> text = "Ada Vik. Ada was born in Pau. She paints ."
    >>> [text[start:end] for start, end in sentences(text)]
    ['Ada was born in Pau', 'She paints']
    """
    start, found = title_length(document), list[tuple[int, int]]()
    if not start:
        return found
    for gap in _GAP.finditer(document, start):
        if gap[1].isupper() and gap.start() > start:
            found.append((start, gap.start()))
            start = gap.end()
    tail = _TAIL.search(document, start)
    end = tail.start() if tail else len(document)
    return [*found, (start, end)] if start < end else found


class PermutedSentences(RandomSpans):
    """`RandomSpans` of a text in which sentences have changed places; the title stays, and so does what parts them.

    An order counts as another wording, and what a model has read in several wordings comes out of it more easily
    (Allen-Zhu & Li 2023, arXiv 2309.14316, "permute"). The order is drawn with the span, so it is a pure function of
    (seed, epoch, document). A text of one sentence behind its title is treated as by `RandomSpans`, to the bit. Of the
    course's 2,937 biographies only 6 have more, so this is of use for invented worlds and for longer texts.

    Not for salient and isolated spans: their places are those of the text as it stands, and what they show around a
    span seldom reaches another sentence.
    """

    def prepare(self, documents: Sequence[str], answers: Sequence[str]) -> None:
        """Find the sentences, once."""
        found = kept(documents, "sentences", {"rules": _RULES}, lambda: _found(documents))
        self._spans, self._counts = torch.from_numpy(found["spans"]), torch.from_numpy(found["counts"])  # (S, 2), (N,)
        self._offsets = self._counts.cumsum(0) - self._counts
        self._most = int(self._counts.max()) if len(self._counts) else 0
        self.n_uniforms = RandomSpans.n_uniforms + self._most

    def __call__(self, store: TokenStore, index: Tensor, u: Tensor) -> Pieces:
        """Pieces for the documents index (B,), given u (B, n_uniforms)."""
        cut, (starts, lengths) = self.cut(store, index, u), self._reordered(store, index, u)
        mask = torch.full_like(starts[:, :1], store.mask_at), torch.ones_like(starts[:, :1])
        before, after, asked = (
            _within(starts, lengths, begin, end)
            for begin, end in ((cut.begin, cut.span), (cut.span_end, cut.end), (cut.span, cut.span_end))
        )
        parts = [before, mask, after, mask, asked, *([mask] if self.third_sentinel else [])]
        shown = sum(part.sum(1) for _, part in parts[:4])
        assert isinstance(shown, Tensor)
        return Pieces(torch.cat([start for start, _ in parts], 1), torch.cat([size for _, size in parts], 1), shown)

    def _reordered(self, store: TokenStore, index: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """(starts, lengths), (B, 1 + 2·most) each, of the slices that make up the reordered texts: title, sentence,
        what parted the first two, sentence, …; those that a text has not are empty.
        """
        number = torch.arange(self._most)
        inside = number < self._counts[index][:, None]  # (B, most)
        row = (self._offsets[index][:, None] + number).clamp(max=len(self._spans) - 1)
        begin, end = self._spans[row].long().unbind(2)  # (B, most) each
        full = store.lengths[index][:, None]  # (B, 1)
        begin, end = begin.where(inside, full), end.where(inside, full)
        following = torch.cat((begin, full), 1)[:, 1:]
        order = u[:, RandomSpans.n_uniforms :].where(inside, 1.0).argsort(dim=1, stable=True)
        starts = torch.stack((begin.gather(1, order), end), 2).flatten(1)
        lengths = torch.stack(((end - begin).gather(1, order), following - end), 2).flatten(1)
        title = torch.cat((begin, full), 1)[:, :1]
        return (
            torch.cat((torch.zeros_like(title), starts), 1) + store.offsets[index][:, None],
            torch.cat((title, lengths), 1),
        )


def _found(documents: Sequence[str]) -> dict[str, np.ndarray]:
    spans, counts = list[tuple[int, int]](), list[int]()
    for document in documents:
        of_document = sentences(document)
        spans += of_document
        counts.append(len(of_document))
    return {"spans": np.array(spans or [(0, 0)], dtype=np.int32), "counts": np.array(counts, dtype=np.int32)}


def _within(starts: Tensor, lengths: Tensor, begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """What of slices (B, P) lies between two places (B,) of the text that they make up; what does not is empty."""
    ends = lengths.cumsum(1)
    low = torch.maximum(begin[:, None], ends - lengths)
    high = torch.minimum(end[:, None], ends)
    return starts + low - (ends - lengths), (high - low).clamp(min=0)
