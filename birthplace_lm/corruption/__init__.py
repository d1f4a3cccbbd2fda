"""Span corruption as index arithmetic: which pieces of a document, in which order, make up a training sequence.

A policy (one file each in this folder) chooses for every document of a batch a cut and a span in it from uniform random
numbers; `ask_for_span` turns that into pieces, slices of one long tensor that holds every text; `assemble` lays the
pieces out. All of it is tensor arithmetic over a batch, without a loop over examples, on whichever device.

    John Stephen. Born in Glasgow, Stephen became a ...
    `---- before ---------´`span-´`------ after ------´      ->   before ⁇ after ⁇ span

The contract of a policy: `n_uniforms`, `prepare(documents, answers)` called once before training, `max_total` (the
longest sequence it makes), and `policy(store, index (B,), u (B, n_uniforms)) -> Pieces`.

Legend: B batch, P pieces of a sequence, T positions, N texts. Lengths count characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from birthplace_lm.token_store import TokenStore as TokenStore


@dataclass(frozen=True)
class Pieces:
    """Slices of a store that make up sequences, in their order, and where in each sequence the asked-for part begins.

    starts (B, P) into the store's tokens, lengths (B, P), asked (B,).
    """

    starts: Tensor
    lengths: Tensor
    asked: Tensor

    @property
    def totals(self) -> Tensor:
        """Length of each sequence: (B,)."""
        return self.lengths.sum(1)

    def to(self, device: torch.device | None) -> "Pieces":
        """The same pieces on a device."""
        return Pieces(*(moved(tensor, device) for tensor in (self.starts, self.lengths, self.asked)))


def moved(tensor: Tensor, device: torch.device | None) -> Tensor:
    """The tensor on a device; to a GPU by way of pinned memory, so that nobody waits for what the GPU does before."""
    if device is None or device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Cut:
    """What a policy chooses, each (B,), counted from the document's start.

    The sequence shows `name` characters from the document's start, then those from `begin` to `end`, of which those
    from `span` to `span_end` are asked for.
    """

    name: Tensor
    begin: Tensor
    span: Tensor
    span_end: Tensor
    end: Tensor

    def where(self, condition: Tensor, other: "Cut") -> "Cut":
        """This cut in the rows where condition (B,) holds, the other one elsewhere."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Cut(*(torch.where(condition, a, b) for a, b in pairs))


class CorruptionPolicy(Protocol):
    """What interchangeable policies have in common."""

    n_uniforms: int

    @property
    def max_total(self) -> int: ...

    def prepare(self, documents: Sequence[str], answers: Sequence[str]) -> None: ...

    def __call__(self, store: TokenStore, index: Tensor, u: Tensor) -> Pieces: ...


def check_contract(policy: Any) -> None:
    """Raise TypeError for a policy that lacks a part of the contract."""
    if missing := [name for name in ("n_uniforms", "max_total", "prepare") if not hasattr(policy, name)]:
        raise TypeError(f"{type(policy).__name__} has no {' and no '.join(missing)}, as a corruption policy needs")


def check_policy(policy: CorruptionPolicy, store: TokenStore, documents: int = 64) -> None:
    """Ask a prepared policy about some documents, with the least, the middle and the largest random numbers.

    Raises ValueError where it shows anything but its own document and ⁇s: a slice that begins too soon would be the end
    of somebody else's biography.
    """
    index = torch.linspace(0, len(store) - 1, min(documents, len(store))).long()  # (B,)
    first, end = store.offsets[index][:, None], (store.offsets + store.lengths)[index][:, None]  # (B, 1)
    for u in (0.0, 0.5, 1 - 2**-53):
        found = policy(store, index, torch.full((len(index), policy.n_uniforms), u, dtype=torch.float64))
        own = (found.starts >= first) & (found.starts + found.lengths <= end)  # (B, P)
        sentinel = (found.starts == store.mask_at) & (found.lengths == 1)
        wrong = ~(own | sentinel | (found.lengths == 0)).all(1) | (found.lengths < 0).any(1)
        wrong |= (found.totals > policy.max_total) | (found.asked < 0) | (found.asked > found.totals)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"{type(policy).__name__} with random numbers of {u:.3g} makes of document {int(index[row])}, "
                f"characters {int(first[row])} to {int(end[row])} of the store, pieces that begin at "
                f"{found.starts[row].tolist()} with lengths {found.lengths[row].tolist()}, asked from "
                f"{int(found.asked[row])} on: they have to lie within it, a ⁇ be at {store.mask_at}, and all together "
                f"be {policy.max_total} at most"
            )


def choose(u: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    """Integers of {low … high}, all alike likely, from uniform numbers u in [0, 1)."""
    return low + (u * (high - low + 1)).long()


def in_order(store: TokenStore, *segments: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """(starts, lengths), each (B, P), of (start, length) segments of (B,) each; None stands for one MASK."""
    first = next(segment for segment in segments if segment is not None)[0]
    mask = (torch.full_like(first, store.mask_at), torch.ones_like(first))
    filled = [mask if segment is None else segment for segment in segments]
    return torch.stack([start for start, _ in filled], 1), torch.stack([length for _, length in filled], 1)


def ask_for_span(store: TokenStore, index: Tensor, cut: Cut, third_sentinel: bool) -> Pieces:
    """name before ⁇ after ⁇ span, and one ⁇ more with the third sentinel, for the documents index (B,)."""
    start = store.offsets[index]
    starts, lengths = in_order(
        store,
        (start, cut.name),
        (start + cut.begin, cut.span - cut.begin),
        None,
        (start + cut.span_end, cut.end - cut.span_end),
        None,
        (start + cut.span, cut.span_end - cut.span),
        *([None] if third_sentinel else []),
    )
    return Pieces(starts, lengths, asked=lengths[:, :5].sum(1))


def behind(prefix: tuple[int, int], pieces: Pieces) -> Pieces:
    """The same sequences behind a text (offset, length) of their store, and asked for so much later."""
    first = torch.tensor(prefix).expand(len(pieces.asked), 2)
    return Pieces(
        torch.cat([first[:, :1], pieces.starts], 1),
        torch.cat([first[:, 1:], pieces.lengths], 1),
        asked=pieces.asked + prefix[1],
    )


def assemble(store: TokenStore, pieces: Pieces, width: int) -> Tensor:
    """The sequences themselves, filled up with PAD: (B, width), int64."""
    ends = pieces.lengths.cumsum(1)  # (B, P)
    position = torch.arange(width, device=ends.device).expand(len(ends), width).contiguous()  # (B, T)
    piece = torch.searchsorted(ends, position, right=True)  # (B, T): how many pieces end at or before it
    inside = piece < ends.shape[1]
    shift = pieces.starts - (ends - pieces.lengths)  # (B, P): from the position in a sequence to that in the store
    source = position + shift.gather(1, piece.clamp(max=ends.shape[1] - 1))
    return store.take(torch.where(inside, source, store.pad_at))
