"""How a process is set before it computes: what a step leaves for the next, and numbers that are next to nothing."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3), from glibc's malloc.h
_NEVER = 2**31 - 1  # bytes, the most that mallopt takes
KEPT_PRODUCTS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"  # read by oneDNN at its first product
_SHAPES = 8192  # some fifteen products a length of a text, and every length up to a block of 512


@contextmanager
def set_up_process() -> Iterator[None]:
    """All of the below while a program of ours computes, or whoever trains with our modules in a program of his own.

    To be entered before torch starts threads. Afterwards subnormal numbers are again what they were to the thread that
    entered, since other libraries may count on them; threads that torch started meanwhile go on without. That memory
    and products are kept changes no result, and stays.
    """
    print_what_can_be()
    keep_freed_memory()
    keep_compiled_products()
    before = _flushes_subnormals()
    flush_subnormals()
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def print_what_can_be() -> None:
    """Have what a terminal's or a file's encoding lacks printed as "?": a place's name, or ⁇, is worth no training."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def keep_freed_memory() -> bool:
    """Have freed memory stay with this process; tells whether it could be arranged, which takes glibc.

    By default glibc returns large arrays to the system as they are freed, and the system has to clear the same pages
    again when the next step touches them: up to a sixth of a step's time on small models. What a process holds at most
    stays the same, it only keeps it. Both settings have to be made, one without the other makes it worse.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))


def keep_compiled_products() -> None:
    """Have oneDNN keep what it compiled for every shape, from its first product on; a choice of the user's own stays.

    In bfloat16 a processor's products are compiled, one for each shape, and the newest 1,024 are kept. Texts of all
    lengths have more shapes than that: each would be compiled again whenever it comes up, and what is thrown away for
    it leaves holes in the memory that the next large array has to be searched for.
    """
    os.environ.setdefault(KEPT_PRODUCTS, str(_SHAPES))


def flush_subnormals() -> bool:
    """Have numbers too small for a float's full precision (below 1.2e-38 in float32) count as 0; tells whether they do.

    Processors may be slow with such numbers (a matrix with 4 % of them took a Xeon 73 times as long to multiply), and
    softmaxes make them: where scores lie 88 apart, which the course's recipe reaches within 50 steps, weights are
    subnormal, and so are gradients of weights that are merely small. Threads take the setting over from the thread
    that starts them, so it has to be made before torch's first use of several.
    """
    _let_numpy_look_first()
    return torch.set_flush_denormal(True)


def _flushes_subnormals() -> bool:
    return float(torch.tensor(1e-39) * torch.ones(())) == 0.0


def _let_numpy_look_first() -> None:
    """NumPy before 2.4 measures what a float can hold when it is first asked, and would warn of what it then finds."""
    import numpy as np

    for kind in (np.float32, np.float64):
        np.finfo(kind)
