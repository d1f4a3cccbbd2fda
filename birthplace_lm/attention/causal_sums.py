"""Attention without a softmax: sums over the past of products, which a state of one size carries along.

Legend: B batch, H heads, T new positions, S all positions so far, M and N widths, c positions of a chunk.
"""

import torch
from torch import Tensor, nn


def causal_sums(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, chunk: int) -> tuple[Tensor, Tensor]:
    """Σ_{j<=i} (q_i·k_j) v_j for every i, and Σ_j k_j v_jᵀ, by which a later call goes on.

    q and k: (B, H, T, M), v: (B, H, T, N), state: (B, H, M, N) that earlier calls returned, None where this is the
    first -> sums (B, H, T, N), state. `chunk` positions c at a time: within a chunk as a matrix (c, c), before it
    through the state, so time O(T(Mc + Nc + MN)) a head, and a knob of time alone.
    """
    out: list[Tensor] = []
    for q_part, k_part, v_part in zip(*(part.split(chunk, dim=2) for part in (q, k, v)), strict=True):
        sums = (q_part @ k_part.mT).tril() @ v_part  # (B, H, c, N), through (B, H, c, c)
        added = k_part.mT @ v_part  # (B, H, M, N)
        out.append(sums if state is None else sums + q_part @ state)
        state = added if state is None else state + added
    assert state is not None, "a layer is called with one position at least"
    return torch.cat(out, dim=2), state


class ImpliedWeights(nn.Module):
    """q_i·k_j for j <= i: what `causal_sums` amounts to, called only while a forward hook listens."""

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Features of the new positions, (B, H, T, M), and of all so far, (B, H, S, M), to weights (B, H, T, S)."""
        return (q @ k.mT).tril(k.shape[2] - q.shape[2])
