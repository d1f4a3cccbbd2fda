"""Scores that are one product of queries and keys, through torch's fused kernel on a processor.

Other attentions than vanilla's have such scores: hidden units are a query, and what a place is worth to each of them is
its key (the dense synthesizer's); two maps of a head are two heads (the differential one's). The kernel keeps a tile of
weights near the processor and nothing of them for the way back, so it also takes O(T) memory where tiles take O(T²).

Legend: B texts, H heads, T asking positions, S all positions so far, M width of queries and keys, W width of values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from birthplace_lm.attention.terms import Terms, with_bias


def fuses(terms: Terms, v: Tensor, n_rows: int) -> bool:
    """Whether the kernel computes this, and tiles later: a product, of whole texts, its queries no wider than v.

    It wants values as wide as queries, and made so for twice as wide ones (the mixture D + V) it gains nothing up to
    some 2,000 positions.
    """
    if terms.q is None or terms.table is not None or terms.outer is not None:
        return False
    return len(terms.q) == len(v) and n_rows == v.shape[2] and terms.q.shape[3] <= v.shape[3]


def attend_fused(terms: Terms, v: Tensor) -> Tensor:
    """softmax(QKᵀ + b) V behind a causal mask, b what each key has of its own: (B, H, T, W). In float32 at least."""
    assert terms.q is not None and terms.k is not None
    at_least = torch.promote_types(v.dtype, torch.float32)
    q, k, values = (part.to(at_least) for part in (terms.q, terms.k, v))
    if terms.key_bias is not None:
        q, k = with_bias(q, k, terms.key_bias.to(at_least))
    width = max(q.shape[-1], v.shape[-1])
    q, k, values = (F.pad(part, (0, width - part.shape[-1])) for part in (q, k.expand(*v.shape[:2], -1, -1), values))
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(q, k, values, is_causal=True, scale=1.0)
    return mixed[..., : v.shape[-1]].to(v.dtype)
