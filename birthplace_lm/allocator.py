"""What the C library does with memory that a step frees: keep it for the next step, which needs as much again."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3), from glibc's malloc.h
_NEVER = 2**31 - 1  # bytes, the most that mallopt takes


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
