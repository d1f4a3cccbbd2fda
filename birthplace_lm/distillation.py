"""Knowledge distillation: a model learns what finished models expect, beside what stands in the text.

The loss of a target is (1 - share) · H(text) + share · τ² · H(p, q), with H(p, q) the cross-entropy between the
teachers' distribution p over the next character and the student's q, both with logits divided by the temperature τ. Of
several teachers p is the mean. One teacher of the student's own recipe makes it self-distillation, those of several
seeds put their agreement into one model.

Source: Hinton, Vinyals & Dean 2015 (arXiv 1503.02531); self-distillation: Furlanello et al. 2018 (1805.04770).

Legend: B batch, T time, V vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from birthplace_lm.transformer import Transformer


class Distillation:
    """Soft targets of finished models, which stay as they are and are no part of the model that learns.

    Raises ValueError for no teacher, a share outside (0, 1] and a temperature of 0 or less.
    """

    def __init__(self, teachers: Sequence[Transformer], share: float = 0.5, temperature: float = 1.0):
        if not teachers:
            raise ValueError("distillation needs one or more teachers")
        if not 0 < share <= 1:
            raise ValueError(f"the share of the loss that teachers have is in (0, 1], not {share}")
        if temperature <= 0:
            raise ValueError(f"temperature is above 0, not {temperature}")
        self.teachers = [teacher.eval().requires_grad_(False) for teacher in teachers]
        self.share, self.temperature = share, temperature

    def to(self, device: torch.device) -> None:
        """Bring the teachers to where the student learns."""
        for teacher in self.teachers:
            teacher.to(device)

    def sum_of_losses(self, logits: Tensor, x: Tensor, y: Tensor, nothing: int) -> Tensor:
        """Summed over the targets y (B, T), `nothing` where none is: the student's logits (B, T, V) for x (B, T)."""
        told, target = logits.float(), y.flatten()
        text = F.cross_entropy(told.flatten(0, 1), target, ignore_index=nothing, reduction="sum")
        q = F.log_softmax(told / self.temperature, -1)  # (B, T, V)
        soft = -(self._expected(x) * q).sum(-1).flatten() @ (target != nothing).float() * self.temperature**2
        return (1 - self.share) * text + self.share * soft

    @torch.no_grad()
    def _expected(self, x: Tensor) -> Tensor:
        """The teachers' distribution over the character behind each position: (B, T, V)."""
        return torch.stack([F.softmax(teacher(x).float() / self.temperature, -1) for teacher in self.teachers]).mean(0)
