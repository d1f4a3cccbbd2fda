"""The same attention from x-transformers (Phil Wang), with the same weights: equal outputs? And which is faster?

Theirs is one class with a flag for everything, ours a file a variant; both are measured at their best, theirs with
`flash=True` wherever it takes that. Where the two write an equation differently, the weights are carried over so that
both compute the same function:

- rotary: theirs turns the coordinates (2k, 2k + 1), ours (k, k + K/2); the rows of queries and keys are put in order.
- grouped queries: head h reads group h mod G with them, ⌊h·G/H⌋ with us; the heads are put in order.
- talking heads: theirs adds the mixture to the scores, S + P·S, so that P = P_l - I; ours is P_l·S.
- QK-norm: theirs divides by the length and multiplies by a gain, ours divides by the root mean square, which is the
  length over √K: their gain is ours times √K. (Their other scale, one fixed number for all heads, has no counterpart.)
- ALiBi: equal slopes for numbers of heads that are powers of two; for others the two formulas differ.
- softmax: theirs, unfused, computes it in float32 whatever the input, which is the difference left in float64.
- biases: theirs has none in the projections; ours are 0 in this comparison, and counted in our time.

Legend: B batch, T time, D width, H heads, G groups of heads, K = D/H.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from birthplace_lm.attention.fused import FusedAttention
from birthplace_lm.attention.grouped_query import GroupedQueryAttention
from birthplace_lm.attention.multi_query import MultiQueryAttention
from birthplace_lm.attention.sliding_window import SlidingWindowAttention
from birthplace_lm.attention.talking_heads import TalkingHeadsAttention
from birthplace_lm.attention.vanilla import VanillaAttention
from birthplace_lm.benchmarks.arithmetic import forward_backward
from birthplace_lm.positions import Positions
from birthplace_lm.positions.alibi import AlibiPositions
from birthplace_lm.positions.rotary import RotaryPositions

D_MODEL, N_HEADS = 256, 8
WINDOW, GROUPS = 32, 2


@dataclass(frozen=True)
class Peer:
    """One variant: how ours is made, and with which flags theirs is."""

    ours: Callable[..., nn.Module]
    flags: Mapping[str, Any] = field(default_factory=dict)
    positions: type[Positions] = Positions
    knobs: Mapping[str, Any] = field(default_factory=dict)
    can_flash: bool = True


PEERS = {
    "plain": Peer(VanillaAttention),
    "rotary": Peer(VanillaAttention, positions=RotaryPositions),
    "ALiBi": Peer(VanillaAttention, positions=AlibiPositions),
    "grouped-query": Peer(GroupedQueryAttention, {"kv_heads": GROUPS}, knobs={"n_groups": GROUPS}),
    "multi-query": Peer(MultiQueryAttention, {"one_kv_head": True}),
    "QK-norm": Peer(VanillaAttention, {"qk_norm": True, "qk_norm_dim_scale": True}, knobs={"qk_norm": True}),
    "sliding window": Peer(SlidingWindowAttention, {"max_attend_past": WINDOW - 1}, knobs={"window": WINDOW}),
    "talking heads": Peer(
        TalkingHeadsAttention, {"pre_talking_heads": True, "post_talking_heads": True}, can_flash=False
    ),
}  # fmt: skip


class Theirs(nn.Module):
    """Their layer with the weights of one of ours; its positions are computed once, outside, as they do it."""

    def __init__(self, name: str, ours: Any, length: int, flash: bool):
        super().__init__()
        from x_transformers.x_transformers import AlibiPositionalBias, Attention, RotaryEmbedding

        peer, width = PEERS[name], D_MODEL // N_HEADS
        self.layer = Attention(D_MODEL, dim_head=width, heads=N_HEADS, causal=True, flash=flash, **peer.flags)
        rotary, alibi = peer.positions is RotaryPositions, peer.positions is AlibiPositions
        self.rotary = RotaryEmbedding(width).forward_from_seq_len(length) if rotary else None
        self.alibi = AlibiPositionalBias(N_HEADS) if alibi else None
        with torch.no_grad():
            _carry_over(ours, self.layer, rotary)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, rotary_pos_emb=self.rotary, rel_pos=self.alibi)


def _carry_over(ours: Any, theirs: Any, rotary: bool) -> None:
    """Our weights into their layer; our biases become 0."""
    for parameter in ours.parameters():
        if parameter.ndim == 1 and parameter.numel() > D_MODEL // N_HEADS:
            nn.init.zeros_(parameter)
    if isinstance(ours, FusedAttention):
        (q, k, v), groups = ours.query_key_value.weight.split(ours.sizes), ours.n_groups
    else:
        (q, k), v, groups = ours.scores.query_key.weight.chunk(2), ours.value.weight, N_HEADS
    heads = _heads_in_their_order(groups)
    q, output = q.unflatten(0, (N_HEADS, -1))[heads].flatten(0, 1), ours.output.weight
    pairs = _pairs_in_their_order(q.shape[0] // N_HEADS) if rotary else slice(None)
    theirs.to_q.weight.copy_(q.unflatten(0, (N_HEADS, -1))[:, pairs].flatten(0, 1))
    theirs.to_k.weight.copy_(k.unflatten(0, (groups, -1))[:, pairs].flatten(0, 1))
    theirs.to_v.weight.copy_(v)
    theirs.to_out.weight.copy_(output.unflatten(1, (N_HEADS, -1))[:, heads].flatten(1))
    if theirs.qk_norm:
        for norm, scale in ((ours.query_norm, theirs.qk_norm_q_scale), (ours.key_norm, theirs.qk_norm_k_scale)):
            scale.copy_((norm.weight * norm.weight.numel() ** 0.5).expand_as(scale))
    if theirs.attend.pre_softmax_talking_heads is not None:
        before, after = ours.weights.before, ours.weights.after  # (H, H)
        theirs.attend.pre_softmax_talking_heads.weight.copy_((before - torch.eye(N_HEADS))[..., None, None])
        theirs.attend.post_softmax_talking_heads.weight.copy_(after[..., None, None])


def _heads_in_their_order(groups: int) -> list[int]:
    """Which of our heads stands where with them: ours go group by group, theirs deal the groups out in turn."""
    share = N_HEADS // groups
    return [group * share + number for number in range(share) for group in range(groups)]


def _pairs_in_their_order(width: int) -> list[int]:
    """Which of our coordinates of a head stands where with them.

    >>> _pairs_in_their_order(6)
    [0, 3, 1, 4, 2, 5]
    """
    return [pair + half for pair in range(width // 2) for half in (0, width // 2)]


def both(name: str, length: int, flash: bool) -> tuple[nn.Module, Theirs]:
    """Our layer, its weights moved off their first values, and theirs with the same weights."""
    peer = PEERS[name]
    torch.manual_seed(0)
    positions = peer.positions(length, D_MODEL, N_HEADS)
    ours = peer.ours(D_MODEL, N_HEADS, length, 0.0, positions, **peer.knobs)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return ours, Theirs(name, ours, length, flash)


def difference(name: str, dtype: torch.dtype = torch.float32, length: int = 128, rows: int = 4) -> float:
    """The largest difference between the outputs, in units of the largest output."""
    worst = 0.0
    for flash in (False, True) if PEERS[name].can_flash else (False,):
        ours, theirs = (layer.to(dtype) for layer in both(name, length, flash))
        x = torch.randn(rows, length, D_MODEL, dtype=dtype)
        with torch.no_grad():
            expected, actual = ours(x), theirs(x)
        worst = max(worst, float((expected - actual).abs().max() / expected.abs().max()))
    return worst


def compare(repetitions: int = 5, length: int = 128, rows: int = 128) -> Iterator[dict[str, Any]]:
    """A row a variant: differences, and our time over theirs, forward and backward, by turns; theirs at its faster."""
    x = torch.randn(rows, length, D_MODEL, generator=torch.Generator().manual_seed(0))
    for name, peer in PEERS.items():
        ours, theirs = both(name, length, flash=False)
        ways: dict[str, nn.Module] = {"ours": ours, "theirs": theirs}
        if peer.can_flash:
            ways["theirs, flash"] = both(name, length, flash=True)[1]
        seconds = {way: median(times) for way, times in _by_turns(ways, x, repetitions).items()}
        fastest = min(seconds[way] for way in ways if way != "ours")
        yield {
            "variant": name,
            "difference_float32": difference(name),
            "difference_float64": difference(name, torch.float64),
            "milliseconds": {way: 1000 * time for way, time in seconds.items()},
            "ratio": seconds["ours"] / fastest,
        }


def _by_turns(ways: Mapping[str, nn.Module], x: Tensor, repetitions: int) -> dict[str, list[float]]:
    for layer in ways.values():
        forward_backward(layer, x)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repetitions):
        for way, layer in ways.items():
            begin = time.perf_counter()
            forward_backward(layer, x)
            times[way].append(time.perf_counter() - begin)
    return times


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table."""
    lines = [
        "| variant | largest difference, float32 | float64 | ours, ms | theirs, ms | ours / theirs |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        own = row["milliseconds"]["ours"]
        lines.append(
            f"| {row['variant']} | {row['difference_float32']:.0e} | {row['difference_float64']:.0e} "
            f"| {own:.0f} | {own / row['ratio']:.0f} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"
