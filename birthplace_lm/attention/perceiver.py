"""A causal Perceiver layer: the past is written into a few latents, and every position reads those."""

import torch
from torch import Tensor, nn

from birthplace_lm.attention.causal_sums import ImpliedWeights, causal_sums
from birthplace_lm.attention.heads import (
    as_narrow_as,
    check_heads,
    check_no_scores_needed,
    listened_to,
    merge_heads,
    remember,
    split_heads,
)
from birthplace_lm.positions import Positions

CAP = 30.0  # what a character may want of a latent at most: exp(±30) and sums of it are safe in float32


class PerceiverAttention(nn.Module):
    """Down, z_m(i) = Σ_{j<=i} φ_jm (k_j, v_j) / Σ_{j<=i} φ_jm, and up, softmax(q_i·z_m(i)/√K) over the M latents m.

    φ_jm = exp(c_m·x_j) says how much of position j goes into latent m: cross-attention of a learned query c_m over all
    positions so far, as in a Perceiver's first block (Jaegle et al. 2021, arXiv 2103.03206), and the read is the way
    back up of its last. This is attention with bounded memory, whose causal form is that of Peng et al. 2022 (ABC,
    arXiv 2110.02488, section 4). c_m·x_j is kept within ±30 by a tanh.

    Why not the course's Perceiver (CS224N 2022: the first block takes the sequence down to m latents, the last one
    back up): its latents compress over positions, so without a mask every latent has seen the whole sequence and tells
    position i its own target; with a mask that lets latent m see the positions <= m, as though it stood there, nothing
    leaks, but what stands at m and later reaches no latent at all. Sound for next characters is a latent at a time: a
    z_m(i) for every position i. Prefix sums make that cheap, and position i depends on j <= i alone.

    Compares by content twice, through a bottleneck: what M latents a head cannot keep apart, no position can. A latent
    is an average over all of the past and forgets nothing by itself. Weights of positions (for whoever looks) are
    Σ_m read_im φ_jm / Σ_{j<=i} φ_jm and sum to 1. Time O(TM(D + Hc) + TcD + TD²) with c = `chunk`, memory
    O(T(D + HM + Hc + DM/c)), decode cache 2DM + HM numbers however long the sequence. `dropout` acts only on what the
    layer adds. Rotary and ALiBi positions are refused: a latent is made of many places, so there is no distance to it.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        block_size: int,
        dropout: float,
        positions: Positions,
        n_latents: int = 16,
        chunk: int = 32,
    ):
        super().__init__()
        self.scale = check_heads(d_model, n_heads) ** -0.5
        check_no_scores_needed(positions, "a perceiver")
        if not 1 <= n_latents <= block_size:
            raise ValueError(
                f"{n_latents} latents: use 1 … {block_size}, more than the block's positions compress nothing"
            )
        if chunk < 1:
            raise ValueError(f"a chunk of {chunk} positions computes nothing: use 1 or more")
        self.n_heads, self.max_length, self.chunk = n_heads, block_size, chunk
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.write = nn.Linear(d_model, n_heads * n_latents)  # the latents' queries c_m of all heads
        self.output = nn.Linear(d_model, d_model)
        self.weights = ImpliedWeights()

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        parts = (*_wide(self.query_key_value(x)).chunk(3, dim=-1), _wide(self.write(x)))
        q, k, v, wanted = (split_heads(part, self.n_heads) for part in parts)  # (B, H, T, K) thrice, (B, H, T, M)
        with torch.autocast(x.device.type, enabled=False):
            out = self._through_latents(q, k, v, wanted, cache)  # (B, H, T, K)
        return self.output(as_narrow_as(merge_heads(out), x))  # (B, T, D)

    def _through_latents(
        self, q: Tensor, k: Tensor, v: Tensor, wanted: Tensor, cache: dict[str, Tensor] | None
    ) -> Tensor:
        """Down and up: queries, keys, values (B, H, T, K) and c_m·x_j (B, H, T, M) to what is read (B, H, T, K).

        In float32 under autocast too. Whole steps in bfloat16, compiled for an H200 (torch 2.11), took the gradient's
        norm from 0.5 at step 30 to 3 million at step 50; in float32 it stayed below 1, and so it did without compiling.
        """
        phi = (CAP * (wanted / CAP).tanh()).exp()  # (B, H, T, M)
        before = cache or {}
        written = phi.cumsum(dim=2) + before.get("written", 0.0)  # (B, H, T, M)
        # Σ_j (q_i·k_j) φ_jm: (B, H, T, M)
        scores, keys = causal_sums(q * self.scale, k, phi, before.get("keys"), self.chunk)
        read = (scores / written).softmax(dim=-1) / written  # (B, H, T, M)
        out, values = causal_sums(read, phi, v, before.get("values"), self.chunk)  # (B, H, T, K)
        if listened_to(self.weights):
            self.weights(read, remember(cache, "phi", phi))  # (B, H, T, S)
        if cache is not None:
            cache.update(keys=keys, values=values, written=written[:, :, -1:])
        return out


def _wide(x: Tensor) -> Tensor:
    """x in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
