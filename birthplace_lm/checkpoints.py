"""Where a fit goes on after an interruption: checkpoints as files of trees, when they are written, the newest one."""

import logging
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO

from birthplace_lm.stopping import heard, say
from birthplace_lm.storage import DamagedCheckpointError, load_tree, save_tree

log = logging.getLogger(__name__)
_SAME_SIGNAL = 1.0  # seconds in which signals are one request


class SafetensorsCheckpointIO(CheckpointIO):
    """Has Lightning keep its checkpoints as trees; loading executes nothing, with or without `weights_only`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if storage_options is not None:
            raise TypeError(f"storage_options: got {storage_options!r}; checkpoints are local files and take none")
        save_tree(path, checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if map_location is not None and torch.device(map_location).type != "cpu":
            raise ValueError(f"map_location: got {map_location!r}; tensors arrive on the CPU, move the model instead")
        return load_tree(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(global step, file) from the oldest to the newest; unfinished files have other names."""
    files = [(path.stem.removeprefix("step_"), path) for path in folder.glob("step_*.ckpt")]
    return sorted((int(step), path) for step, path in files if step.isdigit())


def _may_end(trainer: pl.Trainer) -> bool:
    """Whether no batch follows this one, or a validation that may end the fit comes first."""
    every = trainer.val_check_batch if trainer.limit_val_batches else None
    validates = isinstance(every, int) and (trainer.fit_loop.total_batch_idx + 1) % every == 0
    return validates or trainer.is_last_batch or trainer.should_stop or trainer.global_step == trainer.max_steps


def newest_valid(folder: str | Path) -> Path | None:
    """The checkpoint to resume from: the newest whose content is what was written, or None.

    Reads only: a run that is writing into the folder at the same time is not disturbed.
    """
    damaged: list[Path] = []
    found: Path | None = None
    for _, path in reversed(_checkpoints(Path(folder))):
        try:
            load_tree(path)
        except FileNotFoundError:  # pruned by the run that owns the folder since we listed it
            continue
        except DamagedCheckpointError:
            damaged.append(path)
            continue
        found = path
        break
    for path in damaged:
        log.warning("%s is damaged and skipped; using %s", path, found or "none, as no older one is left")
    return found


