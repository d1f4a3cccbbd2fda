"""ALiBi: nothing is added to the characters; scores sink with the distance instead."""

import torch
from torch import Tensor

from birthplace_lm.positions import Positions


class AlibiPositions(Positions):
    """- slope_h · (i - j) added to the scores, slope_h = 2^(-8h/H) for h = 1 … H (Press et al. 2021, arXiv 2108.12409).

    Nearer places weigh more, steeply in the first heads and hardly in the last. The same formula for every H, whereas
    the published program takes every second slope of the next power of two when H is none.
    """

    needs_scores = True

    def score_bias(self, n_new: int, n_all: int, device: torch.device) -> Tensor:
        head = torch.arange(1, self.n_heads + 1, device=device, dtype=torch.float32)
        slope = 2 ** (-8 * head / self.n_heads)  # (H,)
        place = torch.arange(n_all, device=device)
        distance = place[n_all - n_new :, None] - place  # (T, S), negative where the causal mask hides it
        return -slope[:, None, None] * distance  # (H, T, S)
