"""Histories that end as if nothing had happened; mirrors that work offline, without a network, and without the key."""

import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.loggers import CsvHistory, Mode, RunLogger, read_history, tensorboard, wandb_logger

KEY = "f00dfeedf00dfeedf00dfeedf00dfeedf00dfeed"
ENVIRONMENT = ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_API_KEY", "WANDB_SERVICE", "WANDB_PROJECT", "WANDB_DIR")


class Walk(pl.LightningModule):
    """Three batches an epoch; logs a number that depends on the step alone, as a deterministic fit does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.log("train/loss", math.exp(-self.global_step / 7), on_step=True, on_epoch=True)
        return (self.weight - batch).square().mean()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("dev/loss", math.sin(self.global_step))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.zeros(3))  # type: ignore[arg-type]

    def val_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.zeros(2))  # type: ignore[arg-type]


class Killed(BaseException):
    """Stands for `kill -9`, as far as a test within one process can."""


class KillAfter(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            raise Killed


def fit(
    folder: Path, logger: RunLogger | list[RunLogger], callbacks: list[pl.Callback], checkpoint: Path | None = None
) -> None:
    trainer = pl.Trainer(
        max_epochs=4,
        logger=logger,
        callbacks=callbacks,
        accelerator="cpu",
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Walk(), ckpt_path=checkpoint, weights_only=False)


@pytest.mark.parametrize(("saved", "killed"), [(2, 5), (3, 4), (6, 10)])
def test_a_resumed_fit_leaves_the_history_of_an_uninterrupted_one(tmp_path: Path, saved: int, killed: int) -> None:
    fit(tmp_path, CsvHistory(tmp_path / "whole.csv"), [pl.callbacks.ModelCheckpoint(tmp_path / "ignored")])
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=saved, save_top_k=-1)
    path = tmp_path / "run" / "metrics.csv"
    with pytest.raises(Killed):
        fit(tmp_path, CsvHistory(path), [saving, KillAfter(killed)])
    with path.open("ab") as file:
        file.write(b"4,train/lo")
    checkpoint = next((tmp_path / "saved").glob(f"step={saved}.ckpt"))
    global_step = torch.load(checkpoint, weights_only=False)["global_step"]
    fit(tmp_path, CsvHistory(path, resume_step=global_step - 1), [saving], checkpoint)
    # The sum of an epoch that was cut in two is Lightning's to restore; everything else has to be the same line.
    lines = [
        [line for line in file.read_text().splitlines() if "loss_epoch" not in line]
        for file in (tmp_path / "whole.csv", path)
    ]
    assert lines[0] == lines[1]
    assert [step for step, _ in read_history(path)["train/loss_step"]] == list(range(12))


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(), min_size=1, max_size=5))
def test_floats_come_back_to_the_bit(values: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("history") / "metrics.csv"
    logger = CsvHistory(path)
    for step, value in enumerate(values):
        logger.log_metrics({"x": value}, step)
    assert [repr(value) for _, value in read_history(path)["x"]] == [repr(value) for value in values]  # before finish
    logger.finish()


def test_metrics_may_come_and_go(tmp_path: Path) -> None:
    logger = CsvHistory(tmp_path / "deep" / "metrics.csv")
    logger.log_metrics({"loss": torch.tensor(0.5), "epoch": 0}, 0)
    logger.log_metrics({"dev": 0.25, "epoch": 0}, 0)
    logger.finish()
    logger.log_metrics({"dev": 0.5}, 1)
    logger.finish("failed")
    assert logger.path.read_bytes() == b"step,name,value\n0,loss,0.5\n0,epoch,0.0\n0,dev,0.25\n1,dev,0.5\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"step,name,value\n0,a,1.0\n1,a,2.0\n2,a,3.0\n", b"step,name,value\n0,a,1.0\n1,a,2.0\n"),
        (b"step,name,value\n0,a,1.0\n1,a,2.", b"step,name,value\n0,a,1.0\n"),
        (b"step,na", b"step,name,value\n"),
        (b"step,name,value\n0,a,1.0\n1,\xe2\x81", b"step,name,value\n0,a,1.0\n"),  # cut within a character
        (b"", b"step,name,value\n"),
    ],
)
def test_a_start_cuts_what_comes_again(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(before)
    CsvHistory(path, resume_step=1).experiment.close()
    assert path.read_bytes() == after
    assert os.listdir(tmp_path) == ["metrics.csv"]
    CsvHistory(path).experiment.close()
    assert path.read_bytes() == b"step,name,value\n"


def test_a_history_refuses_what_it_could_not_read_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with pytest.raises(ValueError, match="'a,b'"):
        CsvHistory(path).log_metrics({"a,b": 1.0}, 0)
    with pytest.raises(ValueError, match="no step for loss"):
        CsvHistory(path).log_metrics({"loss": 1.0})
    path.write_text("step,name,value\n0,a,1.0\nnonsense\n")
    with pytest.raises(ValueError, match=r"metrics.csv:3: 'nonsense'"):
        read_history(path)
    path.write_text("my own notes\n")
    with pytest.raises(ValueError, match="not a history"):
        CsvHistory(path).log_metrics({"a": 1.0}, 0)
    assert path.read_text() == "my own notes\n"


def tell_everything(logger: RunLogger) -> None:
    """What a stage does with each of its loggers."""
    try:
        logger.log_hyperparams({"lr": 0.1, "leak": f"x{os.environ.get('WANDB_API_KEY', '')}"})
        logger.log_metrics({"train/loss": 0.5}, 3)
        logger.log_table("predictions", ["question", "right"], [["Where was Ada Byrne born?", True]])
        logger.log_text("example", "Ada Byrne. Born in ⁇ .⁇Cork\nsecond | line", step=3)
        logger.summarize({"dev": {"exact_match": 0.23}, "parameters": 3323392})
    finally:
        logger.finish("failed")
        logger.finish()
        logger.log_metrics({"train/loss": 0.5}, 4)


def test_histories_ignore_what_is_no_metric(tmp_path: Path) -> None:
    logger = CsvHistory(tmp_path / "metrics.csv")
    tell_everything(logger)
    assert read_history(logger.path) == {"train/loss": [(3, 0.5), (4, 0.5)]}
    logger.finish()


def test_tensorboard_holds_curves_and_texts(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tell_everything(tensorboard(tmp_path / "board"))
    resumed = tensorboard(tmp_path / "board", resume_step=3)
    resumed.log_metrics({"train/loss": 0.25}, 4)
    resumed.finish()
    events = accumulator.EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.5), (4, 0.25)]
    assert {"example/text_summary", "summary/text_summary"} <= set(events.Tags()["tensors"])
    assert b"0.23" in events.Tensors("summary/text_summary")[0].tensor_proto.string_val[0]


def test_tensorboard_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        tensorboard(tmp_path)


@pytest.fixture
def wandb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A wandb that has not started yet, with a home of its own and nobody logged in."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    for name, folder in {"HOME": "", "WANDB_CONFIG_DIR": "config", "WANDB_CACHE_DIR": "cache"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield tmp_path
    wandb.teardown()


def inspect(folder: Path) -> str:
    """What wandb's own reader finds in an offline run."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--summary", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def files_with_key(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_wandb_offline_keeps_all_but_the_key(
    wandb_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    tell_everything(wandb_logger("p", wandb_home / "run", "abc-1", group="g", tags=["t"], mode="offline"))
    (folder,) = (wandb_home / "run" / "wandb").glob("offline-run-*-abc-1")
    out, err = capfd.readouterr()
    assert out == f"wandb: kept here; to upload: wandb sync {folder}\n"
    assert err == ""
    summary = inspect(folder)
    for part in ("train/loss", "trainer/global_step", "exact_match", "parameters"):
        assert part in summary
    assert list(folder.rglob("*.table.json"))
    assert not files_with_key(wandb_home)
    assert "WANDB_MODE" not in os.environ


