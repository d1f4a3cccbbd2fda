"""The gradient of a batch as a CUDA graph: recorded once for every shape of batch, then replayed with a single launch.

A small model's step is some 300 kernels of a few microseconds, which a processor launches more slowly than the GPU runs
them. A graph holds them all, with the weights, the inputs and the gradients at fixed places in memory. torch.compile
makes fewer of them, each of which does the work of several on its way through memory.

Source: CUDA programming guide, "CUDA Graphs"; torch.cuda.CUDAGraph.
"""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from birthplace_lm.gradients import gradient_of_sum, learning, with_gradient

_WARM_UP = 2  # runs before a recording: libraries reserve memory and choose kernels in their first


@dataclass
class _Recording:
    """A graph, and the places that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    targets: list[Tensor]
    total: Tensor
    gradients: list[Tensor | None]


class ReplayedSum:
    """Σ term(x, y) / n over the groups of a batch, and its gradient, recorded for every shape that comes up.

    `term` gives a scalar of inputs and targets (B, T) and of the parameters, without a look at any number on the way:
    a branch would be recorded as it was taken. Random numbers are drawn anew in every replay, from the generator's seed
    at that time. A recording is made in the autocast that holds while it is made, with every weight cast inside it.
    The parameters must stay where they are in memory, as they do under optimizers and `load_state_dict`. Methods that
    are `compiled` (a module, a name) are so in recordings alone, one after the other: those of alike modules share what
    the first was compiled to.
    """

    def __init__(
        self,
        term: Callable[[Tensor, Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
        compiled: Sequence[tuple[nn.Module, str]] = (),
    ):
        self._term, self._parameters, self._compiled = term, learning(parameters), compiled
        self._recordings: dict[tuple[torch.Size, ...], _Recording | None] = {}
        self._gradients: list[Tensor | None] = []  # of the last call
        self._n = torch.ones((), device=self._parameters[0].device)

    def prepare(self, inputs: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Record batches of this shape, if they are new; the random generator's state is another one after that.

        Where something in the model cannot be recorded, such batches are computed kernel by kernel, with a warning.
        """
        shapes = tuple(x.shape for x in inputs)
        if shapes in self._recordings:
            return
        for compiled in (self._compiled, ()) if self._compiled else ((),):
            try:
                with _compiling(compiled):
                    self._recordings[shapes] = self._record(inputs, targets)
                return
            except RuntimeError as error:
                reason = error
            what = "compiled" if compiled else "recorded as a CUDA graph, so its steps take several times as long"
            warnings.warn(f"this model cannot be {what}: {reason}", stacklevel=2)
        self._recordings[shapes] = None

    def __call__(self, inputs: Sequence[Tensor], targets: Sequence[Tensor], n: int) -> Tensor:
        """A scalar whose backward() hands the gradient out; the batch's shape has to be prepared."""
        self._n.fill_(n)
        recording = self._recordings[tuple(x.shape for x in inputs)]
        if recording is None:
            total, self._gradients = gradient_of_sum(self._terms(inputs, targets), self._parameters)
        else:
            torch._foreach_copy_([*recording.inputs, *recording.targets], [*inputs, *targets])
            recording.graph.replay()
            total, self._gradients = recording.total, recording.gradients
        return with_gradient(total, self._gradients, self._parameters)

    def hand_out(self) -> None:
        """What backward() of the last sum does with a factor of 1, without a copy: the next replay overwrites it."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def _terms(self, inputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Iterator[Tensor]:
        return (self._term(x, y) / self._n for x, y in zip(inputs, targets, strict=True))

    def _record(self, inputs: Sequence[Tensor], targets: Sequence[Tensor]) -> _Recording:
        fixed = [tensor.clone() for tensor in inputs], [tensor.clone() for tensor in targets]
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                gradient_of_sum(self._terms(*fixed), self._parameters)
        here.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()  # else the recording reads weights that were cast before it, and never casts again
        generator = torch.cuda.default_generators[self._n.device.index]
        before = generator.clone_state()
        try:
            with _nothing_collected(), torch.cuda.graph(graph):
                total, gradients = gradient_of_sum(self._terms(*fixed), self._parameters)
        except RuntimeError:
            generator.graphsafe_set_state(before)  # a recording that fails would leave it waiting for its end
            raise
        finally:
            torch.clear_autocast_cache()  # nor may what follows read those that were cast in it
        return _Recording(graph, *fixed, total, gradients)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Python collects its garbage before, and none inside.

    Garbage may hold memory or graphs of the GPU, and to give those back ends a recording; torch has not collected it
    before one since 2.9 (torch.compiler.config.force_cudagraph_gc).

    >>> with _nothing_collected():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _compiling(methods: Sequence[tuple[nn.Module, str]]) -> Iterator[None]:
    """Methods of some modules are compiled inside, and as before outside."""
    for module, name in methods:
        setattr(module, name, torch.compile(getattr(module, name), dynamic=False))
    try:
        yield
    finally:
        for module, name in methods:
            delattr(module, name)
