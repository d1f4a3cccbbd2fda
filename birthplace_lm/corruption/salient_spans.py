"""Spans that carry facts: names, numbers and known answers, often with little around them but whose document it is."""

import re
from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from birthplace_lm.corruption import Cut, Pieces, TokenStore, ask_for_span, choose
from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.entities import entities, foreign_names, mentions, title_length
from birthplace_lm.gazetteers import names_alike, recurring_names
from birthplace_lm.mapped_texts import kept

_Finder = Callable[[str, int], Iterator[tuple[int, int]]]
_RULES = 3  # raise it when the same documents begin to give other spans: those kept before are then not taken for new


class _Candidates:
    """For every document the spans that may be asked for: starts and ends (S, 2), offsets and counts (N,)."""

    def __init__(self, spans: np.ndarray, counts: np.ndarray):
        self.spans, self.counts = torch.from_numpy(spans), torch.from_numpy(counts)
        self.offsets = self.counts.cumsum(0) - self.counts

    def pick(self, index: Tensor, u: Tensor) -> Tensor:
        """One candidate of each document, (B, 2); any at all where a document has none."""
        at = self.offsets[index] + (u * self.counts[index]).long()
        return self.spans[at.clamp(max=len(self.spans) - 1)].long()


def _numbers(values: "array[int]") -> np.ndarray:
    return np.array(values, dtype=np.int32)


def _spans(flat: "array[int]") -> np.ndarray:
    """(S, 2) of starts and ends in turn; one that nobody asks for where there are none, so that there is a row."""
    return _numbers(flat or array("i", (0, 1))).reshape(-1, 2)


