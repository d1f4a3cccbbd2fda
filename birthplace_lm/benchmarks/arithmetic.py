"""How much a computation calculates: every operation that runs is counted, forward and backward, as it is computed.

Counting what runs, rather than a formula in every variant, is what lets a new attention have its figure without a line
here. The formulas stand in the tests, which hold the products of every variant to its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Operations that put numbers in place and calculate none. What is not here is taken to calculate.
MOVES = frozenset((
    "_to_copy", "arange", "as_strided_scatter", "bernoulli_", "cat", "clone", "constant_pad_nd", "copy_",
    "detach", "empty", "empty_like", "expand", "fill_", "full", "full_like", "gather", "index", "index_select",
    "lift_fresh", "masked_fill", "new_empty", "new_empty_strided", "new_ones", "new_zeros", "normal_", "ones",
    "ones_like", "repeat", "scalar_tensor", "select_backward", "slice_backward", "stack", "tril", "triu",
    "unfold", "unfold_backward", "uniform_", "where", "zero_", "zeros", "zeros_like",
))  # fmt: skip
# Steps a number: a softmax takes a maximum, subtracts, exponentiates, sums and divides; its gradient is y·(g - Σ g·y).
STEPS = {"_softmax": 5, "_safe_softmax": 5, "_softmax_backward_data": 4}


@dataclass(frozen=True)
class Arithmetic:
    """Floating-point operations: those of matrix products, 2·m·n·k each, and one a number and step of all others."""

    products: int
    elementwise: int

    @property
    def total(self) -> int:
        return self.products + self.elementwise


class _Counter(TorchDispatchMode):
    """Counts what passes while it is entered, the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.elementwise = 0, 0

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = function._overloadpacket
        if torch.is_inference_mode_enabled() and packet not in flop_registry and packet not in _OWN_COUNTS:
            with self:  # where no gradient is recorded what consists of others, as a linear layer does, comes whole
                out = function.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = function(*args, **(kwargs or {}))
        if packet in _OWN_COUNTS:
            self._count(*_OWN_COUNTS[packet](args, kwargs or {}))
        elif packet in flop_registry:
            self._count(int(flop_registry[packet](*args, **(kwargs or {}), out_val=out)), 0)
        elif not function.is_view and packet.__name__ not in MOVES:
            self._count(0, STEPS.get(packet.__name__, 1) * _numbers(args, out))
        return out

    def _count(self, products: int, elementwise: int) -> None:
        self.products += products
        self.elementwise += elementwise


def _numbers(args: Sequence[Any], out: Any) -> int:
    """How many numbers an operation goes through: those it reads or those it makes, whichever are more."""
    outs = out if isinstance(out, tuple | list) else (out,)
    sizes = [part.numel() for part in (*args, *outs) if isinstance(part, Tensor) and part.is_floating_point()]
    return max(sizes, default=0)


def _pairs(args: Sequence[Any], first: int, causal: bool) -> tuple[int, int, int]:
    """(pairs of positions over all rows and heads, width of keys, width of values) of a fused attention.

    The kernel leaves out what lies wholly in the future, so that a causal one computes the triangle.
    """
    q, k, v = args[first : first + 3]
    rows, heads, n_new, width = q.shape
    n_all = k.shape[2]
    pairs = n_new * (n_new + 1) // 2 + n_new * (n_all - n_new) if causal else n_new * n_all
    return rows * heads * pairs, width, v.shape[3]


def _fused_forward(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[int, int]:
    """Scores and mixed values, with a softmax between."""
    causal = bool(args[4]) if len(args) > 4 else bool(kwargs.get("is_causal", False))
    pairs, width, value_width = _pairs(args, 0, causal)
    return 2 * pairs * (width + value_width), STEPS["_softmax"] * pairs


def _fused_backward(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[int, int]:
    """Scores again, then the gradients of values, weights, queries and keys: five products, the weights twice."""
    pairs, width, value_width = _pairs(args, 1, bool(args[7]))
    return 2 * pairs * (3 * width + 2 * value_width), (2 + STEPS["_softmax_backward_data"]) * pairs


_aten = torch.ops.aten
# What flop_registry does not know, and what it would count without the causal half: (products, elementwise).
_OWN_COUNTS: dict[Any, Callable[[Sequence[Any], dict[str, Any]], tuple[int, int]]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _fused_forward,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _fused_backward,
    # flop_registry knows them only where they are not in place
    _aten.addmm_: lambda args, kwargs: (2 * args[1].numel() * args[2].shape[1], 0),
    _aten.baddbmm_: lambda args, kwargs: (2 * args[1].numel() * args[2].shape[2], 0),
    _aten.mv: lambda args, kwargs: (2 * args[0].numel(), 0),  # a matrix and a vector
}


def count(compute: Callable[[], object]) -> Arithmetic:
    """The arithmetic of one call."""
    with _Counter() as counter:
        compute()
    return Arithmetic(counter.products, counter.elementwise)


def forward_backward(layer: nn.Module, x: Tensor) -> None:
    """One step of a layer inside a model: its output, and the gradients of its parameters and of x."""
    layer.zero_grad(set_to_none=True)
    x = x.detach().requires_grad_()
    out = layer(x)
    out.backward(torch.ones_like(out))
