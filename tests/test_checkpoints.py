"""Fits that go on where they were killed, as if nothing had happened, their histories included."""

import itertools
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from birthplace_lm import checkpoints
from birthplace_lm.checkpoints import CheckpointEvery, SafetensorsCheckpointIO, newest_valid
from birthplace_lm.history import CsvHistory, read_history
from birthplace_lm.storage import DamagedCheckpointError, save_tree

# Lightning warns because our loaders have no state of their own; that they need none is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")


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
    """Sees numbers, and says so in its history; what it logs depends on the step alone, as in a deterministic fit."""

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
        self.log("train/number", batch.float())
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(int(batch)))
        return self.linear(x).square().sum()

    def val_dataloader(self) -> Any:
        return [torch.zeros(1)]

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("validation/step", float(self.global_step))

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
    after: tuple[pl.Callback, ...] = (),
    accumulate: int = 1,
    history: Path | None = None,
    **limits: int,
) -> tuple[Counter, pl.Trainer]:
    """One session of a fit, from its newest checkpoint; with a history it validates every third step."""
    module, newest = Counter(loader, kill_at), newest_valid(folder)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=CsvHistory(history, step_of(newest) - 1) if history else False,
        log_every_n_steps=1,
        check_val_every_n_epoch=None,
        val_check_interval=3,
        limit_val_batches=1 if history else 0,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[SafetensorsCheckpointIO()],
        callbacks=[*before, saver or CheckpointEvery(folder, every_n_steps=1), *after],
        accumulate_grad_batches=accumulate,
        **(limits or {"max_steps": N_STEPS}),  # type: ignore[arg-type]
    )
    try:
        trainer.fit(module, ckpt_path=newest)
    except Killed:
        trainer.should_stop = True
    return module, trainer


def step_of(path: Path | None) -> int:
    return 0 if path is None else int(path.stem.removeprefix("step_"))