class CheckpointEvery(pl.Callback):
    """Saves `step_{global_step:08d}.ckpt` every so many steps or seconds, on request and at the end; keeps the newest.

    A checkpoint that is due waits until its step's history row and validation are written, which would be missing after
    a kill in between. Lightning's place in the fit is noted before that, at the batch's end: from a place noted later
    it would count that step twice, or a fit told to stop in mid-epoch as a finished epoch.

    For loaders that run over all steps, as this package's do, and for fits that are counted in epochs. With a limit in
    steps over several epochs the weights are right after a resumption, but Lightning's count of epochs may not be.
    The first Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 (a cluster's word that time is running out) counts as a request, and so
    do others within a second: a cluster tells all processes of a job, and one that started others passes it on to them.
    A later one ends at once, as without this callback, but for SIGUSR1, which asks and never insists. A signal that
    was ignored before (nohup) stays ignored.
    Keeps no state of its own in the checkpoint, so it may be changed or left out when the run is resumed.
    """

    def __init__(
        self,
        folder: str | Path,
        every_n_steps: int | None = None,
        every_n_seconds: float | None = None,
        keep: int | None = 2,
    ) -> None:
        for name, value in {"every_n_steps": every_n_steps, "every_n_seconds": every_n_seconds, "keep": keep}.items():
            if value is not None and value <= 0:
                raise ValueError(f"{name}: got {value}, need a positive number")
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.every_n_seconds = every_n_seconds
        self.keep = keep
        self._former: dict[int, Any] = {}  # signal handlers that stood before the fit
        self.asked_to_stop = False  # on any rank; at its last step a fit came to its end, what follows it is not to
        self._requested = False
        self._signalled: float | None = None  # when
        self._due = False
        self._step = -1
        self._saved_step = -1
        self._saved_time = 0.0
        self._place: dict[str, Any] | None = None
        self._others_follow = False  # of whom one may end the fit after this has seen the batch's end
        self._saving = False

    def request(self) -> None:
        """Asks for a stop after this batch, with a checkpoint; only sets a flag, so signal handlers may call it."""
        self._requested = True

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._signalled is None:
            self._signalled = time.monotonic()
            self.request()
            insisting = "" if number == signal.SIGUSR1 else "; once more ends at once"
            say(f"\n{signal.Signals(number).name}: saving after this step{insisting}")
        elif number != signal.SIGUSR1 and time.monotonic() - self._signalled > _SAME_SIGNAL:
            self._restore_signals()
            signal.raise_signal(number)

    def _restore_signals(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore_signals()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore_signals()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._former = {number: signal.signal(number, self._on_signal) for number in heard()}
        own = type(pl_module).on_train_batch_end is pl.LightningModule.on_train_batch_end
        self._others_follow = trainer.callbacks[-1] is not self or not own  # type: ignore[attr-defined]
        self._step = self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
        self._due = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # between two optimizer steps: gradients are not part of a checkpoint
            return
        self._step = trainer.global_step
        self._due, stop = self._agree(trainer)
        asked_for = self._due or stop or self._others_follow or _may_end(trainer)
        self._place = trainer.fit_loop.state_dict() if asked_for else None  # which takes as long as a small step
        if stop:
            self._requested, self.asked_to_stop = False, True
            trainer.should_stop = True
            self._save_unless_last(trainer)  # at once: Lightning validates first, and who asks may not wait for that
            every = trainer.val_check_batch
            if isinstance(every, int) and (trainer.fit_loop.total_batch_idx + 1) % every:
                trainer.limit_val_batches = 0  # else it would add a validation that a fit which nobody stops has not

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._due:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.should_stop and self._step != self._saved_step:  # who ends a fit by what a validation showed
            self._save_unless_last(trainer)  # before averaged weights take the place of those that learn

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_last_batch and trainer.max_steps == -1:  # from the batch's end Lightning 2.6 miscounts epochs
            self._place = trainer.fit_loop.state_dict()
            self._saved_step = -1  # a stop that was asked for has saved the batch's end already

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.asked_to_stop = self.asked_to_stop or self._agree(trainer)[1]
        if self._step != self._saved_step:
            self._save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._saving:  # checkpoints of others are left as they are
            checkpoint["loops"]["fit_loop"] = self._place
            checkpoint.get("callbacks", {}).pop("Timer", None)  # trainer.max_time is a session's, the next has its own

    def _agree(self, trainer: pl.Trainer) -> tuple[bool, bool]:
        """(save, stop), the same on every rank: the clock is rank 0's, a request may reach any of them."""
        by_steps = self.every_n_steps is not None and self._step % self.every_n_steps == 0
        elapsed = time.monotonic() - self._saved_time
        by_time = self.every_n_seconds is not None and elapsed >= self.every_n_seconds and trainer.is_global_zero
        flags = torch.tensor([by_steps or by_time, self._requested], dtype=torch.float32)
        if trainer.world_size > 1:
            flags = trainer.strategy.reduce(flags.to(trainer.strategy.root_device), reduce_op="max")
        save, stop = flags.tolist()
        return bool(save), bool(stop)

    def _save_unless_last(self, trainer: pl.Trainer) -> None:
        """Not behind the fit's last step, from where Lightning would not go on: no validation, no averaged weights.

        What is left is saved in on_train_end; who is killed before that goes on from the checkpoint before.
        """
        of_all = trainer.max_steps == -1 and trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        if not (of_all or trainer.global_step == trainer.max_steps):
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        self._due = False
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # else the real run would resume from a rehearsal
            return
        self._saving = True
        try:
            trainer.save_checkpoint(self.folder / f"step_{trainer.global_step:08d}.ckpt", weights_only=False)
        finally:
            self._saving = False
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
        if trainer.is_global_zero:
            self._prune(trainer.global_step)

    def _prune(self, newest: int) -> None:
        # Later steps than the one just written are damaged files that were skipped: counted, they push out good ones.
        good = [path for step, path in _checkpoints(self.folder) if step <= newest]
        for path in good[: -self.keep] if self.keep else []:
            path.unlink(missing_ok=True)
        for leftover in self.folder.glob(".step_*.ckpt.*.tmp"):  # of a process killed while it wrote
            leftover.unlink(missing_ok=True)
