"""Mirrors that work offline, without a network, and without the key."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthplace_lm.history import CsvHistory, read_history
from birthplace_lm.loggers import Mode, WandbMirror, tensorboard, wandb_logger
from tests.fits import fit, tell_everything

KEY = "f00dfeedf00dfeedf00dfeedf00dfeedf00dfeed"
ENVIRONMENT = ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_API_KEY", "WANDB_SERVICE", "WANDB_PROJECT", "WANDB_DIR")


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
    monkeypatch.setattr(WandbMirror, "unreachable", False)
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


def test_a_server_out_of_reach_is_tried_once_in_a_process(
    wandb_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for stage in ("pretrain", "finetune"):
        tell_everything(wandb_logger("p", wandb_home, stage, mode="online"))
    out = capfd.readouterr().out
    assert out.count("online did not work") == 1 and out.count("kept here") == 2


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
    tell_everything(wandb_logger("p", tmp_path, "abc", mode="offline"))
    assert not os.listdir(tmp_path)
