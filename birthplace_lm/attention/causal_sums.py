"""Attention without a softmax: sums over the past of products, which a state of one size carries along.

Legend: B batch, H heads, T new positions, S all positions so far, M and N widths, c positions of a chunk, C chunks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def causal_sums(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, chunk: int) -> tuple[Tensor, Tensor]:
    """Σ_{j<=i} (q_i·k_j) v_j for every i, and Σ_j k_j v_jᵀ, by which a later call goes on.

    q and k: (B, H, T, M), v: (B, H, T, N), state: (B, H, M, N) that earlier calls returned, None where this is the
    first -> sums (B, H, T, N), state. At most `chunk` positions c at a time: within a chunk as a matrix (c, c), before
    it through the state, so time O(T(Mc + Nc + MN)) a head, memory O(T(M + N + c + MN/c)), and a knob of these alone.
    The state has float32 at least: in bfloat16 a long one would no longer change by what one position adds.
    """
    sums, state = _CausalSums.apply(q, k, v, state, chunk)
    return sums, state


class _CausalSums(torch.autograd.Function):
    """All chunks at once, with the gradient written out: its sums run over the future, through a state from behind."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, chunk: int) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        n_chunks = -(-q.shape[2] // chunk)
        q_parts, k_parts, v_parts = (_in_chunks(x, n_chunks) for x in (q, k, v))  # (BHC, c, M or N)
        products = (q_parts @ k_parts.mT).tril_()  # (BHC, c, c)
        sums = products @ v_parts  # (BHC, c, N)
        before, after = _carried((k_parts.mT @ v_parts).unflatten(0, (*q.shape[:2], n_chunks)).unbind(2), state)
        if before is not None:
            before = before.to(sums.dtype)
            sums.baddbmm_(q_parts, before)
        ctx.save_for_backward(q_parts, k_parts, v_parts, products, before)
        ctx.shape, ctx.has_state = (*q.shape[:3], n_chunks), state is not None
        return _in_a_row(sums, ctx.shape), after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """From the gradients g of the sums and of the last state to those of q, k, v and the first state.

        Outside of autocast, also where a compiler traces it inside of one, as it does what a training compiles.
        """
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return *_CausalSums._gradients(ctx, *gradients), None

    @staticmethod
    def _gradients(ctx: Any, of_sums: Tensor | None, of_state: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, products, before = ctx.saved_tensors
        g = torch.zeros_like(v) if of_sums is None else _in_chunks(of_sums, ctx.shape[-1])  # (BHC, c, N)
        of_products = (g @ v.mT).tril_()  # (BHC, c, c)
        of_q, of_k, of_v = of_products @ k, of_products.mT @ q, products.mT @ g
        asked = (q.mT @ g).unflatten(0, (*ctx.shape[:2], ctx.shape[-1])).unbind(2)  # Σ q_i g_iᵀ, (B, H, M, N) a chunk
        behind, of_first_state = _carried(asked, of_state, backwards=True)
        if before is not None:
            of_q.baddbmm_(g, before.mT)
        if behind is not None:
            behind = behind.to(v.dtype)
            of_k.baddbmm_(v, behind.mT)
            of_v.baddbmm_(k, behind)
        of_q, of_k, of_v = (_in_a_row(x, ctx.shape) for x in (of_q, of_k, of_v))
        return of_q, of_k, of_v, of_first_state if ctx.has_state else None


def _in_chunks(x: Tensor, n_chunks: int) -> Tensor:
    """(B, H, T, M) to (BHC, c, M): chunks of one length, as short as it can be, with zeros behind the last position."""
    length = -(-x.shape[2] // n_chunks)
    missing = n_chunks * length - x.shape[2]
    return (F.pad(x, (0, 0, 0, missing)) if missing else x).reshape(-1, length, x.shape[3])


def _in_a_row(x: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """(BHC, c, M) to (B, H, T, M): the inverse of _in_chunks, `shape` being (B, H, T, C)."""
    n_texts, n_heads, n_positions, n_chunks = shape
    return x.view(n_texts, n_heads, n_chunks * x.shape[1], x.shape[2])[:, :, :n_positions]


def _carried(added: tuple[Tensor, ...], state: Tensor | None, backwards: bool = False) -> tuple[Tensor | None, Tensor]:
    """Each chunk adds to a state, (B, H, M, N): what each finds there, (BHC, M, N), and what the last one leaves.

    None for what is found if that is nothing: one chunk, and no state before it. Backwards the first comes last.
    """
    at_least = torch.promote_types(added[0].dtype, torch.float32)
    if state is None and len(added) == 1:
        return None, added[0].to(at_least)
    states = [torch.zeros_like(added[0], dtype=at_least) if state is None else state]
    for part in added[::-1] if backwards else added:
        states.append(states[-1] + part)
    found = states[-2::-1] if backwards else states[:-1]
    return torch.stack(found, dim=2).flatten(0, 2), states[-1]


class ImpliedWeights(nn.Module):
    """q_i·k_j for j <= i: what `causal_sums` amounts to, called only while a forward hook listens."""

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Features of the new positions, (B, H, T, M), and of all so far, (B, H, S, M), to weights (B, H, T, S)."""
        return (q @ k.mT).tril(k.shape[2] - q.shape[2])
