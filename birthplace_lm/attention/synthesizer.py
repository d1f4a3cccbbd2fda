"""The dense synthesizer: a position's attention weights are computed from that position alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.attention.heads import causal, check_heads, merge_heads, remember, seen_so_far, split_heads
from birthplace_lm.positions import Positions


class SynthesizerAttention(nn.Module):
    """softmax(ReLU(XA + b₁)B + b₂) V, with A a head's own and B, b₂ shared by all heads (Tay et al. 2020, section 3.1).

    The scores of position i are a function of x_i and of the place j, never of what stands at j: one layer can look up
    by position but not by content. B has block - 1 columns, so that is the longest sequence, as in the published
    program. Time O(T²D + TD²), decode cache D numbers a position (values only).
    """

    def __init__(self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions):
        super().__init__()
        width = check_heads(d_model, n_heads)
        if positions.needs_scores:
            raise ValueError(
                f"{type(positions).__name__} acts on query-key scores, and a synthesizer has none: "
                "use positions=learned or positions=none"
            )
        self.n_heads, self.max_length = n_heads, block_size - 1
        self.hidden = nn.Linear(d_model, d_model)  # A and b₁ of all heads side by side
        self.scores = nn.Parameter(torch.empty(width, self.max_length).uniform_(-0.001, 0.001))  # B
        self.scores_bias = nn.Parameter(torch.zeros(self.max_length))  # b₂
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        offset = seen_so_far(cache, "v")
        v = remember(cache, "v", split_heads(self.value(x), self.n_heads))  # (B, H, S, K)
        length = v.shape[2]
        hidden = split_heads(F.relu(self.hidden(x)), self.n_heads)  # (B, H, T, K)
        scores = hidden @ self.scores[:, :length] + self.scores_bias[:length]  # (B, H, T, S)
        allowed = causal(length - offset, length, x.device)  # (T, S)
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
        return self.output(merge_heads(self.dropout(weights) @ v))  # (B, T, D)
