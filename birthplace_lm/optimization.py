"""What turns gradients into steps: parameter groups, AdamW and Muon.

R rows and C columns of a weight matrix, N matrices of one shape.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


def is_bias(name: str) -> bool:
    """Biases are known by name, since some are matrices: `blocks.0.attention.position_bias` is one.

    >>> [is_bias(name) for name in ("head.bias", "blocks.0.attention.position_bias", "blocks.0.norm.weight")]
    [True, True, False]
    """
    return f"_{name.rpartition('.')[2]}".endswith("_bias")


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Every trainable parameter once, those that decay before those that don't.

    Only biases are spared: in the reference recipe LayerNorm weights and embeddings decay, which most recipes spare.
    A group that would be empty is left out.
    """
    return _decay_groups(model.named_parameters(), weight_decay)


def _decay_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay is {weight_decay}: below 0 weights would grow by themselves, use 0 or more")
    decaying, spared = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in named:
        if parameter.requires_grad:
            (spared if is_bias(name) else decaying).append(parameter)
    groups = [{"params": decaying, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def adamw(model: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float, fused: bool = True) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019) over `decay_groups`; fused runs one kernel for all parameters, CPU or CUDA."""
    return _adamw(decay_groups(model, weight_decay), lr, betas, fused)


def _adamw(groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], fused: bool) -> AdamW:
    if len(betas) != 2:
        raise ValueError(f"betas {list(betas)}: two numbers are needed, for the mean and for the square of gradients")
    optimizer = AdamW(groups, lr=lr, betas=(betas[0], betas[1]), fused=fused)
    # A fused AdamW offers to unscale float16 gradients itself, and Lightning then refuses to clip under any mixed
    # precision, bfloat16 too. Without the offer a GradScaler unscales as it does for every other optimizer.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def orthogonalize(
    matrices: Tensor, steps: int = 5, coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315)
) -> Tensor:
    """Replaces each matrix U S Vᵀ by about U Vᵀ, all singular values in [0.68, 1.21], with matrix products alone.

    Newton–Schulz as Jordan (2024) tuned it: X ← aX + (bA + cA²)X with A = XXᵀ, from X scaled to Frobenius norm 1.
    Singular values below about 2e-3 of that norm stay smaller. (N, R, C) -> (N, R, C).
    """
    a, b, c = coefficients
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices  # the Gram matrix of the short side is the cheap one
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT  # (N, min(R, C), min(R, C))
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)  # (N, min(R, C), max(R, C))
    return x.mT if tall else x


# How long a step is for a matrix of R rows and C columns, beside the learning rate; the names are torch.optim.Muon's.
_STEP_LENGTHS: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    # The update's root mean square is then AdamW's, about 0.2, so AdamW's learning rate fits (arXiv 2502.16982).
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}


class Muon(Optimizer):
    """Momentum, orthogonalised: every direction of a weight matrix moves equally far (Jordan 2024; arXiv 2502.16982).

    Matrices of one shape are orthogonalised in one batch, so a step takes a few kernels however many layers there are;
    torch.optim.Muon, from torch 2.9 on, takes the same steps one matrix after the other.
    `compute_dtype` names the torch dtype of Newton–Schulz; None means bfloat16 on CUDA and float32 elsewhere.
    Raises ValueError for parameters that are not matrices; `muon` below gives those to AdamW.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        adjust_lr_fn: str = "original",
        compute_dtype: str | None = None,
    ) -> None:
        if adjust_lr_fn not in _STEP_LENGTHS:
            raise ValueError(f"adjust_lr_fn: got {adjust_lr_fn!r}, know {', '.join(_STEP_LENGTHS)}")
        if not (0 <= lr < math.inf and 0 <= momentum < 1 and 0 <= weight_decay < math.inf and ns_steps >= 1):
            given = f"lr {lr}, weight_decay {weight_decay}, momentum {momentum} and ns_steps {ns_steps}"
            raise ValueError(f"Muon's {given}: use 0 or more, of momentum below 1, and 1 step or more")
        defaults: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "ns_steps": ns_steps}
        defaults |= {"ns_coefficients": tuple(ns_coefficients), "adjust_lr_fn": adjust_lr_fn}
        super().__init__(params, defaults)
        if compute_dtype not in (None, "bfloat16", "float32", "float64"):
            raise ValueError(f"compute_dtype: got {compute_dtype!r}, know bfloat16, float32, float64 and null")
        self.compute_dtype = getattr(torch, compute_dtype) if compute_dtype else None
        for parameter in chain.from_iterable(group["params"] for group in self.param_groups):
            if parameter.ndim != 2:
                raise ValueError(f"Muon takes matrices, got shape {tuple(parameter.shape)}; give that one to AdamW")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape, parameter.dtype, parameter.device].append(parameter)
            for parameters in alike.values():
                self._step_alike(parameters, group)
        return loss

    def _step_alike(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momenta = [self._momentum_of(parameter) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov: one step further along
        directions = torch.stack(ahead).to(self._dtype_on(parameters[0].device))  # (N, R, C)
        directions = orthogonalize(directions, group["ns_steps"], group["ns_coefficients"]).to(parameters[0].dtype)
        length = group["lr"] * _STEP_LENGTHS[group["adjust_lr_fn"]](*parameters[0].shape)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(directions.unbind()), alpha=-length)

    def _momentum_of(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]

    def _dtype_on(self, device: torch.device) -> torch.dtype:
        return self.compute_dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)