class SalientSpans:
    """Asks for whole entities (Guu et al. 2020, Roberts et al. 2020), and mostly shows little else but the title.

    A share `salient` of the examples asks for an entity behind the title, the rest for a random span. Of the salient
    ones a share `gazetteer` asks for an answer of the training questions that the document holds, if it holds one.
    A share `isolated` of the salient ones shows only the title, `min_before` … `before` characters before the span and
    0 … `after` behind it: where the rest of a text gives the answer away, a model need not learn whom it is about.

    With `known="alike"` the share `gazetteer` asks for answers and for names that stand where answers stand: as well as
    a share `recall` of these do (`names_alike`). With `known="recurring"` it asks for a name that other documents have
    too (`recurring_names`): no answer of any question is looked at. `third_sentinel` closes every span with a MASK, as
    an answer is.

    Rules that look at the documents and at the training answers alone; nothing knows whose birthplace is asked for.
    """

    n_uniforms = 10

    def __init__(
        self,
        block_size: int,
        salient: float = 0.8,
        gazetteer: float = 0.6,
        isolated: float = 0.7,
        min_before: int = 0,
        before: int = 32,
        after: int = 16,
        longest_span: int = 32,
        window: str = "anywhere",
        known: str = "answers",
        recall: float = 0.9,
        third_sentinel: bool = True,
    ):
        if known not in ("answers", "alike", "recurring"):
            raise ValueError(f"known is answers|alike|recurring, not {known!r}")
        shares = {"salient": salient, "gazetteer": gazetteer, "isolated": isolated, "recall": recall}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share in 0 … 1, not {share}")
        if not 0 <= min_before <= before or after < 0 or longest_span < 1:
            raise ValueError(
                f"min_before {min_before}, before {before}, after {after} and longest_span {longest_span} count "
                "characters: 0 <= min_before <= before, 0 <= after and 1 <= longest_span are needed"
            )
        self.random = RandomSpans(block_size, window=window, third_sentinel=third_sentinel)
        self.third_sentinel = third_sentinel
        self.salient, self.gazetteer, self.isolated = salient, gazetteer, isolated
        self.known, self.recall = known, recall
        self.min_before = min_before
        self.before, self.after, self.longest_span = before, after, longest_span
        self.longest_title = min(48, (self.random.max_length - longest_span) // 2)
        if self.longest_title < 1:
            raise ValueError(
                f"a span of {longest_span} leaves no room for a title before it in the {self.random.max_length} "
                f"characters that a block of {block_size} shows: lower longest_span to {self.random.max_length - 2}"
            )
        if self.max_total > block_size:
            raise ValueError(
                f"a title of {self.longest_title}, before {before}, a span of {longest_span}, after {after} and "
                f"{2 + third_sentinel} sentinels make {self.max_total} characters, the block has {block_size}: lower "
                "before or after"
            )

    @property
    def max_total(self) -> int:
        isolated = self.longest_title + self.before + self.longest_span + self.after + 2 + self.third_sentinel
        return max(self.random.max_total, isolated)

    def prepare(self, documents: Sequence[str], answers: Sequence[str]) -> None:
        """Find titles, entities and mentions of what is known, once."""
        known = self.known if self.gazetteer else "none"
        recipe = {
            "rules": _RULES,
            "title": self.longest_title,
            "span": self.longest_span,
            "known": [known, self.recall] if known == "alike" else known,
            "places": sorted(set(answers)) if known in ("answers", "alike") else [],
        }
        found = kept(documents, "spans", recipe, lambda: self._found(documents, self._finder(documents, answers)))
        self._titles = torch.from_numpy(found["titles"])
        self._entities = _Candidates(found["entities"], found["entity_counts"])
        self._mentions = _Candidates(found["mentions"], found["mention_counts"])

    def _finder(self, documents: Sequence[str], answers: Sequence[str]) -> _Finder:
        """What finds the known spans (start, end) of a document with a title of so many characters."""
        places = set(answers) if self.gazetteer and self.known != "recurring" else set[str]()
        names = set[str]()
        if self.gazetteer and self.known == "recurring":
            names = recurring_names(documents, self.longest_title)
        elif places and self.known == "alike":
            names = names_alike(documents, places, self.recall, self.longest_title)
        longest_first = sorted(places, key=lambda place: (-len(place), place))
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

        def find(text: str, title: int) -> Iterator[tuple[int, int]]:
            if places:  # an answer may stand in a longer name
                yield from mentions(text, pattern)
            if names:  # these were judged as whole names
                yield from ((start, end) for start, end in foreign_names(text, title) if text[start:end] in names)

        return find

    def _found(self, documents: Sequence[str], find: _Finder) -> dict[str, np.ndarray]:
        """Titles (N,), and of entities and mentions behind them the spans (S, 2), all in a row, and counts (N,)."""
        titles, entity_counts, mention_counts = array("i"), array("i"), array("i")
        in_entities, in_mentions = array("i"), array("i")
        for text in documents:
            title = title_length(text, self.longest_title)
            titles.append(title)
            entity_counts.append(self._append(in_entities, entities(text), title))
            mention_counts.append(self._append(in_mentions, find(text, title), title))
        return {
            "titles": _numbers(titles),
            "entities": _spans(in_entities),
            "entity_counts": _numbers(entity_counts),
            "mentions": _spans(in_mentions),
            "mention_counts": _numbers(mention_counts),
        }

    def _append(self, spans: "array[int]", found: Iterator[tuple[int, int]], title: int) -> int:
        """Append those behind the title that are short enough, start and end each; tells how many."""
        before = len(spans)
        for start, end in found:
            if start >= title and end - start <= self.longest_span:
                spans.append(start)
                spans.append(end)
        return (len(spans) - before) // 2

    def cut(self, store: TokenStore, index: Tensor, u: Tensor) -> Cut:
        """A salient span, the title and what is shown around the span; the document needs a candidate."""
        full, title = store.lengths[index], self._titles[index].long()
        known = (u[:, 4] < self.gazetteer) | (self._entities.counts[index] == 0)
        known &= self._mentions.counts[index] > 0
        picked = torch.where(known[:, None], self._mentions.pick(index, u[:, 5]), self._entities.pick(index, u[:, 5]))
        span, span_end = picked.unbind(1)
        isolated = u[:, 6] < self.isolated
        room = torch.minimum(self.random.max_length - title, full)  # of the window when it is as wide as it can be
        earliest = (span_end - room).clamp(min=0)
        wide = choose(u[:, 7], earliest, torch.maximum(torch.minimum(span, full - room), earliest))
        begin = torch.where(isolated, span - choose(u[:, 7], self.min_before, self.before), wide).clamp(min=0)
        end = torch.where(isolated, span_end + choose(u[:, 8], 0, self.after), begin + room)
        end = torch.minimum(torch.maximum(end, span_end), full)
        joined = begin <= title  # the window reaches the title: one piece from the start
        end = torch.minimum(end, torch.where(joined, span_end.clamp(min=self.random.max_length), end))
        return Cut(torch.where(joined, 0, title), torch.where(joined, 0, begin), span, span_end, end)

    def __call__(self, store: TokenStore, index: Tensor, u: Tensor) -> Pieces:
        """Pieces for the documents index (B,), given u (B, n_uniforms)."""
        asks = (u[:, 9] < self.salient) & (self._entities.counts[index] + self._mentions.counts[index] > 0)
        cut = self.cut(store, index, u).where(asks, self.random.cut(store, index, u))
        return ask_for_span(store, index, cut, self.third_sentinel)
