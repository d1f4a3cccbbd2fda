"""Two tasks on the same sequences: look a value up by its key, or by the place where it stands.

A sequence is n pairs of a key and a value, a stretch of nothing, and then all n keys again in another order, without
their values: the asking places.

    C:3  A:1  B:2   _ _ …   B  C  A        by content:  2 3 1   (the value of the key that is asked)
                                           by position: 3 1 2   (the value in the first, second, third pair)

Keys, values and both orders are drawn anew for every sequence, so nothing can be learned but how to look up. The tokens
say nothing about which of the two is wanted: who looks by places is right by content in 1 of n cases, and the reverse.

**Who need not compare is at 1/n.** Whoever knows all values and their places, and the key that is asked, but not which
key stands with which value, faces n pairs of which each is the right one with the same chance 1/n, whatever else it
knows: keys and values are matched at random. The values of a sequence differ, so its best guess is right with
probability exactly 1/n (`content_blind`). By position the same holds for whoever does not know the places.

**Which cell proves what.** In a pair, key and value share a place (their vectors are added), so one layer can do it:
query and key compare keys, the value path carries the value. A layer that solves it by position but not by content can
turn to places but not to what stands there. With `apart=True` each pair is a key and then its value, two places, which
is multi-query associative recall (Arora et al. 2023, arXiv 2312.04927, section 3.1). There the value has to learn first
which key stands before it: a step by position, then one by content, two layers, the induction heads of Olsson et al.
2022 (arXiv 2209.11895). A training does not find them soon: vanilla with two layers is at 1/n after 6,000 steps of 16
sequences still. By position, one layer solves both forms.

Legend: B sequences, T places, n pairs, D width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from birthplace_lm.batches import step_seed


class Examples(NamedTuple):
    """Sequences and what is to be answered at the last n places of each, for either task."""

    tokens: Tensor  # (B, T)
    content: Tensor  # (B, n), values
    position: Tensor  # (B, n), values


@dataclass(frozen=True)
class LookupTask:
    """The size of the sequences: `n_pairs` of `n_keys` keys and `n_values` values, `gap` empty places, and the asking.

    The gap keeps an attention that sees only its neighbourhood from seeing the pairs: the nearest one is gap + 1 places
    back. A token is a key and a value in one number, key · (n_values + 1) + value, either of which can be blank: the
    numbers after the last.

    >>> task = LookupTask(n_pairs=3, n_keys=10, n_values=10, gap=1)
    >>> tokens, content, position = task.examples(seed=0, step=0, rows=1)
    >>> task.written(tokens[0])
    '2:0 7:2 9:5 _ 7 9 2'
    >>> content.tolist(), position.tolist()
    ([[2, 5, 0]], [[0, 2, 5]])
    """

    n_pairs: int = 8
    n_keys: int = 32
    n_values: int = 32
    gap: int = 32
    apart: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.n_pairs <= min(self.n_keys, self.n_values) or self.gap < 0:
            raise ValueError(
                f"{self.n_pairs} pairs of {self.n_keys} keys and {self.n_values} values, {self.gap} places between: "
                "take 2 pairs or more, at least as many keys and values as pairs, and no negative gap"
            )

    @property
    def length(self) -> int:
        """T, the places of a sequence."""
        return self.n_pairs * (3 if self.apart else 2) + self.gap

    @property
    def content_blind(self) -> float:
        """The best that can be done without knowing which key stands with which value: 1/n, see above."""
        return 1 / self.n_pairs

    def token(self, keys: Tensor | int, values: Tensor | int) -> Tensor:
        """One number for a key and a value; n_keys and n_values stand for none."""
        return torch.as_tensor(keys * (self.n_values + 1) + values)

    def examples(self, seed: int, step: int, rows: int) -> Examples:
        """The sequences of a step: a pure function of (seed, step, rows). Steps count from 0; -1 is for evaluation."""
        generator = torch.Generator().manual_seed(step_seed(seed, step))
        keys = torch.rand(rows, self.n_keys, generator=generator).argsort(dim=1)[:, : self.n_pairs]  # (B, n)
        values = torch.rand(rows, self.n_values, generator=generator).argsort(dim=1)[:, : self.n_pairs]  # (B, n)
        order = torch.rand(rows, self.n_pairs, generator=generator).argsort(dim=1)  # (B, n)
        if self.apart:
            parts = (self.token(keys, self.n_values), self.token(self.n_keys, values))
            pairs = torch.stack(parts, dim=2).flatten(1)  # (B, 2n)
        else:
            pairs = self.token(keys, values)  # (B, n)
        blank = self.token(self.n_keys, self.n_values).expand(rows, self.gap)  # (B, gap)
        asked = self.token(keys.gather(1, order), self.n_values)  # (B, n)
        return Examples(torch.cat((pairs, blank, asked), dim=1), values.gather(1, order), values)

    def written(self, tokens: Tensor) -> str:
        """One sequence (T,) for people: 6:3 for a pair, 6 for a key, :3 for a value, _ for nothing."""
        words = []
        for token in tokens.tolist():
            key, value = divmod(token, self.n_values + 1)
            left = "" if key == self.n_keys else str(key)
            right = "" if value == self.n_values else f":{value}"
            words.append(left + right or "_")
        return " ".join(words)


class PairEmbedding(nn.Module):
    """The vector of a token: that of its key plus that of its value, (B, T) -> (B, T, D)."""

    def __init__(self, task: LookupTask, d_model: int):
        super().__init__()
        self.base = task.n_values + 1
        self.keys, self.values = nn.Embedding(task.n_keys + 1, d_model), nn.Embedding(self.base, d_model)
        for table in (self.keys, self.values):
            nn.init.normal_(table.weight, std=0.02)  # as the model's own embeddings

    def forward(self, tokens: Tensor) -> Tensor:
        return self.keys(tokens // self.base) + self.values(tokens % self.base)
