"""What watches a fit and what it says: a line of progress, one example as the model sees it, no idle warnings."""

import logging
import time
import warnings
from collections import deque
from typing import Any, NamedTuple

import pytorch_lightning as pl

from birthplace_lm.durations import duration
from birthplace_lm.layouts import IGNORE, Batch
from birthplace_lm.stopping import in_terminal, say
from birthplace_lm.tokenizer import PAD, CharTokenizer


def quieten_lightning() -> None:
    """Leave out what Lightning tells about hardware that is absent and loaders that need no workers."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # which say what they were asked for
    warnings.filterwarnings("ignore", category=FutureWarning, module="pytorch_lightning")
    for message in _IDLE:
        warnings.filterwarnings("ignore", f".*{message}.*")


_IDLE = (
    "does not have many workers",
    "`IterableDataset` has `__len__` defined",
    "Checkpoint directory",
    "dataloader is not resumable",  # it begins at the trainer's step by itself
    "smaller than the logging interval",
    "`srun` command is available",  # a run of one machine may have its reasons
    r"sync_dist=True",  # what is logged is the same on all ranks, or rank 0's alone
)


class _Mark(NamedTuple):
    """How far a fit was at some moment of the clock."""

    seconds: float
    step: int
    characters: int


class ProgressLine(pl.Callback):
    """Step, loss, real characters a second and time left: one line that is rewritten in a terminal.

    Where the output is no terminal (a log file, a cluster job), a new line every `every_seconds` instead. Speed and
    time left are of the last `recent_seconds`, so that a pause is forgotten and a training that slows down is seen to;
    the last line tells the speed of the whole fit.
    """

    def __init__(self, every_seconds: float = 30.0, refresh_seconds: float = 0.5, recent_seconds: float = 60.0):
        self.every_seconds, self.refresh_seconds, self.recent_seconds = every_seconds, refresh_seconds, recent_seconds

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._live = in_terminal()
        self._first = _mark(trainer, pl_module)
        self._marks = deque([self._first])  # one a line; the newest of those that are not recent, and all that are
        self._shown = self._first.seconds

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.monotonic()
        last = trainer.global_step >= _steps(trainer)
        if not trainer.is_global_zero:
            return
        if last or now - self._shown >= (self.refresh_seconds if self._live else self.every_seconds):
            self._shown = now
            text = self._line(trainer, pl_module, last)
            say(f"\r\033[K{text}" if self._live else text, end="\n" if last or not self._live else "")

    def _line(self, trainer: pl.Trainer, module: Any, last: bool) -> str:
        step, total, plan = trainer.global_step, _steps(trainer), trainer.datamodule.plan  # type: ignore[attr-defined]
        loss, now = float(trainer.callback_metrics["train/loss"]), _mark(trainer, module)
        while len(self._marks) > 1 and now.seconds - self._marks[1].seconds >= self.recent_seconds:
            self._marks.popleft()
        since = self._first if last else self._marks[0]
        self._marks.append(now)
        elapsed = now.seconds - since.seconds
        rate = (now.characters - since.characters) / max(elapsed, 1e-9)
        left = elapsed / max(step - since.step, 1) * (total - step)
        stage = type(module).__name__.removesuffix("Module").lower()
        return (
            f"{stage}  step {step:,}/{total:,}  epoch {plan.epochs_before(step):.1f}/{plan.epochs}  "
            f"loss {loss:.3f}  {rate:,.0f} characters/s  {duration(left)} left"
        )


def _steps(trainer: pl.Trainer) -> int:
    """How many steps the fit has: as many as the trainer was told, or where it counts epochs as the data have."""
    total: int = trainer.datamodule.plan.total_steps  # type: ignore[attr-defined]
    return min(trainer.max_steps, total) if trainer.max_steps >= 0 else total


def _mark(trainer: pl.Trainer, module: Any) -> _Mark:
    return _Mark(time.monotonic(), trainer.global_step, int(module.characters_seen))


class DecodedExample(pl.Callback):
    """Prints and logs the first training example of a fit in characters, before the first step."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step or not trainer.is_global_zero:
            return
        module: Any = pl_module
        text = describe(batch, module.tokenizer)
        say(text)
        for logger in trainer.loggers:
            if hasattr(logger, "log_text"):
                logger.log_text("example", text)


def describe(batch: Batch, tokenizer: CharTokenizer) -> str:
    """An example of middling length: what goes in, and below it what is asked for, · where nothing is."""
    group = len(batch.inputs) // 2
    x, y = batch.inputs[group][0].tolist(), batch.targets[group][0].tolist()
    asked = "".join("·" if i == IGNORE else tokenizer.decode([i]) for i in y)
    shown, asked = tokenizer.decode(x).rstrip(PAD).replace("\n", "⏎"), asked.rstrip("·").replace("\n", "⏎")
    return f"example   sees  {shown}\n          says  {asked}"
