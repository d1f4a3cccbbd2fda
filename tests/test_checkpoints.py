"""Trees that come back to the last bit, damage that is always noticed, fits that go on where they were killed."""

import itertools
import logging
import math
import os
import random
import signal
import struct
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors import safe_open
from torch import Tensor, nn

from birthplace_lm import checkpoints
from birthplace_lm.checkpoints import (
    ArchitectureMismatchError,
    CheckpointEvery,
    DamagedCheckpointError,
    SafetensorsCheckpointIO,
    load_tree,
    load_weights,
    newest_valid,
    save_tree,
    save_weights,
)

# Lightning warns because our loaders have no state of their own; that they need none is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")

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


@settings(max_examples=80, deadline=None)
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


@settings(max_examples=80, deadline=None)
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
            SafetensorsCheckpointIO().load_checkpoint(tmp_path / name, weights_only=False)
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
    assert newest_valid(tmp_path) == path and identical(load_tree(path), small_tree())


def test_a_save_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    save_tree(tmp_path / "a.ckpt", small_tree())
    monkeypatch.setattr(checkpoints.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_tree(tmp_path / "a.ckpt", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
    assert identical(load_tree(tmp_path / "a.ckpt"), small_tree())


def test_the_newest_valid_one_is_found_and_the_damaged_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert newest_valid(tmp_path / "absent") is None
    for step in (9, 80, 700):
        save_tree(tmp_path / f"step_{step:08d}.ckpt", {"step": step})
    (tmp_path / "step_00000700.ckpt").write_bytes(b"torn")
    (tmp_path / ".step_00000900.ckpt.123.tmp").write_bytes(b"half")
    (tmp_path / "step_best.ckpt").write_bytes(b"somebody else's")
    with caplog.at_level(logging.WARNING):
        assert newest_valid(tmp_path) == tmp_path / "step_00000080.ckpt"
    (message,) = caplog.messages
    assert "step_00000700.ckpt is damaged" in message and "step_00000080.ckpt" in message
    for path in tmp_path.glob("step_000*"):
        path.write_bytes(b"torn")
    assert newest_valid(tmp_path) is None


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
    with pytest.raises(ArchitectureMismatchError, match="… and 8 more$") as caught:
        load_weights(tmp_path / "w.safetensors", nn.Sequential())
    assert len(str(caught.value).splitlines()) == 1 + 1 + 12 + 1


# ------------------------------------------------------------------------------------------------------------ Lightning

N_STEPS, EPOCH = 20, 5


class Killed(Exception):
    """Stands for a power cut: nothing of ours runs after it."""


class Counting:
    """Batch k is the number k; like our loaders it begins where the step counter stands."""

    def __init__(self, module: "Counter") -> None:
        self.module = module

    def __iter__(self) -> Iterator[Tensor]:
        begin = self.module.trainer.global_step * self.module.trainer.accumulate_grad_batches
        return (torch.tensor(number) for number in itertools.count(begin))


class CountingEpochs(Counting):
    def __len__(self) -> int:
        return EPOCH

    def __iter__(self) -> Iterator[Tensor]:
        begin = self.module.trainer.global_step
        return (torch.tensor(number) for number in range(begin, (begin // EPOCH + 1) * EPOCH))


class Counter(pl.LightningModule):
    def __init__(self, loader: type[Counting], kill_at: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3)
        self.loader, self.kill_at = loader, kill_at
        self.seen: list[tuple[int, int, int]] = []

    def train_dataloader(self) -> Any:
        return self.loader(self)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if int(batch) == self.kill_at:
            raise Killed
        self.seen.append((int(batch), batch_idx, self.current_epoch))
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(int(batch)))
        return self.linear(x).square().sum()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class At(pl.Callback):
    """Calls a function once the given batch is done, before CheckpointEvery sees that, like a signal in the batch."""

    def __init__(self, number: int, act: Any) -> None:
        self.number, self.act = number, act

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        if int(batch) == self.number:
            self.act(trainer)


def fit(
    folder: Path,
    loader: type[Counting] = Counting,
    kill_at: int | None = None,
    saver: CheckpointEvery | None = None,
    before: tuple[pl.Callback, ...] = (),
    accumulate: int = 1,
    **limits: int,
) -> tuple[Counter, pl.Trainer]:
    module = Counter(loader, kill_at)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[SafetensorsCheckpointIO()],
        callbacks=[*before, saver or CheckpointEvery(folder, every_n_steps=1)],
        accumulate_grad_batches=accumulate,
        **(limits or {"max_steps": N_STEPS}),  # type: ignore[arg-type]
    )
    try:
        trainer.fit(module, ckpt_path=newest_valid(folder))
    except Killed:
        trainer.should_stop = True
    return module, trainer


def step_of(path: Path | None) -> int:
    return 0 if path is None else int(path.stem.removeprefix("step_"))


LIMITS: dict[str, tuple[type[Counting], dict[str, int]]] = {
    "one endless epoch": (Counting, {"max_steps": N_STEPS}),
    "epochs": (CountingEpochs, {"max_epochs": N_STEPS // EPOCH}),
    "epochs, limit in steps": (CountingEpochs, {"max_steps": N_STEPS}),
}


@pytest.mark.parametrize("kills", [(3, 8), (5, 5), (5, 7), (10, 11), (9, 15), (4, 10)])
@pytest.mark.parametrize("every", [1, 4, 5])
@pytest.mark.parametrize("shape", LIMITS)
def test_killed_twice_and_resumed_is_as_if_never_killed(
    shape: str, every: int, kills: tuple[int, int], tmp_path: Path
) -> None:
    loader, limits = LIMITS[shape]
    straight, whole = fit(tmp_path / "straight", loader, saver=CheckpointEvery(tmp_path / "straight"), **limits)
    seen: list[tuple[int, int, int]] = []
    for kill_at in (*kills, None):
        begin = step_of(newest_valid(tmp_path / "run"))
        saver = CheckpointEvery(tmp_path / "run", every_n_steps=every)
        module, trainer = fit(tmp_path / "run", loader, kill_at, saver, **limits)
        seen = seen[:begin] + module.seen  # what came after the checkpoint was lost
    assert [number for number, *_ in seen] == list(range(N_STEPS))
    assert seen == straight.seen  # Lightning's own counts of batches and epochs go on as well
    assert (trainer.global_step, trainer.current_epoch) == (whole.global_step, whole.current_epoch)
    assert torch.equal(module.linear.weight, straight.linear.weight)


def test_checkpoints_fall_between_optimizer_steps_and_the_newest_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".step_00000001.ckpt.99.tmp").write_bytes(b"left by a killed process")
    straight, _ = fit(tmp_path / "straight", accumulate=3)
    fit(tmp_path, kill_at=3 * 7 + 2, accumulate=3)
    assert sorted(path.name for path in tmp_path.glob("*step*")) == ["step_00000006.ckpt", "step_00000007.ckpt"]
    module, _ = fit(tmp_path, accumulate=3)
    assert [number for number, *_ in module.seen] == list(range(21, 60))
    assert torch.equal(module.linear.weight, straight.linear.weight)


@pytest.mark.parametrize("shape", ["one endless epoch", "epochs"])
@pytest.mark.parametrize("at", [6, EPOCH - 1])
def test_on_request_it_saves_stops_and_goes_on_later(shape: str, at: int, tmp_path: Path) -> None:
    loader, limits = LIMITS[shape]
    straight, _ = fit(tmp_path / "straight", loader, **limits)
    saver = CheckpointEvery(tmp_path)
    first, _ = fit(tmp_path, loader, saver=saver, before=(At(at, lambda trainer: saver.request()),), **limits)
    assert step_of(newest_valid(tmp_path)) == at + 1 == len(first.seen)
    second, _ = fit(tmp_path, loader, saver=saver, **limits)
    assert first.seen + second.seen == straight.seen
    assert torch.equal(second.linear.weight, straight.linear.weight)


def test_a_stop_by_somebody_else_and_a_raised_limit_go_on_exactly_too(tmp_path: Path) -> None:
    loader, limits = LIMITS["epochs"]
    straight, _ = fit(tmp_path / "straight", loader, **limits)
    stop = At(6, lambda trainer: setattr(trainer, "should_stop", True))
    first, _ = fit(tmp_path / "a", loader, saver=CheckpointEvery(tmp_path / "a"), before=(stop,), **limits)
    second, _ = fit(tmp_path / "a", loader, saver=CheckpointEvery(tmp_path / "a"), **limits)
    assert first.seen + second.seen == straight.seen
    first, _ = fit(tmp_path / "b", saver=CheckpointEvery(tmp_path / "b"), max_steps=7)
    second, _ = fit(tmp_path / "b", saver=CheckpointEvery(tmp_path / "b"), max_steps=N_STEPS)
    assert [number for number, *_ in first.seen + second.seen] == list(range(N_STEPS))


def test_it_saves_by_the_clock_and_not_in_a_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=10)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: float(next(clock)))
    steps: list[int] = []
    saver = CheckpointEvery(tmp_path, every_n_seconds=25)
    monkeypatch.setattr(saver, "_prune", steps.append)
    fit(tmp_path, saver=saver)
    # A step reads the clock once and a save once more: 30 seconds after a save comes the third step.
    assert steps == [3, 6, 9, 12, 15, 18, 20]
    fit(tmp_path / "rehearsal", fast_dev_run=2)
    assert newest_valid(tmp_path / "rehearsal") is None


def test_a_later_damaged_file_does_not_push_out_good_ones(tmp_path: Path) -> None:
    tmp_path.joinpath("step_00000015.ckpt").write_bytes(b"torn")
    fit(tmp_path, kill_at=9, saver=CheckpointEvery(tmp_path, every_n_steps=1, keep=1))
    assert step_of(newest_valid(tmp_path)) == 9


@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_decide_alike(rank: int, tmp_path: Path) -> None:
    """The ranks' flags are joined by a maximum; this looks at what each rank puts in and takes out."""
    sent: list[list[float]] = []

    def reduce(flags: Tensor, reduce_op: str) -> Tensor:
        sent.append(flags.tolist())
        return torch.ones(2)

    strategy = SimpleNamespace(reduce=reduce, root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(
        global_step=1, max_steps=9, should_stop=False, world_size=2, is_global_zero=rank == 0, strategy=strategy
    )
    saver = CheckpointEvery(tmp_path, every_n_seconds=1e-9)
    assert saver._agree(trainer) == (True, True)
    assert sent == [[float(rank == 0), 0.0]]  # only rank 0's clock counts
    saver.request()
    saver._agree(trainer)
    assert sent[1] == [1.0, 1.0]


@pytest.mark.parametrize("wrong", [{"every_n_steps": 0}, {"every_n_seconds": -1.0}, {"keep": 0}])
def test_senseless_numbers_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: got {next(iter(wrong.values()))}"):
        CheckpointEvery(tmp_path, **wrong)


def test_lightning_is_told_what_the_files_cannot_do(tmp_path: Path) -> None:
    plugin = SafetensorsCheckpointIO()
    with pytest.raises(TypeError, match="storage_options"):
        plugin.save_checkpoint({}, tmp_path / "a.ckpt", storage_options={"a": 1})
    plugin.save_checkpoint({"a": 1}, tmp_path / "deep" / "a.ckpt")
    assert plugin.load_checkpoint(tmp_path / "deep" / "a.ckpt", map_location="cpu") == {"a": 1}
    with pytest.raises(ValueError, match="map_location: got 'cuda'"):
        plugin.load_checkpoint(tmp_path / "deep" / "a.ckpt", map_location="cuda")
    plugin.remove_checkpoint(tmp_path / "deep" / "a.ckpt")
    plugin.remove_checkpoint(tmp_path / "deep" / "a.ckpt")
    assert list((tmp_path / "deep").iterdir()) == []
