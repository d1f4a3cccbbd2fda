"""Trees and weights that come back to the last bit, damage that is always noticed."""

import math
import os
import random
import signal
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors import safe_open
from torch import Tensor, nn

from birthplace_lm.storage import (
    ArchitectureMismatchError,
    DamagedCheckpointError,
    load_tree,
    load_weights,
    save_tree,
    save_weights,
)

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8]


def identical(one: Any, other: Any) -> bool:
    """Equal in type and to the last bit, nans and signed zeros included; dicts in the same order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*raw)
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, dict):
        keys = all(identical(a, b) for a, b in zip(one, other, strict=False))
        return len(one) == len(other) and keys and all(identical(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(identical(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    bits = torch.randint(0, 256, (math.prod(shape) * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    if dtype is torch.bool:
        bits = bits % 2
    return bits.view(dtype).reshape(shape)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | tensors()
KEYS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    LEAVES,
    lambda trees: (
        st.lists(trees, max_size=4) | st.lists(trees, max_size=3).map(tuple) | st.dictionaries(KEYS, trees, max_size=4)
    ),
    max_leaves=12,
)


# ---------------------------------------------------------------------------------------------------------------- trees


@settings(max_examples=80)
@given(tree=TREES)
def test_every_tree_comes_back_to_the_last_bit(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.ckpt"
    save_tree(path, tree)
    assert identical(load_tree(path), tree)


def test_views_parameters_and_shared_memory_are_stored_as_copies(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    parameter = nn.Parameter(base[1])
    tree = {
        "t": base.T,
        "rows": [base, base],
        "part": base[:, 1],
        "p": parameter,
        "conj": torch.tensor([1 + 2j]).conj(),
    }
    save_tree(tmp_path / "a.ckpt", tree)
    back = load_tree(tmp_path / "a.ckpt")
    assert torch.equal(back["t"], base.T) and torch.equal(back["part"], base[:, 1])
    assert torch.equal(back["p"], base[1]) and torch.equal(back["conj"], torch.tensor([1 - 2j]))
    back["rows"][0].zero_()
    assert torch.equal(back["rows"][1], base)


def test_the_file_is_safetensors_to_others_too(tmp_path: Path) -> None:
    save_tree(tmp_path / "a.ckpt", OrderedDict(step=3, weight=torch.ones(2, dtype=torch.bfloat16)))
    with safe_open(tmp_path / "a.ckpt", framework="pt") as file:
        assert list(file.keys()) == ["0"] and file.metadata().keys() == {"tree", "sha256"}
    assert type(load_tree(tmp_path / "a.ckpt")) is dict


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        (OmegaConf.create({"a": 1}), "DictConfig"),
        (OmegaConf.create([1]), "ListConfig"),
        (numpy.float64(1.0), "float64"),
        (signal.SIGTERM, "Signals"),
        (torch.Size([1]), "Size"),
        (torch.float32, "dtype"),
        (torch.eye(2).to_sparse(), "sparse"),
        ({(1, 2): 3}, "tuple"),
    ],
)
def test_what_is_no_plain_data_is_refused_with_its_place(value: Any, kind: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=rf"^callbacks/x/3.*: got .*{kind}"):
        save_tree(tmp_path / "a.ckpt", {"callbacks": {"x": (0, 1, 2, value)}})
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------------- files


def small_tree() -> dict[str, Any]:
    return {"step": 7, "rate": float("inf"), "weights": [torch.arange(5.0), torch.ones(3, dtype=torch.bfloat16)]}


def test_every_single_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_tree(path, small_tree())
    whole = path.read_bytes()
    flips = [(at, bit) for at in range(len(whole)) for bit in range(8)]
    for at, bit in random.Random(0).sample(flips, 500):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        with pytest.raises(DamagedCheckpointError):
            load_tree(path)
    path.write_bytes(whole)
    assert identical(load_tree(path), small_tree())


def test_another_blank_behind_the_header_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for length in range(8):  # until some header needs blanks to end aligned
        save_tree(path, {"a" * length: torch.zeros(2)})
        whole = path.read_bytes()
        end = 8 + int.from_bytes(whole[:8], "little")
        if whole[end - 1 : end] == b" ":
            break
    path.write_bytes(whole[: end - 1] + b"\t" + whole[end:])
    with pytest.raises(DamagedCheckpointError, match="header is not as it was written"):
        load_tree(path)


@settings(max_examples=80)
@given(data=st.data())
def test_truncated_extended_and_overwritten_files_are_noticed(data: st.DataObject, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    save_tree(path, small_tree())
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    tail = data.draw(st.binary(max_size=20))
    damaged = whole[:cut] + tail + (whole[cut + len(tail) :] if data.draw(st.booleans()) else b"")
    path.write_bytes(damaged)
    if damaged == whole:
        load_tree(path)
        return
    with pytest.raises(DamagedCheckpointError, match=r"damaged\.ckpt.*run the same command again"):
        load_tree(path)


def test_other_kinds_of_file_are_refused_and_nothing_in_them_runs(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "boom"),)

    torch.save({"a": Bomb()}, tmp_path / "pickle.ckpt")
    save_weights(tmp_path / "weights.safetensors", nn.Linear(2, 2), {})
    for name in ("pickle.ckpt", "weights.safetensors"):
        with pytest.raises(DamagedCheckpointError, match=name):
            load_tree(tmp_path / name)
    assert not (tmp_path / "boom").exists()
    with pytest.raises(FileNotFoundError):
        load_tree(tmp_path / "absent.ckpt")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_process_killed_while_it_saves_leaves_the_old_file_whole(moment: str, tmp_path: Path) -> None:
    path = tmp_path / "step_00000002.ckpt"
    save_tree(path, small_tree())
    if (child := os.fork()) == 0:
        setattr(os, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        save_tree(path, {"other": torch.zeros(3)})
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # what it had begun lies beside
    assert list(tmp_path.glob("*.ckpt")) == [path] and identical(load_tree(path), small_tree())


def test_a_save_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    save_tree(tmp_path / "a.ckpt", small_tree())
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        save_tree(tmp_path / "a.ckpt", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
    assert identical(load_tree(tmp_path / "a.ckpt"), small_tree())


# -------------------------------------------------------------------------------------------------------------- weights


def test_weights_come_back_with_their_metadata_and_tied_ones_stay_tied(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
        model[1].weight = model[0].weight
        return model

    model, other = tied(), tied()
    save_weights(tmp_path / "w.safetensors", model, {"variant": "vanilla", "note": "Zürich ⁇"})
    assert load_weights(tmp_path / "w.safetensors", other) == {"variant": "vanilla", "note": "Zürich ⁇"}
    assert identical(dict(model.state_dict()), dict(other.state_dict()))
    assert other[0].weight is other[1].weight
    with pytest.raises(ValueError, match="sha256"):
        save_weights(tmp_path / "w.safetensors", model, {"sha256": "mine"})


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    for i in range(8):
        save_weights(tmp_path / f"{i}.safetensors", model, {"stage": "Zürich ⁇", "a": "1", "z": "2"})
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    with safe_open(tmp_path / "0.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("weight"), model.weight)


def test_weights_of_another_model_are_refused_with_a_table(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(1, 1)}), {})
    other = nn.ModuleDict({"a": nn.Linear(2, 4), "c": nn.Linear(1, 1, bias=False)})
    before = other["a"].weight.clone()
    with pytest.raises(ArchitectureMismatchError) as caught:
        load_weights(tmp_path / "w.safetensors", other)
    lines = [line.split() for line in str(caught.value).splitlines()[1:]]
    assert lines == [
        ["name", "in", "file", "in", "model"],
        ["a.weight", "(3,", "2)", "(4,", "2)"],
        ["a.bias", "(3,)", "(4,)"],
        ["c.weight", "–", "(1,", "1)"],
        ["b.bias", "(1,)", "–"],
        ["b.weight", "(1,", "1)", "–"],
    ]
    assert torch.equal(other["a"].weight, before)
    with pytest.raises(ArchitectureMismatchError, match=r"b\.weight +\(1, 1\) +\(1, 2\)$"):  # the same names
        load_weights(tmp_path / "w.safetensors", nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 1)}))


def test_a_long_table_is_cut(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", nn.Sequential(*(nn.Linear(1, 1) for _ in range(10))), {})
    with pytest.raises(ArchitectureMismatchError, match=r"… and 8 more$") as caught:
        load_weights(tmp_path / "w.safetensors", nn.Sequential())
    assert len(str(caught.value).splitlines()) == 1 + 1 + 12 + 1