class MuonWithAdamW(Optimizer):
    """Muon for some parameters and AdamW for the others, as one optimizer: Lightning steps only one by itself.

    The two share this object's groups and state: a scheduler scales each group's own rate, one state dict holds all.
    """

    def __init__(self, muon: Muon, adamw: AdamW) -> None:
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self.muon = muon
        self.adamw = adamw
        self._share()

    def _share(self) -> None:
        n_muon = len(self.muon.param_groups)
        self.muon.state = self.adamw.state = self.state
        self.muon.param_groups = self.param_groups[:n_muon]
        self.adamw.param_groups = self.param_groups[n_muon:]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """The groups of both, at the beginning; none later, for whether it is Muon's or AdamW's nobody would know."""
        if hasattr(self, "muon"):
            count = len(list(param_group["params"]))
            raise ValueError(
                f"a group of {count} parameters for Muon or for AdamW? Make a new optimizer with all parameters"
            )
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()  # loading makes new dicts, which the two have to follow

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Muon's share: matrices that map hidden states to hidden states, i.e. those in `blocks`, biases aside.

    Embeddings, positions and the head hold a row for each character or place; Jordan (2024) found AdamW better there.

    >>> matrix = torch.zeros(2, 2)
    >>> [is_hidden_matrix(name, matrix) for name in ("blocks.0.mlp.0.weight", "blocks.0.position_bias", "head.weight")]
    [True, False, False]
    """
    return parameter.ndim == 2 and name.partition(".")[0] == "blocks" and not is_bias(name)


def muon(
    model: nn.Module,
    lr: float,
    adamw_lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    momentum: float = 0.95,
    ns_steps: int = 5,
    adjust_lr_fn: str = "original",
    fused: bool = True,
    compute_dtype: str | None = None,
) -> Optimizer:
    """Muon at `lr` for the hidden matrices, AdamW at `adamw_lr` for the rest; weight decay on all but biases.

    Of a model that is partly frozen only what learns is taken, so it may be one of the two alone. Raises ValueError
    when the model has no hidden matrix at all, as when it is wrapped and no name begins with `blocks`.
    """
    every = list(model.named_parameters())
    if not any(is_hidden_matrix(name, parameter) for name, parameter in every):
        names = ", ".join(name for name, _ in every[:3])
        raise ValueError(
            f"0 hidden matrices among {len(every)} parameters ({names}, …): need some; pass the Transformer itself"
        )
    named = [(name, parameter) for name, parameter in every if parameter.requires_grad]
    matrices = [parameter for name, parameter in named if is_hidden_matrix(name, parameter)]
    others = [(name, parameter) for name, parameter in named if not is_hidden_matrix(name, parameter)]
    if not matrices:
        return _adamw(_decay_groups(others, weight_decay), adamw_lr, betas, fused)
    of_matrices = Muon(
        matrices, lr, weight_decay, momentum, ns_steps, adjust_lr_fn=adjust_lr_fn, compute_dtype=compute_dtype
    )
    if not others:
        return of_matrices
    return MuonWithAdamW(of_matrices, _adamw(_decay_groups(others, weight_decay), adamw_lr, betas, fused))
