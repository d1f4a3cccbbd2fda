"""Softmax attention by a fused kernel, and by the ways that are taken where there is none or it is slow.

Legend: B batch, T new positions, S all positions so far, D width, H heads, G groups of heads, K = D/H.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from birthplace_lm.attention.heads import (
    AttentionWeights,
    as_narrow_as,
    causal,
    check_heads,
    in_full_precision,
    listened_to,
    mask_of,
    merge_heads,
    remember,
    seen_so_far,
    split_heads,
)
from birthplace_lm.layer_memory import LayerMemory, Trunk
from birthplace_lm.positions import Positions
from birthplace_lm.rms_norm import RMSNorm

# On a GPU. Not cuDNN's, torch's first choice on an H100 or H200: with it vanilla attention at the course's recipe went
# from a gradient norm of 0.6 at step 500 to 33,700 at step 6,000 and did not learn (torch 2.11, dropout, in a graph);
# others saw wrong gradients of it too (github.com/pytorch/pytorch/issues/150700, /139298, /196678).
_TRUSTED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

# Up to so many new positions a processor is quicker without the fused kernel, as a step of decoding has them: five of
# them behind 35 in 128 rows take 0.7 ms instead of 3.5 on two threads, 1.3 instead of 2.2 on one (eight heads of 32).
_FEW = 16


class FusedAttention(nn.Module):
    """softmax(QKᵀ/√K) V in one fused kernel, every group of H/G heads with keys and values of its own.

    What vanilla attention and its relatives with fewer keys have in common. The weights never stand in memory as a
    matrix on devices with a flash kernel. While somebody listens to `weights` they do: the layer then computes the same
    function step by step, in O(HT²) memory. So it does where a processor drops weights, for which torch has no kernel,
    where it has few new positions, for which that kernel is slow, where many rows go on from a trunk, whose keys it
    multiplies once for all of them, and on a GPU where that kernel would need a mask: for a bias, for a window, for
    several new positions behind those of a cache.
    """

    forks = True

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_groups: int,
        max_length: int,
        dropout: float,
        positions: Positions,
        qk_norm: bool = False,
    ):
        super().__init__()
        width = check_heads(d_model, n_heads)
        if n_groups < 1 or n_heads % n_groups:
            raise ValueError(f"{n_groups} groups do not divide {n_heads} heads: choose n_groups among the divisors")
        self.n_heads, self.n_groups, self.max_length = n_heads, n_groups, max_length
        self.dropout, self.positions = dropout, positions
        self.weights = AttentionWeights(dropout)
        self.sizes = (d_model, n_groups * width, n_groups * width)
        self.query_key_value = nn.Linear(d_model, sum(self.sizes))
        self.output = nn.Linear(d_model, d_model)
        self.query_norm = RMSNorm(width) if qk_norm else nn.Identity()
        self.key_norm = RMSNorm(width) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        q, k, v = self.project(x, seen_so_far(cache, "k"))
        k, v = remember(cache, "k", k), remember(cache, "v", v)
        trunk = cache.trunk if isinstance(cache, LayerMemory) else None
        return self.output(as_narrow_as(self.attend(q, k, v, trunk=trunk), x))  # (B, T, D)

    def project(self, x: Tensor, offset: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, K), keys and values (B, G, T, K) of positions from `offset` on, marked with them."""
        q, k, v = in_full_precision(self.query_key_value(x)).split(self.sizes, dim=-1)
        q = self.positions.rotate(self.query_norm(split_heads(q, self.n_heads)), offset)
        k = self.positions.rotate(self.key_norm(split_heads(k, self.n_groups)), offset)
        return q, k, split_heads(v, self.n_groups)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None, trunk: Trunk | None = None) -> Tensor:
        """(B, H, T, K), (B, G, S, K), (B, G, S, K) -> (B, T, D); S ends where T does.

        Behind a trunk of S₀ positions k and v have the S - S₀ that came after it.
        """
        n_all = k.shape[2] + (trunk.length if trunk is not None else 0)
        bias = self.positions.score_bias(q.shape[2], n_all, q.device)  # (H, T, S) or None
        with torch.autocast(q.device.type, enabled=q.device.type != "cpu" and torch.is_autocast_enabled(q.device.type)):
            if trunk is None and self._fuses(q, k, bias, window):
                attended = self._fused(q, k, v, bias, window)  # (B, H, T, K)
            else:
                attended = self._step_by_step(q, k, v, bias, window, trunk)
        return merge_heads(attended)

    def _fuses(self, q: Tensor, k: Tensor, bias: Tensor | None, window: int | None) -> bool:
        """Whether torch's fused kernel does what is wanted, and soon enough.

        On a GPU the one that takes a mask does not in 16 bits (torch 2.11, an H200, the course's recipe): a sliding
        window's gradient had a norm of 1,300 by step 2,500, ALiBi's 53 by step 9,000; the window's in float32 kept 0.2.
        """
        if listened_to(self.weights):
            return False
        if q.device.type == "cpu":
            return q.shape[2] > _FEW and not (self.training and self.dropout > 0)
        return q.device.type != "cuda" or not _masked(q.shape[2], k.shape[2], bias, window)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, window: int | None) -> Tensor:
        n_new, n_all = q.shape[2], k.shape[2]
        mask = None
        if masked := _masked(n_new, n_all, bias, window):
            mask = causal(n_new, n_all, q.device, window)  # (T, S)
            mask = mask if bias is None else bias.masked_fill(~mask, -torch.inf).to(q.dtype)[None]  # (1, H, T, S)
        with sdpa_kernel(_TRUSTED) if q.device.type == "cuda" else nullcontext():
            return F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=not masked and n_new == n_all,
                enable_gqa=self.n_groups < self.n_heads,
            )  # (B, H, T, K)

    def _step_by_step(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, window: int | None, trunk: Trunk | None = None
    ) -> Tensor:
        rows, heads, n_new, width = q.shape
        asking = heads // self.n_groups * n_new  # positions that ask a group's keys, head by head
        q_by_group = (q * width**-0.5).reshape(rows, self.n_groups, asking, width)
        scores = q_by_group @ k.mT  # (B, G, TH/G, S), behind a trunk S - S₀
        if trunk is not None:
            scores = torch.cat((trunk.scores(q_by_group), scores), dim=-1)
        n_all = scores.shape[3]
        scores = scores.view(rows, heads, n_new, n_all)  # (B, H, T, S)
        scores = scores if bias is None else scores + bias.to(scores.dtype)
        mask = mask_of(causal(n_new, n_all, q.device, window), scores.dtype)  # (T, S)
        weights = self.weights(scores, mask, rows).reshape(rows, self.n_groups, asking, n_all)  # (B, G, TH/G, S)
        before, own = weights.split((n_all - k.shape[2], k.shape[2]), dim=-1)
        mixed = own @ v  # (B, G, TH/G, K)
        return (mixed if trunk is None else mixed + trunk.mixed(before)).view(q.shape)  # (B, H, T, K)


def _masked(n_new: int, n_all: int, bias: Tensor | None, window: int | None) -> bool:
    """Whether a mask has to say what n_new of n_all positions see, for neither all nor "what came before" does."""
    return bias is not None or (window is not None and n_all > window) or 1 < n_new < n_all
