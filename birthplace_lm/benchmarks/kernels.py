"""Where the time of a training step goes on a GPU: every kernel of some steps, by what kind of work it does.

In a recorded step nothing says which part of the model a kernel is for, and a compiled one is for several at once. So
kernels are told apart by what they do, which their names say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from birthplace_lm.benchmarks.ways.replayed import Replayed

# The first kind of whose words a kernel's name has one; that of a compiled kernel names all that went into it.
KINDS: dict[str, tuple[str, ...]] = {
    "compiled: norms, dropout, GELU, sums": ("triton",),
    "attention": ("flash", "fmha", "attention"),
    "matrix products": ("gemm", "nvjet", "cutlass", "splitk", "cublas"),
    "clipping and AdamW": ("multi_tensor_apply", "adam", "lpnorm"),
    "copies and fills": ("memcpy", "memset", "copy", "fill"),
}
REST = "the rest, kernel by kernel"


@dataclass
class Kernel:
    """One kernel's share of a step: microseconds and launches, means over the steps that were looked at."""

    name: str
    microseconds: float
    launches: float

    @property
    def kind(self) -> str:
        """What it does, one of KINDS or REST.

        >>> Kernel("void pytorch_flash::flash_fwd_kernel<…>", 1.0, 4).kind, Kernel("nvjet_tst_64x8", 1.0, 1).kind
        ('attention', 'matrix products')
        """
        name = self.name.lower()
        return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), REST)


def kernels_of(events: Iterable[Any], steps: int) -> list[Kernel]:
    """The kernels among a profiler's events, which are of so many steps; the longest first.

    What runs on the GPU only by name, as the range of an annotation does, is none.
    """
    found: dict[str, Kernel] = {}
    for event in events:
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation:
            kernel = found.setdefault(event.name, Kernel(event.name, 0.0, 0.0))
            kernel.microseconds += event.time_range.elapsed_us() / steps
            kernel.launches += 1 / steps
    return sorted(found.values(), key=lambda kernel: -kernel.microseconds)


def profile_steps(way: Replayed, steps: int) -> tuple[list[Kernel], float]:
    """The kernels of a step in the midst of some, and the milliseconds that it takes without being looked at."""
    way.run(steps)  # as many as are looked at: what is recorded and drawn ahead is so by then
    seconds, _ = way.run(steps)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        way.run(steps)
    return kernels_of(recorded.events() or [], steps), 1000 * seconds / steps


def markdown(kernels: Sequence[Kernel], step_milliseconds: float, heading: str, top: int = 25) -> str:
    """Kinds with their longest kernels, then the longest kernels of all; shares are of the time in kernels."""
    total = sum(kernel.microseconds for kernel in kernels) or 1.0  # where the profiler cannot see the GPU
    lines = [
        f"# {heading}", "",
        f"{sum(kernel.launches for kernel in kernels):,.0f} kernels a step take {total / 1000:.2f} ms of its "
        f"{step_milliseconds:.2f} ms.", "", "| what | ms | share | kernels a step |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    kinds = {kind: [kernel for kernel in kernels if kernel.kind == kind] for kind in (*KINDS, REST)}
    for kind, of_kind in sorted(kinds.items(), key=lambda item: -sum(kernel.microseconds for kernel in item[1])):
        time, launches = (sum(getattr(k, what) for k in of_kind) for what in ("microseconds", "launches"))
        lines.append(f"| {kind} | {time / 1000:.3f} | {time / total:.1%} | {launches:,.0f} |")
    lines += ["", "| kernel | µs a launch | ms a step | share | kernels a step |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| `{_short(kernel.name)}` | {kernel.microseconds / kernel.launches:.1f} | {kernel.microseconds / 1000:.3f} "
        f"| {kernel.microseconds / total:.1%} | {kernel.launches:,.0f} |"
        for kernel in kernels[:top]
    ]
    return "\n".join(lines) + "\n"


def _short(name: str, longest: int = 90) -> str:
    """The name in one cell of a table.

    >>> _short("void at::native::copy<float | int>" + "x" * 90)
    'void at::native::copy<float / int>xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'
    """
    name = name.replace("|", "/").replace("`", "'")
    return name if len(name) <= longest else name[: longest - 1] + "…"
