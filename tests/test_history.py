"""Histories that end as if nothing had happened."""

import os
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.history import CsvHistory, read_history
from tests.fits import fit, tell_everything


class Killed(BaseException):
    """Stands for `kill -9`, as far as a test within one process can."""


class KillAfter(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            raise Killed


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


@settings(max_examples=50)
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


def test_histories_ignore_what_is_no_metric(tmp_path: Path) -> None:
    logger = CsvHistory(tmp_path / "metrics.csv")
    tell_everything(logger)
    assert read_history(logger.path) == {"train/loss": [(3, 0.5), (4, 0.5)]}
    logger.finish()


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytorch_lightning.utilities.rank_zero.rank_zero_only.rank", 1)
    tell_everything(CsvHistory(tmp_path / "metrics.csv"))
    assert not os.listdir(tmp_path)
