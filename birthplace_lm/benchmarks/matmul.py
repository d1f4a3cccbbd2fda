"""How fast this machine multiplies matrices of a model's shapes: what a training step can be held against.

Legend: N rows (positions of a batch), I inputs and O outputs of a linear layer.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MatmulRate:
    """The three products of a linear layer's training step, for every shape of the model: output and both gradients.

    Results go to memory that is there already, and nothing else is computed. `rows` are the N to try, such as those of
    a whole batch and of a micro-batch; the rate is that of the better one.
    """

    def __init__(self, model: nn.Module, rows: Sequence[int]):
        self.shapes = sorted({(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)})
        self.rows, self.rates = list(rows), list[float]()
        self.measure()
        self.rates.clear()  # that was for warming up

    def measure(self) -> float:
        """Floating-point operations a second, 2·N·I·O a product; kept in `rates` too."""
        self.rates.append(max(self._rate(n) for n in self.rows))
        return self.rates[-1]

    def _rate(self, n: int) -> float:
        seconds = sum(self._seconds(n, inputs, outputs) for inputs, outputs in self.shapes)
        return sum(6 * n * inputs * outputs for inputs, outputs in self.shapes) / seconds

    @staticmethod
    def _seconds(n: int, inputs: int, outputs: int) -> float:
        x, weight, gradient = torch.randn(n, inputs), torch.randn(outputs, inputs), torch.randn(n, outputs)
        products: list[tuple[Tensor, Tensor, Tensor]] = [
            (x, weight.T, torch.zeros(n, outputs)),
            (gradient, weight, torch.zeros(n, inputs)),
            (gradient.T, x, torch.zeros(outputs, inputs)),
        ]
        begin = time.perf_counter()
        for left, right, out in products:
            torch.mm(left, right, out=out)
        return time.perf_counter() - begin
