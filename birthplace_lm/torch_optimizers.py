"""Torch's own optimizers, by name, over the parameter groups that the others have."""

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from birthplace_lm.optimization import decay_groups

_FOR_OTHER_MODELS = ("LBFGS", "SparseAdam")  # needs the loss several times a step; needs sparse gradients


def of_torch(model: nn.Module, kind: str, lr: float, weight_decay: float = 0.0, **more: Any) -> Optimizer:
    """One of torch's own optimizers over `decay_groups`; `more` is what else it takes.

    Raises ValueError for a name that is none, and for a weight decay that this one would not look at.
    """
    named = {name: found for name, found in vars(torch.optim).items() if isinstance(found, type)}
    kinds = sorted(
        name
        for name, found in named.items()
        if issubclass(found, Optimizer) and found is not Optimizer and name not in _FOR_OTHER_MODELS
    )
    if kind not in kinds:
        raise ValueError(f"torch has no optimizer {kind} for this, but {', '.join(kinds)}")
    if weight_decay and "weight_decay" not in inspect.signature(named[kind]).parameters:
        raise ValueError(f"{kind} has no weight decay: {weight_decay} would do nothing, set weight_decay=0")
    made: Optimizer = named[kind](decay_groups(model, weight_decay), lr=lr, **more)
    return made