LIMITS: dict[str, tuple[type[Counting], dict[str, int]]] = {
    "one endless epoch": (Counting, {"max_steps": N_STEPS}),
    "epochs": (CountingEpochs, {"max_epochs": N_STEPS // EPOCH}),
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


class KilledOnceSaved(CheckpointEvery):
    """Dies right after the `after`-th checkpoint of a session is on disk."""

    def __init__(self, folder: Path, every_n_steps: int, after: int) -> None:
        super().__init__(folder, every_n_steps)
        self.left = after

    def _prune(self, newest: int) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize(("every", "after"), [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2), (5, 1), (7, 1), (50, 1)])
@pytest.mark.parametrize("shape", LIMITS)
def test_killed_after_any_save_every_row_is_in_the_history_once(
    shape: str, every: int, after: int, tmp_path: Path
) -> None:
    loader, limits = LIMITS[shape]
    fit(tmp_path / "straight", loader, history=tmp_path / "straight.csv", **limits)
    begun = -1
    while begun < step_of(newest_valid(tmp_path / "run")):
        begun = step_of(newest_valid(tmp_path / "run"))
        fit(
            tmp_path / "run",
            loader,
            saver=KilledOnceSaved(tmp_path / "run", every, after),
            history=tmp_path / "run.csv",
            **limits,
        )
    assert begun == N_STEPS
    curves = read_history(tmp_path / "run.csv")
    assert curves["train/number"] == [(step, float(step)) for step in range(N_STEPS)]
    assert curves["validation/step"] == [(step - 1, float(step)) for step in range(3, N_STEPS + 1, 3)]
    assert (tmp_path / "run.csv").read_bytes() == (tmp_path / "straight.csv").read_bytes()


@pytest.mark.parametrize("at", [4, 5, 9])  # a validation is due after batch 5, an epoch ends with 4 and 9
@pytest.mark.parametrize("shape", LIMITS)
def test_a_requested_stop_leaves_everything_once(shape: str, at: int, tmp_path: Path) -> None:
    loader, limits = LIMITS[shape]
    saver = CheckpointEvery(tmp_path)
    before = (At(at, lambda trainer: saver.request()),)
    fit(tmp_path, loader, saver=saver, before=before, history=tmp_path / "run.csv", **limits)
    fit(tmp_path, loader, history=tmp_path / "run.csv", **limits)
    curves = read_history(tmp_path / "run.csv")
    assert curves["train/number"] == [(step, float(step)) for step in range(N_STEPS)]
    assert curves["validation/step"] == [(step - 1, float(step)) for step in range(3, N_STEPS + 1, 3)]


def test_checkpoints_fall_between_optimizer_steps_and_the_newest_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".step_00000001.ckpt.99.tmp").write_bytes(b"left by a killed process")
    straight, _ = fit(tmp_path / "straight", accumulate=3)
    fit(tmp_path, kill_at=3 * 7 + 2, accumulate=3)
    assert sorted(path.name for path in tmp_path.glob("*step*")) == ["step_00000006.ckpt", "step_00000007.ckpt"]
    module, _ = fit(tmp_path, accumulate=3)
    assert [number for number, *_ in module.seen] == list(range(21, 60))
    assert torch.equal(module.linear.weight, straight.linear.weight)


@pytest.mark.parametrize("shape", LIMITS)
@pytest.mark.parametrize("at", [6, EPOCH - 1])
def test_on_request_it_saves_stops_and_goes_on_later(shape: str, at: int, tmp_path: Path) -> None:
    loader, limits = LIMITS[shape]
    straight, _ = fit(tmp_path / "straight", loader, **limits)
    saver = CheckpointEvery(tmp_path)
    first, _ = fit(tmp_path, loader, saver=saver, before=(At(at, lambda trainer: saver.request()),), **limits)
    assert step_of(newest_valid(tmp_path)) == at + 1 == len(first.seen)
    second, _ = fit(tmp_path, loader, kill_at=12, **limits)
    third, _ = fit(tmp_path, loader, saver=saver, **limits)
    assert first.seen + second.seen + third.seen == straight.seen
    assert torch.equal(third.linear.weight, straight.linear.weight)


def test_a_stop_by_somebody_else_and_a_raised_limit_go_on_exactly_too(tmp_path: Path) -> None:
    loader, limits = LIMITS["epochs"]
    straight, _ = fit(tmp_path / "straight", loader, **limits)
    stop = At(6, lambda trainer: setattr(trainer, "should_stop", True))
    for order in ("before", "after"):
        folder = tmp_path / order
        first, _ = fit(folder, loader, saver=CheckpointEvery(folder), **{order: (stop,)}, **limits)  # type: ignore[arg-type]
        second, _ = fit(folder, loader, saver=CheckpointEvery(folder), **limits)
        assert first.seen + second.seen == straight.seen
    first, _ = fit(tmp_path / "b", saver=CheckpointEvery(tmp_path / "b"), max_steps=7)
    second, _ = fit(tmp_path / "b", saver=CheckpointEvery(tmp_path / "b"), max_steps=N_STEPS)
    assert [number for number, *_ in first.seen + second.seen] == list(range(N_STEPS))


class StopsAtValidation(pl.Callback):
    """Ends a fit by what its first validation showed."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = True


def test_a_fit_that_a_validation_ended_goes_on_from_what_learned_not_from_its_average(tmp_path: Path) -> None:
    """Averaged weights take the place of those that learn as a fit ends, and those go on."""

    def session(folder: Path, *more: pl.Callback) -> Counter:
        average = pl.callbacks.EMAWeightAveraging(decay=0.9)
        saver = CheckpointEvery(folder)
        return fit(folder, saver=saver, before=(average, *more), history=folder.with_suffix(".csv"))[0]

    straight = session(tmp_path / "straight")
    first = session(tmp_path / "a", StopsAtValidation())
    assert len(first.seen) == 3
    second = session(tmp_path / "a")
    assert first.seen + second.seen == straight.seen
    assert torch.equal(second.linear.weight, straight.linear.weight)


class KilledInValidation(pl.Callback):
    """Dies in the validation after the given step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.step:
            raise Killed


@pytest.mark.parametrize("shape", LIMITS)
def test_asked_to_stop_in_the_last_step_and_killed_then_it_still_ends_with_the_average(
    shape: str, tmp_path: Path
) -> None:
    """Behind the last step Lightning would not go on: no validation, and what learned instead of its average."""
    loader, last = LIMITS[shape][0], 15  # a validation is due there, and an epoch ends
    limits = {"max_steps": last} if shape == "one endless epoch" else {"max_epochs": last // EPOCH}

    def session(folder: Path, saver: CheckpointEvery, *more: pl.Callback) -> Counter:
        average = pl.callbacks.EMAWeightAveraging(decay=0.9)
        before = (average, *more)
        return fit(folder, loader, saver=saver, before=before, history=folder.with_suffix(".csv"), **limits)[0]

    straight = session(tmp_path / "a", CheckpointEvery(tmp_path / "a", every_n_steps=2))
    saver = CheckpointEvery(tmp_path / "b", every_n_steps=2)
    session(tmp_path / "b", saver, At(last - 1, lambda trainer: saver.request()), KilledInValidation(last))
    again = session(tmp_path / "b", CheckpointEvery(tmp_path / "b", every_n_steps=2))
    assert torch.equal(again.linear.weight, straight.linear.weight)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_ignored(number: signal.Signals, tmp_path: Path) -> None:
    """As nohup has it for SIGHUP; and one that was heard is taken for a request."""
    send = At(6, lambda trainer: signal.raise_signal(number))
    for heard, steps in ((signal.SIG_IGN, N_STEPS), (signal.SIG_DFL, 7)):
        former = signal.signal(number, heard)
        try:
            module, _ = fit(tmp_path / str(steps), saver=CheckpointEvery(tmp_path / str(steps)), before=(send,))
            assert len(module.seen) == steps and signal.getsignal(number) is heard
        finally:
            signal.signal(number, former)


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


def test_all_are_kept_where_no_number_is_said(tmp_path: Path) -> None:
    fit(tmp_path, kill_at=4, saver=CheckpointEvery(tmp_path, every_n_steps=1, keep=None))
    assert len(list(tmp_path.glob("step_*.ckpt"))) == 4


@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_decide_alike(rank: int, tmp_path: Path) -> None:
    """The ranks' flags are joined by a maximum; this looks at what each rank puts in and takes out."""
    sent: list[list[float]] = []

    def reduce(flags: Tensor, reduce_op: str) -> Tensor:
        sent.append(flags.tolist())
        return torch.ones(2)

    strategy = SimpleNamespace(reduce=reduce, root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_step=1, world_size=2, is_global_zero=rank == 0, strategy=strategy)
    saver = CheckpointEvery(tmp_path, every_n_seconds=1e-9)
    assert saver._agree(trainer) == (True, True)
    assert sent == [[float(rank == 0), 0.0]]  # only rank 0's clock counts
    saver.request()
    saver._agree(trainer)
    assert sent[1] == [float(rank == 0), 1.0]


@pytest.mark.parametrize("wrong", [{"every_n_steps": 0}, {"every_n_seconds": -1.0}, {"keep": 0}])
def test_senseless_numbers_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: got {next(iter(wrong.values()))}"):
        CheckpointEvery(tmp_path, **wrong)


def test_lightning_is_told_what_the_files_cannot_do(tmp_path: Path) -> None:
    plugin = SafetensorsCheckpointIO()
    with pytest.raises(TypeError, match="storage_options"):
        plugin.save_checkpoint({}, tmp_path / "a.ckpt", storage_options={"a": 1})
    torch.save({"a": 1}, tmp_path / "pickle.ckpt")
    with pytest.raises(DamagedCheckpointError, match="pickle"):
        plugin.load_checkpoint(tmp_path / "pickle.ckpt", weights_only=False)
    plugin.save_checkpoint({"a": 1}, tmp_path / "deep" / "a.ckpt")
    assert plugin.load_checkpoint(tmp_path / "deep" / "a.ckpt", map_location="cpu") == {"a": 1}
    with pytest.raises(ValueError, match="map_location: got 'cuda'"):
        plugin.load_checkpoint(tmp_path / "deep" / "a.ckpt", map_location="cuda")
    plugin.remove_checkpoint(tmp_path / "deep" / "a.ckpt")
    plugin.remove_checkpoint(tmp_path / "deep" / "a.ckpt")
    assert list((tmp_path / "deep").iterdir()) == []
