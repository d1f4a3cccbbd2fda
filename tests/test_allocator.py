"""Memory that is freed stays with the process: pages touched once are not cleared again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from birthplace_lm.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for turn in range(3):
    before = faults()
    for _ in range(10):
        torch.ones(12_000_000)  # 48 MB, above what glibc itself learns to keep
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
def test_large_arrays_take_the_pages_that_others_left() -> None:
    def last_turn(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert last_turn("keep") < 100 < 10 * 100 < last_turn("leave")
