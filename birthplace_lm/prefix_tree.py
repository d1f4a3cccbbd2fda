"""How likely a model finds each of many places as the answer to each of many questions.

Places share beginnings, so they are written as a tree of characters, and what the model computed for a beginning is
computed once: the cache of a question is copied to the nodes that go on from it. A node stands for the characters up
to it while at least two places share them; what is left of a place once it is alone is its tail, scored in one call.

Most places are hopeless. log P of a beginning bounds log P of every place that starts so, and the sum of the
probabilities of the beginnings that are left out bounds all that was missed: branch and bound (Land & Doig 1960).

Legend: B questions, P places, R rows (a question at a node), T time, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from birthplace_lm.decoding import Answer, fork_cache, prompts_of, read_beginning
from birthplace_lm.like_lengths import like_lengths, of_one_length
from birthplace_lm.radix_tree import RadixTree
from birthplace_lm.tokenizer import MASK_ID, CharTokenizer
from birthplace_lm.transformer import Cache, Transformer, in_mode

_ROUNDING = 1e-3  # in log-probability: sums in float32 depend a little on which rows are computed together
_TAILS = 128  # rows a call at most
_ROWS = {False: 512, True: 2048}  # of the cache a level: copied, forked


@dataclass(frozen=True)
class PlaceScores:
    """What `score_places` found, in the order of the questions and of the places.

    log_probability: (B, P), log P(place ⁇ | question ⁇), natural logarithm; -inf for a place that was left out.
    neglected: (B,), at most this much probability lies on all places that were left out together.
    highest_neglected: (B,), no place that was left out has a higher log-probability; -inf when none was.
    characters: how many characters the model read for it, counted once a row, and once what all of some questions
        begin with: the cost.
    """

    places: tuple[str, ...]
    log_probability: np.ndarray
    neglected: np.ndarray
    highest_neglected: np.ndarray
    characters: int

    def __getitem__(self, questions: slice) -> "PlaceScores":
        """Those of some questions; `characters` stays what all of them cost."""
        kept = (self.log_probability[questions], self.neglected[questions], self.highest_neglected[questions])
        return PlaceScores(self.places, *kept, self.characters)

    def best(self) -> np.ndarray:
        """The index of each question's likeliest place, (B,); of equally likely ones the first."""
        return self.log_probability.argmax(axis=1)

    def distribution(self) -> np.ndarray:
        """P(place | question, the answer is one of the places), (B, P); every row sums to 1.

        A place that was left out has 0. With m = Σ P(place ⁇ | question ⁇) over the places found, no entry is further
        than neglected / m from what it would be without leaving any out.
        """
        weights = np.exp(self.log_probability - self.log_probability.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)


@torch.inference_mode()
def score_places(
    model: Transformer,
    tokenizer: CharTokenizer,
    questions: Sequence[str],
    places: Sequence[str],
    tolerance: float = 1e-2,
    exact: int = 2,
    max_rows: int | None = None,
) -> PlaceScores:
    """The log-probability of every place that matters, as the answer to every question.

    Places are left out only as long as the probability of all that were is at most `tolerance` a question, and the
    `exact` likeliest places are always the true ones: a question for which that is not yet sure is walked through
    again, with a bound from the first walk. tolerance=0 scores every place. A probability that is given does not
    depend on what was left out. Memory: at most `max_rows` rows of the cache a level of the tree, or what one
    question needs there if that is more; None means 512 where each is a copy of the one it goes on from, 2,048 where
    layers fork.

    Raises ValueError for no places or one that stands twice, for a tolerance that is no probability, for fewer than
    one exact place or one row, for a question that does not fit the model with the longest place; TypeError for a text
    where a list of questions or places is meant; UnknownCharacterError for characters outside the vocabulary.
    """
    if isinstance(places, str):
        raise TypeError(f"places are a list of texts, not one of {len(places)} characters: [{places[:40]!r}]")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance {tolerance} is a probability left out a question: 0 or more, below 1")
    if exact < 1 or (max_rows is not None and max_rows < 1):
        raise ValueError(f"exact {exact} and max_rows {max_rows} have to be 1 or more")
    device = next(model.parameters()).device
    tree = RadixTree([[*tokenizer.encode(place), MASK_ID] for place in places], device)
    prompts = prompts_of(model, tokenizer, questions, tree.longest)
    max_rows = max_rows or _ROWS[all(memory.forks for memory in model.new_cache())]
    walk = _Walk(model, tree, len(prompts), tolerance, min(exact, len(places)), max_rows)
    with in_mode(model, training=False):
        walk.ask(prompts, range(len(prompts)))
        unsure = walk.require_best()
        if unsure:
            walk.ask(prompts, unsure)
    scores, neglected, highest = (kept.cpu().numpy() for kept in (walk.scores, walk.neglected, walk.highest_neglected))
    return PlaceScores(tuple(places), scores, neglected, highest, walk.characters)


