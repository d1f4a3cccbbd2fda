"""Scaled dot-product attention: every position asks every earlier one by content."""

import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.attention.heads import causal, check_heads, merge_heads, remember, seen_so_far, split_heads
from birthplace_lm.positions import Positions


class VanillaAttention(nn.Module):
    """softmax(QKᵀ/√K) V, a head at a time (Vaswani et al. 2017, equation 1).

    Compares what stands at two positions, so one layer can look a thing up by its content. Time O(T²D + TD²),
    decode cache 2D numbers a position. With `qk_norm` queries and keys have norm √K times a learned gain before they
    are compared (Henry et al. 2020), which keeps large learning rates stable.
    """

    def __init__(
        self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions, qk_norm: bool = False
    ):
        super().__init__()
        width = check_heads(d_model, n_heads)
        self.n_heads, self.dropout, self.positions, self.max_length = n_heads, dropout, positions, block_size
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)
        self.query_norm = nn.RMSNorm(width) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(width) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        q, k, v = (split_heads(part, self.n_heads) for part in self.query_key_value(x).chunk(3, dim=-1))  # (B, H, T, K)
        offset = seen_so_far(cache, "k")
        q = self.positions.rotate(self.query_norm(q), offset)
        k = remember(cache, "k", self.positions.rotate(self.key_norm(k), offset))  # (B, H, S, K)
        v = remember(cache, "v", v)
        mask = causal(q.shape[2], k.shape[2], x.device) if offset and q.shape[2] > 1 else None
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=not offset)
        return self.output(merge_heads(out))  # (B, T, D)
