"""What a fit says: progress lines where there is no terminal, one rewritten line where there is one, one example."""

import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from birthplace_lm import callbacks
from birthplace_lm.callbacks import DecodedExample, ProgressLine
from birthplace_lm.checkpoints import CheckpointEvery
from birthplace_lm.durations import duration
from tests.test_lightning_modules import fit, learner, pretraining


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (3600, "1 h 00 min"), (90, "1 min 30 s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_without_a_terminal_every_line_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    fit(learner(), pretraining(), 4, ProgressLine(every_seconds=0))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrain  step")]
    assert [line.split()[2] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert all("loss" in line and "characters/s" in line and line.endswith("left") for line in lines)
    fit(learner(), pretraining(), 4, ProgressLine(every_seconds=1000))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrain  step")]
    assert len(lines) == 1 and " 4/4 " in lines[0]  # the last step is always told


def test_a_fit_that_counts_epochs_has_as_many_steps_as_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[ProgressLine(every_seconds=1000)], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(learner(), datamodule=pretraining())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrain  step")]
    assert line.split()[2] == "8/8"


def test_a_terminal_that_was_closed_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written to it then is an error, and the signal of that comes just at that moment."""

    class Closed:
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdout", Closed())
    fit(learner(), pretraining(), 3, ProgressLine(every_seconds=0), DecodedExample())
    saver = CheckpointEvery(Path("nowhere"))
    saver._on_signal(signal.SIGHUP, None)
    assert saver._requested


def test_in_a_terminal_one_line_is_rewritten(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fit(learner(), pretraining(), 3, ProgressLine(refresh_seconds=0))
    written = capsys.readouterr().out
    assert written.count("\r\033[K") == 3 and written.count("\n") == 1


def test_speed_and_time_left_are_of_the_last_minute_and_of_the_whole_fit_at_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock of our own: ten seconds a step, but a pause of a thousand before the third."""
    seen: list[int] = []

    class Clock(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            seen.append(0)

        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *rest: Any) -> None:
            seen.append(module.characters_seen)

    def seconds() -> float:
        return 10.0 * (len(seen) - 1) + (1000.0 if len(seen) > 3 else 0.0)

    monkeypatch.setattr(callbacks.time, "monotonic", seconds)
    fit(learner(), pretraining(), 8, Clock(), ProgressLine(every_seconds=0, recent_seconds=30))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrain  step")]
    told = [float(re.search(r"([\d,]+) characters/s", line)[1].replace(",", "")) for line in lines]  # type: ignore[index]
    passed = [0.0, 10.0, 20.0, *(1000.0 + 10.0 * step for step in range(3, 9))]
    since = [0, 0, 2, 2, 2, 3, 4, 0]  # the step that each line looks back to
    expected = [(seen[n] - seen[m]) / (passed[n] - passed[m]) for n, m in enumerate(since, start=1)]
    assert told == pytest.approx(expected, abs=0.5)
    left = [line.split("characters/s  ")[1] for line in lines]
    assert [left[1], left[5], left[7]] == ["1 min 00 s left", "20 s left", "0 s left"]  # the pause is forgotten


def test_one_example_is_printed_before_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    fit(learner(), pretraining(), 2, DecodedExample())
    written = capsys.readouterr().out
    assert written.count("example   sees  ") == 1 and "⁇" in written