def constrained_answers(
    model: Transformer, tokenizer: CharTokenizer, questions: Sequence[str], places: Sequence[str]
) -> list[Answer]:
    """The likeliest of the places for each question, exactly; of equally likely ones the first in the list.

    Not the greedy answer cut down to the places: a greedy path may lead to a beginning that no likely place continues.
    Raises what `score_places` raises.
    """
    scores = score_places(model, tokenizer, questions, places, tolerance=0.5, exact=1)
    best = scores.best().tolist()
    return [Answer(places[i], float(row[i]), True) for i, row in zip(best, scores.log_probability, strict=True)]


@dataclass(frozen=True)
class _Rows:
    """Questions at edges of the tree, sorted by question, (R,) each: the rows of the cache that they go on from, the
    questions, the edges, and the log-probability of all characters up to the edge's own.
    """

    source: Tensor
    question: Tensor
    edge: Tensor
    score: Tensor

    def __getitem__(self, chosen: Tensor | slice) -> "_Rows":
        return _Rows(self.source[chosen], self.question[chosen], self.edge[chosen], self.score[chosen])


class _Walk:
    """One scoring while it goes on: what was found, what was left out, what must not be."""

    def __init__(self, model: Transformer, tree: RadixTree, n: int, tolerance: float, exact: int, max_rows: int):
        self.model, self.tree, self.tolerance, self.exact, self.max_rows = model, tree, tolerance, exact, max_rows
        self.device = next(model.parameters()).device
        self.scores = torch.full((n, len(tree.tails)), -torch.inf, dtype=torch.float64, device=self.device)  # (B, P)
        self.neglected = torch.zeros_like(self.scores[:, 0])  # (B,)
        self.highest_neglected = torch.full_like(self.neglected, -torch.inf)  # (B,)
        self.floor = torch.full_like(self.neglected, torch.inf)  # (B,), what is likelier than this is not left out
        self.characters = 0

    def ask(self, prompts: Sequence[Sequence[int]], which: Sequence[int]) -> None:
        """Walk through the tree for some of the questions; those of one length go together."""
        for chosen in of_one_length(prompts, self.max_rows, which):
            question = torch.tensor(chosen, device=self.device)  # (R,)
            tokens = torch.tensor([prompts[i] for i in chosen], device=self.device)  # (R, T)
            cache, read = read_beginning(self.model, tokens, tokens.shape[1])
            self.characters += read
            seen = self._read(tokens[:, read:], cache, read, last=1)
            nothing = torch.zeros_like(question)
            self._branch(cache, seen[:, 0], question, nothing, nothing.double(), tokens.shape[1])

    def require_best(self) -> list[int]:
        """The questions one of whose likeliest places may have been left out, with a floor set that keeps them in."""
        last = self.scores.topk(self.exact, dim=1).values[:, -1]  # (B,)
        unsure = last <= self.highest_neglected
        self.floor[unsure] = last[unsure] - _ROUNDING
        self.neglected[unsure], self.highest_neglected[unsure] = 0.0, -torch.inf
        return unsure.nonzero()[:, 0].tolist()

    def _read(self, tokens: Tensor, cache: Cache, offset: int, last: int | None = None) -> Tensor:
        """Log-probabilities of what follows each of the tokens (R, T), or the last, in float64: (R, T or last, V)."""
        self.characters += tokens.numel()
        return self.model(tokens, cache, offset, last).double().log_softmax(-1)

    def _branch(self, cache: Cache, seen: Tensor, question: Tensor, node: Tensor, score: Tensor, offset: int) -> None:
        """Go on from nodes (R,) along all their edges, knowing what follows them, `seen` (R, V)."""
        tree = self.tree
        begin, count = tree.first_edge[node], tree.first_edge[node + 1] - tree.first_edge[node]
        source = torch.arange(len(node), device=self.device).repeat_interleave(count)  # (edges,)
        edge = begin[source] + torch.arange(len(source), device=self.device) - (count.cumsum(0) - count)[source]
        rows = _Rows(source, question[source], edge, score[source] + seen[source, tree.character[edge]])
        complete = tree.character[edge] == MASK_ID
        self.scores[rows.question[complete], tree.place[edge[complete]]] = rows.score[complete]
        rows = rows[~complete]
        rows = rows[self._worthwhile(rows)] if len(rows.edge) else rows
        place = tree.place[rows.edge]
        alone = place >= 0
        known = self.scores[rows.question, place] > -torch.inf  # from the first walk
        self._finish(cache, rows[alone & ~known], offset)
        for part in self._portions(rows[~alone]):
            own = fork_cache(cache, part.source)
            seen = self._read(tree.character[part.edge][:, None], own, offset)[:, 0]
            self._branch(own, seen, part.question, tree.node[part.edge], part.score, offset + 1)

    def _finish(self, cache: Cache, rows: _Rows, offset: int) -> None:
        """Score the tails of places that are alone; padding behind a tail is read too, but nothing looks back at it."""
        tree = self.tree
        for chosen in like_lengths(tree.tail_lengths[tree.place[rows.edge]], min(_TAILS, self.max_rows)):
            part = rows[chosen]
            place = tree.place[part.edge]
            lengths = tree.tail_lengths[place]
            text = tree.tails[place][:, : int(lengths.max())]  # (R, T)
            seen = self._read(text[:, :-1], fork_cache(cache, part.source), offset)  # (R, T - 1, V)
            gained = seen.gather(2, text[:, 1:, None])[..., 0]  # (R, T - 1)
            own = torch.arange(1, text.shape[1], device=self.device) < lengths[:, None]
            self.scores[part.question, place] = part.score + gained.where(own, 0.0).sum(1)

    def _worthwhile(self, rows: _Rows) -> Tensor:
        """Which rows to go on with, (R,); books the others.

        At every step a question may leave out its least likely beginnings, as long as they have together less than half
        of what is left of its tolerance; the `exact` likeliest of the step and all above its floor go on.
        """
        question, counts = rows.question.unique_consecutive(return_counts=True)
        inside = torch.arange(int(counts.max()), device=self.device) < counts[:, None]  # (questions, most rows)
        table = torch.full(inside.shape, -torch.inf, dtype=torch.float64, device=self.device)
        table[inside] = rows.score
        ascending, order = table.sort(dim=1)
        allowed = (self.tolerance - self.neglected[question]) / 2
        out = (ascending.exp().cumsum(1) < allowed[:, None]) & (ascending < self.floor[question, None])
        out[:, -self.exact :] = False
        out &= ascending > -torch.inf
        self.neglected[question] += (ascending.exp() * out).sum(1)
        highest = ascending.where(out, -torch.inf).amax(1)
        self.highest_neglected[question] = self.highest_neglected[question].maximum(highest)
        return ~torch.zeros_like(inside).scatter(1, order, out)[inside]

    def _portions(self, rows: _Rows) -> Iterator[_Rows]:
        """Rows in runs of at most max_rows; a question's stay together, for its beginnings compete with each other."""
        start = size = 0
        for count in rows.question.unique_consecutive(return_counts=True)[1].tolist():
            if size and size + count > self.max_rows:
                yield rows[start : start + size]
                start, size = start + size, 0
            size += count
        if size:
            yield rows[start:]
