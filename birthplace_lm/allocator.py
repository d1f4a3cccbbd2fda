"""What a step leaves for the next, which needs as much again: freed memory, and products compiled for its shapes."""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3), from glibc's malloc.h
_NEVER = 2**31 - 1  # bytes, the most that mallopt takes
_COMPILED = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"  # read by oneDNN at its first product
_SHAPES = 8192  # some fifteen products a length of a text, and every length up to a block of 512


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
    os.environ.setdefault(_COMPILED, str(_SHAPES))
