"""LoRA: what finetuning adds to a matrix has low rank.

Legend: R rows and C columns of a weight matrix, r rank.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from birthplace_lm.adaptation import check_parts, part_of
from birthplace_lm.transformer import Transformer


class LowRankSum(nn.Module):
    """W + (α/r)·BA with B (R, r) zero and A (r, C) Gaussian at first (Hu et al. 2021, arXiv 2106.09685, equation 3).

    So the model begins as the pretrained one. A's deviation, which the paper leaves open, is 1/√C: what A reads is as
    large as what W reads is on average.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float):
        super().__init__()
        rows, columns = weight.shape
        self.scale = alpha / rank
        self.a = nn.Parameter(weight.new_empty(rank, columns).normal_(std=columns**-0.5))
        self.b = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(R, C) -> (R, C)"""
        return torch.addmm(weight, self.b, self.a, alpha=self.scale)


def low_rank(model: Transformer, rank: int, alpha: float, parts: Sequence[str] = ("attention", "mlp")) -> None:
    """Freeze the model and give every linear map of its attention or mlp, or of both, an addition of rank r.

    Whatever of an attention is no linear map (tables of a synthesizer, weights of a mixture) stays frozen too. A comes
    from torch's random numbers, so their seed decides it. Raises ValueError for a rank that one of the matrices cannot
    have, an alpha that is not above 0, and parts that have no linear map.
    """
    check_parts(parts, ("attention", "mlp"))
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}: with a scale of alpha / rank it has to be above 0")
    maps = {
        name: module
        for name, module in model.blocks.named_modules(prefix="blocks")
        if isinstance(module, nn.Linear) and part_of(name) in parts
    }
    if not maps:
        raise ValueError(f"this model has no linear map in {', '.join(parts)}: nothing would learn")
    for name, module in maps.items():
        rows, columns = module.weight.shape
        if not 1 <= rank <= min(rows, columns):
            raise ValueError(
                f"rank is {rank}, but {name} is a matrix of {rows} x {columns}: choose 1 … {min(rows, columns)}"
            )
    model.requires_grad_(False)
    for module in maps.values():
        parametrize.register_parametrization(module, "weight", LowRankSum(module.weight.detach(), rank, alpha))
