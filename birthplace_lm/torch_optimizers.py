"""Torch's own optimizers, by name, over the parameter groups that the others have."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from birthplace_lm.optimization import decay_groups


def of_torch(model: nn.Module, kind: str, lr: float, weight_decay: float = 0.0, **more: Any) -> Optimizer:
    """One of torch's own optimizers over `decay_groups`; `more` is what else it takes.

    Raises ValueError for a name that is none.
    """
    named = {name: found for name, found in vars(torch.optim).items() if isinstance(found, type)}
    kinds = sorted(name for name, found in named.items() if issubclass(found, Optimizer) and found is not Optimizer)
    if kind not in kinds:
        raise ValueError(f"torch has no optimizer {kind}, but {', '.join(kinds)}")
    made: Optimizer = named[kind](decay_groups(model, weight_decay), lr=lr, **more)
    return made
