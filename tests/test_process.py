"""Pages are not cleared again, products are not compiled again, and numbers next to nothing count as 0."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from birthplace_lm.process import keep_compiled_products
from birthplace_lm.stages import run
from tests.test_configs import composed
from tests.test_stages import TINY

PROGRAM = """
import resource, sys
import torch
from birthplace_lm.process import keep_freed_memory

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


SHAPES = """
import sys
import torch
from birthplace_lm.process import keep_compiled_products

if sys.argv[1] == "keep":
    keep_compiled_products()
kernel, signals = torch.ones(4, 4, 3), [torch.ones(4, 4, 16 + length) for length in range(1100)]
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON_CREATION):
    for turn in range(2):
        print("turn", flush=True)
        for signal in signals:
            torch.conv1d(signal, kernel)
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch comes without oneDNN")
def test_every_shape_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """More shapes than oneDNN keeps by itself, in turn: the least recently used is always the next one needed."""
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)

    def compiled_in_second_turn(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", SHAPES, how], capture_output=True, text=True, check=True)
        return done.stdout.split("turn\n")[2].count("create:cache_miss")

    assert compiled_in_second_turn("keep") == 0 < 1000 < compiled_in_second_turn("leave")


def test_a_capacity_of_the_users_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    keep_compiled_products()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"


SUBNORMALS = """
import sys, time, warnings
warnings.simplefilter("error")
import torch
from birthplace_lm.process import flush_subnormals

if sys.argv[1] == "flush":
    assert flush_subnormals()
torch.set_num_threads(2)
numbers, one = torch.full((1 << 22,), 1e-39), torch.ones(())
print(sum(int(part.count_nonzero()) > 0 for part in (numbers * one).chunk(64)))
import numpy
assert numpy.finfo(numpy.float64).smallest_normal > 0
"""


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot be told")
def test_numbers_next_to_nothing_are_zero_in_every_thread() -> None:
    """64 parts of a product that two threads share: with the setting in one of them half of the parts would be left."""

    def parts_with_any(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", SUBNORMALS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert parts_with_any("flush") == 0
    assert parts_with_any("leave") == 64


class _SmallestSeen(pl.Callback):
    product = 1.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.product = float(torch.tensor(1e-39) * torch.ones(()))


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot be told")
def test_what_an_encoding_lacks_ends_no_program() -> None:
    code = "from birthplace_lm.process import set_up_process as s\nwith s(): print('Łódź ⁇ é', flush=True)"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=120)
    assert done.stdout == "?ód? ? é\n".encode("latin-1")


def test_a_training_computes_so(tmp_path: Path) -> None:
    torch.set_flush_denormal(False)
    seen = _SmallestSeen()
    settings = composed(*TINY, f"paths.runs={tmp_path}", "stages=[pretrain]")
    run(settings, {"attention": "vanilla"}, callbacks=[seen])
    assert seen.product == 0.0
    assert float(torch.tensor(1e-39) * torch.ones(())) > 0.0  # and afterwards whoever counts on such numbers has them