def test_jobs_in_one_process_do_not_merge(wandb_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = (wandb_logger("p", wandb_home, id, mode="offline") for id in ("one", "two"))
    for logger in (first, second, first):
        logger.log_metrics({"loss": 0.5}, 0)
    first.finish()
    second.finish()
    assert sorted(re.findall(r"-(one|two)$", capfd.readouterr().out, flags=re.M)) == ["one", "two"]


def test_without_a_key_it_goes_offline_and_asks_nothing(wandb_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tell_everything(wandb_logger("p", wandb_home, "abc", mode="online"))
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("wandb: online did not work, going on offline: no API key")
    assert lines[1].startswith("wandb: kept here; to upload: wandb sync ")
    assert len(lines) == 2


def test_without_a_network_it_goes_offline(
    wandb_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:  # bound but not listening: whoever calls is refused
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        tell_everything(wandb_logger("p", wandb_home, "abc", mode="online", init_timeout=2))
    out, err = capfd.readouterr()
    assert out.splitlines()[0].startswith("wandb: online did not work, going on offline: ")
    assert "secret" not in out + err
    assert len(list((wandb_home / "wandb").glob("offline-run-*-abc"))) == 1
    assert not files_with_key(wandb_home)


def test_a_mirror_that_breaks_is_reported_once(
    wandb_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    logger = wandb_logger("p", wandb_home, "abc", mode="offline")
    logger.log_metrics({"loss": 0.5}, 0)

    def broken(*args: object) -> None:
        raise ConnectionError(f"lost {KEY} at https://me:secret@host/\nmore")

    monkeypatch.setattr("pytorch_lightning.loggers.WandbLogger.log_metrics", broken)
    logger.log_metrics({"loss": 0.5}, 1)
    logger.log_metrics({"loss": 0.5}, 2)
    logger.summarize({"loss": 0.5})
    logger.finish()
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "wandb: something could not be logged (said once): lost *** at https://***@host/"
    assert len(lines) == 2


@pytest.mark.parametrize(("mode", "lines"), [("disabled", 0), ("offline", 1), ("online", 2)])
def test_without_wandb_the_run_goes_on(
    mode: Mode, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # what Python makes of a package that is not there
    tell_everything(wandb_logger("p", tmp_path, "abc", mode=mode))
    assert len(capfd.readouterr().out.splitlines()) == lines
    assert not os.listdir(tmp_path)


def test_a_mode_that_wandb_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ofline"):
        wandb_logger("p", tmp_path, "abc", mode="ofline")  # type: ignore[arg-type]


def test_a_fit_takes_all_loggers_at_once(wandb_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    history, mirror = CsvHistory(wandb_home / "metrics.csv"), wandb_logger("p", wandb_home, "abc", mode="offline")
    fit(wandb_home, [history, mirror, tensorboard(wandb_home / "board")], [])
    history.finish()
    mirror.finish()
    folder = Path(capfd.readouterr().out.split("wandb sync ")[1].strip())
    assert "dev/loss" in inspect(folder) and "dev/loss" in read_history(history.path)
    assert list((wandb_home / "board").glob("events.out.tfevents.*"))
    assert not (wandb_home / "lightning_logs").exists()


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytorch_lightning.utilities.rank_zero.rank_zero_only.rank", 1)
    for logger in (CsvHistory(tmp_path / "metrics.csv"), wandb_logger("p", tmp_path, "abc", mode="offline")):
        tell_everything(logger)
    assert not os.listdir(tmp_path)
