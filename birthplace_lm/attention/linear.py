"""Linear attention: the softmax is replaced by a product of features, and the past fits into one matrix."""

import torch.nn.functional as F
from torch import Tensor, nn

from birthplace_lm.attention.causal_sums import ImpliedWeights, causal_sums
from birthplace_lm.attention.heads import (
    check_heads,
    check_no_scores_needed,
    listened_to,
    merge_heads,
    remember,
    split_heads,
)
from birthplace_lm.positions import Positions

EPSILON = 1e-6  # keeps a position whose features have all died from dividing by 0


class LinearAttention(nn.Module):
    """Σ_{j<=i} φ(q_i)·φ(k_j) v_j / Σ_{j<=i} φ(q_i)·φ(k_j), φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, equation 9).

    Compares by content, but bluntly: weights are products of positive features, of rank K over all places, so it
    averages and cannot single one place out of many. The sums over j are carried along as a state (K, K + 1) a head,
    `chunk` positions c at a time: time O(TD(K + c) + TD²), memory O(TD + HTc + TDK/c), decode cache D(K + 1) numbers
    however long the sequence. No weights stand anywhere, so `dropout` does not act here, only on what the layer adds.

    While somebody listens to `weights`, those that the sums imply are computed as well, in O(HT²), to be read only; a
    cache then keeps the keys too, and the columns are the positions that were listened to.

    Rotary and ALiBi positions are refused. A bias that depends on i - j does not split into a feature of i and one of
    j. A rotation of the features does (Su et al. 2021, equation 19), but it makes weights negative, and the sum that
    divides them has to be left unturned: no average any more. Source: arXiv 2006.16236.
    """

    def __init__(
        self, d_model: int, n_heads: int, block_size: int, dropout: float, positions: Positions, chunk: int = 32
    ):
        super().__init__()
        check_heads(d_model, n_heads)
        check_no_scores_needed(positions, "linear attention")
        if chunk < 1:
            raise ValueError(f"a chunk of {chunk} positions computes nothing: use 1 or more")
        self.n_heads, self.max_length, self.chunk = n_heads, block_size, chunk
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)
        self.weights = ImpliedWeights()

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor:
        q, k, v = self.query_key_value(x).chunk(3, dim=-1)  # (B, T, D)
        q, k, v = (split_heads(part, self.n_heads) for part in (F.elu(q) + 1, F.elu(k) + 1, v))  # (B, H, T, K)
        v = F.pad(v, (0, 1), value=1.0)  # a coordinate of ones: the last of the sums is what divides the others
        sums, state = causal_sums(q, k, v, cache["state"] if cache else None, self.chunk)  # (B, H, T, K + 1)
        if cache is not None:
            cache["state"] = state  # (B, H, K, K + 1)
        if listened_to(self.weights):
            self.weights(q / (sums[..., -1:] + EPSILON), remember(cache, "k", k))  # (B, H, T, S)
        return self.output(merge_heads(sums[..., :-1] / (sums[..., -1:] + EPSILON)))  # (B, T, D)
