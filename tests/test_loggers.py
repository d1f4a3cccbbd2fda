"""Mirrors that work offline, without a network, and without the key; what they kept is read with their own tools."""

import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from birthplace_lm.cli.sweeps import RECORD, print_summary
from birthplace_lm.history import CsvHistory, read_history
from birthplace_lm.loggers import JobLabels, Mirror, labels_of, wandb_rows
from birthplace_lm.loggers.tensorboard_mirror import TensorBoardMirror, tensorboard_of_job
from birthplace_lm.loggers.wandb_mirror import Mode, WandbMirror, wandb_of_job
from birthplace_lm.loggers.wandb_rows import starred, without_key
from birthplace_lm.runs import RunFolder
from tests.fits import fit, tell_everything
from tests.test_stages import tiny_run

KEY = "f00dfeedf00dfeedf00dfeedf00dfeedf00dfeed"
ENVIRONMENT = ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_API_KEY", "WANDB_SERVICE", "WANDB_PROJECT", "WANDB_DIR")


def tell(mirror: Mirror) -> None:
    """What a job does with each of its mirrors."""
    try:
        tell_everything(mirror.stage("pretrain", 0))
        tell_everything(mirror.scores())
    finally:
        mirror.finish("failed")
        mirror.finish()
        mirror.scores().log_metrics({"late": 1.0})


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    figure = Figure(figsize=(1, 0.5))
    figure.add_axes((0.1, 0.1, 0.4, 0.4)).plot([1, 3, 2], color="#b34a00")
    figure.savefig(tmp_path / "picture.png", dpi=40)
    return tmp_path / "picture.png"


def test_tensorboard_holds_curves_texts_and_pictures(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    mirror = TensorBoardMirror(tmp_path)
    tell(mirror)
    # Files of one second are read in the order of a count of writers as text, 10 before 9: going on is a second later.
    later = SimpleNamespace(time=lambda: time.time() + 1)
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer.time", later)
    resumed = mirror.stage("pretrain", 4)
    resumed.log_metrics({"train/loss": 0.25}, 4)
    resumed.log_image("attention", picture)
    resumed.finish()
    events = accumulator.EventAccumulator(str(tmp_path / "pretrain" / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.5), (4, 0.25)]
    assert {"example/text_summary", "summary/text_summary"} <= set(events.Tags()["tensors"])
    assert b"0.23" in events.Tensors("summary/text_summary")[0].tensor_proto.string_val[0]
    shown = imread(io.BytesIO(events.Images("attention")[0].encoded_image_string), format="png")
    assert np.array_equal(shown[..., :3], imread(picture)[..., :3])
    assert list((tmp_path / "evaluate" / "tensorboard").glob("events.out.tfevents.*"))


def test_a_tensorboard_that_cannot_be_written_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "finetune").write_text("a file where the folder should be")
    logger = TensorBoardMirror(tmp_path).stage("finetune", 0)
    logger.log_metrics({"train/loss": 0.5}, 1)
    logger.log_text("example", "text")
    logger.summarize({"loss": 0.5})
    logger.save()
    logger.finalize("success")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("tensorboard: ") and line.endswith("; the run goes on without it")


def test_a_tensorboard_that_is_gone_was_not_told(tmp_path: Path) -> None:
    (tmp_path / "finetune").write_text("a file where the folder should be")
    mirror = TensorBoardMirror(tmp_path)
    mirror.scores().log_metrics({"train/loss": 0.5}, 1)
    assert mirror.reached
    mirror.stage("finetune", 0).log_metrics({"train/loss": 0.5}, 1)
    assert not mirror.reached


def test_tensorboard_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        TensorBoardMirror(tmp_path)
    with pytest.raises(ValueError, match="pip install tensorboard"):  # which a command tells in one line
        tensorboard_of_job(some_labels(tmp_path))


def test_an_artifact_is_a_run_folder_that_answers(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run = tiny_run(tmp_path / "runs", "stages=[pretrain]")
    artifact = wandb_rows._artifact("weights", run.stage("pretrain").weights)
    for name, entry in artifact.manifest.entries.items():
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(Path(entry.local_path).read_bytes())
    there = RunFolder(tmp_path / "there")
    for name, value in run.load_model().state_dict().items():
        assert value.equal(there.load_model().state_dict()[name])
    assert there.tokenizer().characters == run.tokenizer().characters


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


def command(line: str) -> str:
    """What one of wandb's own commands prints."""
    program, *arguments = shlex.split(line)
    found = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(found, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout + done.stderr


def inspect(folder: Path) -> dict[str, Any]:
    """Config, tags and summary that wandb's own reader finds in an offline run."""
    found: dict[str, Any] = json.loads(command(f"wandb leet inspect --summary --json {shlex.quote(str(folder))}"))
    return found


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind that an offline run holds, in the order of writing."""
    lines = command(f"wandb leet inspect --json {shlex.quote(str(folder))}").splitlines()
    return [row[kind] for row in map(json.loads, lines) if row["type"] == kind]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [record["item"] for record in records(folder, "history")]


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def files_with_key(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_wandb_offline_keeps_all_but_the_key(
    wandb_home: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    config = {"attention": "vanilla", "seed": 0, "secret": KEY}
    mirror = WandbMirror(
        "p", wandb_home / "run", "abc-1", group="g", job_type="train", tags=["t"], config=config, mode="offline"
    )
    mirror.scores().log_image("attention", picture)
    tell(mirror)
    (folder,) = offline_runs(wandb_home / "run")
    out, err = capfd.readouterr()
    assert out == f"wandb: kept here; to upload: wandb sync {wandb_home / 'run' / 'wandb'}\n"
    assert err == ""
    found, (told, *_) = inspect(folder), records(folder, "run")
    assert (told["run_group"], told["job_type"], found["tags"], found["exit_code"]) == ("g", "train", ["t"], 1)
    assert found["config"] == {"attention": "vanilla", "seed": 0, "secret": "***", "lr": 0.1, "leak": "x***"}
    summary = found["summary"]
    assert (summary["pretrain/loss"], summary["pretrain/step"], summary["parameters"]) == (0.5, 4, 3323392)
    assert "late" not in summary
    assert summary["predictions"]["nrows"] == 1 and json.loads(
        (folder / "files" / summary["predictions"]["path"]).read_text()
    )["data"] == [["Where was Ada Byrne born?", True]]
    assert (folder / "files" / summary["attention"]["path"]).read_bytes() == picture.read_bytes()
    shown = (folder / "files" / summary["pretrain/example"]["path"]).read_text()
    assert shown == "<pre>Ada Byrne. Born in ⁇ .⁇Cork\nsecond | line</pre>"
    assert not files_with_key(wandb_home)
    assert "WANDB_MODE" not in os.environ


def test_a_job_is_one_run_with_an_axis_a_stage(wandb_home: Path) -> None:
    mirror = WandbMirror("p", wandb_home, "abc", steps={"pretrain": 3, "finetune": 2}, mode="offline")
    for stage, steps in (("pretrain", 3), ("finetune", 2)):
        logger = mirror.stage(stage, 0)
        for step in range(steps):
            logger.log_metrics({"train/loss": 1.0 / (step + 1), "train/characters": 10.0 * (step + 1)}, step)
        logger.log_metrics({"validation/exact_match": 0.5}, steps)
        logger.finish()
    mirror.scores().summarize({"dev/exact_match": 0.4})
    mirror.finish()
    (folder,) = offline_runs(wandb_home)
    axes = {metric["glob_name"]: metric["step_metric"] for metric in records(folder, "metric") if "glob_name" in metric}
    assert axes == {"pretrain/*": "pretrain/step", "finetune/*": "finetune/step"}
    kept = [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows(folder)]
    assert kept[1] == {"pretrain/loss": 0.5, "pretrain/characters": 20, "pretrain/step": 1}
    assert kept[3] == {"pretrain/validation/exact_match": 0.5, "pretrain/characters": 30, "pretrain/step": 3}
    assert [row["finetune/step"] for row in kept if "finetune/step" in row] == [0, 1, 2]
    assert kept[-1]["finetune/characters"] == 20 and kept[-1]["dev/exact_match"] == 0.4
    assert not [row for row in kept if "pretrain/step" in row and "finetune/step" in row]


class Online:
    """A run as wandb gives it when it goes on online: it knows its last row and the last step of each stage."""

    def __init__(self) -> None:
        self.step, self.summary = 41, {"pretrain/step": 29, "finetune/step": 9}
        self.sent: list[tuple[int, int]] = []

    def define_metric(self, *args: object, **kwargs: object) -> None: ...

    def finish(self, exit_code: int) -> None: ...

    def log(self, row: dict[str, Any], step: int) -> None:
        assert step >= self.step, "wandb would drop this row"
        self.step = step
        self.sent.append((row["finetune/step"], step))


def test_going_on_online_sends_no_step_twice_and_none_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Online()
    monkeypatch.setattr(WandbMirror, "_connect", lambda self: run)
    mirror = WandbMirror("p", tmp_path, "abc", steps={"pretrain": 30, "finetune": 20})
    logger = mirror.stage("finetune", 7)
    for step in range(7, 14):
        logger.log_metrics({"train/loss": 0.1}, step)
    assert [step for step, _ in run.sent] == [10, 11, 12, 13]
    steps = [row for _, row in run.sent]
    assert steps == list(range(steps[0], steps[0] + 4))


def test_going_on_offline_is_a_second_part_of_the_same_run(wandb_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for first in (0, 3):  # the second session goes on at the checkpoint after step 2
        mirror = WandbMirror("p", wandb_home, "abc", steps={"pretrain": 10, "finetune": 5}, mode="offline")
        logger = mirror.stage("finetune", first)
        for step in range(first, 5):
            logger.log_metrics({"train/loss": 1.0 - step / 10}, step)
        mirror.finish()
    parts = [[(row["_step"], row["finetune/step"]) for row in rows(part)] for part in offline_runs(wandb_home)]
    assert parts == [[(10 + step, step) for step in range(5)], [(13, 3), (14, 4)]]
    printed = capfd.readouterr().out.splitlines()
    assert len(printed) == 2 and printed[0] == printed[1]
    told = command(printed[0].split("to upload: ")[1] + " --dry-run")
    assert "Would sync 2 run(s)" in told


def test_weights_are_copied_only_if_asked_for(wandb_home: Path) -> None:
    weights = wandb_home / "weights.safetensors"
    weights.write_bytes(b"weights")
    for asked in (False, True):
        mirror = WandbMirror("p", wandb_home / str(asked), "abc", mode="offline", artifacts=asked)
        logger = mirror.stage("pretrain", 0)
        logger.log_metrics({"train/loss": 0.5}, 0)
        logger.log_weights("pretrain", weights)
        mirror.finish()
    found = [records(*offline_runs(wandb_home / str(asked)), "artifact") for asked in (False, True)]
    assert found[0] == []
    assert [(artifact["name"], artifact["type"]) for artifact in found[1]] == [("abc-pretrain", "model")]


def test_a_sweep_ends_with_one_command_for_all_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, runs = tmp_path / "sweep.jsonl", tmp_path / "my runs"
    for number in (1, 2):
        (runs / f"run-{number}" / "wandb" / f"offline-run-{number}").mkdir(parents=True)
        row = {"overrides": [f"seed={number}"], "status": "done", "minutes": 0.1, "folder": str(runs / f"run-{number}")}
        with record.open("a") as file:
            file.write(json.dumps(row) + "\n")
    monkeypatch.setenv(RECORD, str(record))
    print_summary()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "wandb" in line]
    expanded = subprocess.run(
        ["sh", "-c", "printf '%s\\n' " + line.split("wandb sync ")[1]], capture_output=True, text=True, check=True
    )
    assert expanded.stdout.splitlines() == [str(runs / f"run-{number}" / "wandb") for number in (1, 2)]


def test_a_run_is_found_by_its_labels(tmp_path: Path) -> None:
    labels = some_labels(tmp_path / "my run")
    told = [
        wandb_of_job(labels, project="p", entity=None, group=group, mode="offline", artifacts=False)._init
        for group in (None, "mine")
    ]
    assert [init["group"] for init in told] == ["demo", "mine"]
    assert (told[0]["id"], told[0]["name"]) == (f"my-run-{labels.born}", "my run")
    assert (told[0]["job_type"], told[0]["tags"]) == ("pretrain+finetune", ["demo", "vanilla", "seed 3"])
    assert told[0]["config"] == {
        "experiment": "demo", "attention": "vanilla", "attention_scale": 0.5, "pretrain_optimizer": "muon",
        "pretrain_optimizer_lr": 0.02, "pretrain_optimizer_betas": [0.9, 0.95], "seed": 3, "commit": "c0ffee",
    }  # fmt: skip


def test_a_run_is_the_same_run_as_long_as_its_first_session_is(tmp_path: Path) -> None:
    born = [some_labels(tmp_path, started=started).born for started in ("1", "1", "2")]
    assert born[0] == born[1] != born[2]


def some_labels(folder: Path, started: str = "1") -> JobLabels:
    optimizer = {"_target_": "Muon", "_partial_": True, "lr": 0.02, "betas": [0.9, 0.95]}
    settings = {"attention": {"_target_": "Vanilla", "scale": 0.5}, "pretrain": {"optimizer": optimizer}, "seed": 3}
    choices = {"experiment": "demo", "attention": "vanilla", "optimizer@pretrain.optimizer": "muon"}
    session = {"started": started, "commit": "c0ffee"}
    return labels_of(folder, settings, choices, ["pretrain", "finetune"], {"finetune": 3}, session)


def test_jobs_in_one_process_do_not_merge(wandb_home: Path) -> None:
    first, second = (WandbMirror("p", wandb_home, id, mode="offline") for id in ("one", "two"))
    for value, mirror in enumerate((first, second, first)):
        mirror.scores().log_metrics({"loss": value})
    first.finish()
    second.finish()
    kept = {re.sub(".*-", "", folder.name): inspect(folder)["summary"]["loss"] for folder in offline_runs(wandb_home)}
    assert kept == {"one": 2, "two": 1}


def test_without_a_key_it_goes_offline_and_asks_nothing(wandb_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tell(WandbMirror("p", wandb_home, "abc", mode="online"))
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("wandb: online did not work, going on offline: no API key")
    assert lines[1].startswith("wandb: kept here; to upload: wandb sync ")
    assert len(lines) == 2


@pytest.mark.parametrize("listening", [False, True], ids=["refused", "silent"])
def test_without_a_network_it_goes_offline(
    listening: bool, wandb_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:  # calls get through and are never answered; else whoever calls is refused
            server.listen()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://user:secret@127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        tell(WandbMirror("p", wandb_home, "abc", mode="online", init_timeout=2))
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("wandb: online did not work, going on offline: ")
    assert lines[1].startswith("wandb: kept here; to upload: wandb sync ")
    assert len(lines) == 2
    assert "secret" not in out + err
    assert len(offline_runs(wandb_home)) == 1
    assert not files_with_key(wandb_home)


def test_a_server_out_of_reach_is_tried_once_in_a_process(wandb_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for job in ("one", "two"):
        tell(WandbMirror("p", wandb_home, job, mode="online"))
    out = capfd.readouterr().out
    assert out.count("online did not work") == 1 and out.count("kept here") == 2


def test_a_mirror_that_breaks_is_reported_once(
    wandb_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    mirror = WandbMirror("p", wandb_home, "abc", mode="offline")
    logger = mirror.stage("pretrain", 0)
    logger.log_metrics({"train/loss": 0.5}, 0)

    def broken(*args: object, **kwargs: object) -> None:
        raise ConnectionError(f"lost {KEY} at https://me:secret@host/\nmore")

    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", broken)
    logger.log_metrics({"train/loss": 0.5}, 1)
    logger.log_metrics({"train/loss": 0.5}, 2)
    logger.log_image("attention", wandb_home / "not there.png")
    mirror.scores().summarize({"loss": 0.5})
    mirror.finish()
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "wandb: something could not be logged (said once): lost *** at https://***@host/ more"
    assert len(lines) == 2


def test_an_upload_that_does_not_end_says_how_to_finish_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(exit_code: int) -> None:
        raise TimeoutError("60 s were not enough")

    monkeypatch.setattr(WandbMirror, "_connect", lambda self: SimpleNamespace(finish=slow, step=0, log=print))
    mirror = WandbMirror("p", tmp_path, "abc", mode="online")
    mirror.scores().log_metrics({})
    mirror.finish()
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "wandb: the upload did not finish: 60 s were not enough",
        f"wandb: kept here; to upload: wandb sync --include-online {tmp_path / 'wandb'}",
    ]


@pytest.mark.parametrize(("mode", "lines"), [("disabled", 0), ("offline", 1), ("online", 2)])
def test_without_wandb_the_run_goes_on(
    mode: Mode, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # what Python makes of a package that is not there
    monkeypatch.setattr(WandbMirror, "unreachable", False)
    mirror = WandbMirror("p", tmp_path, "abc", mode=mode)
    mirror.scores().summarize({"loss": 0.5})
    assert mirror.reached == (mode == "disabled")  # of who wants nothing nothing is left to be told
    tell(mirror)
    assert len(capfd.readouterr().out.splitlines()) == lines
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("wished", "kept"),
    [
        ({"group": 3, "notes": 7, "project": 224}, {"group": "3", "notes": "7", "project": "224"}),
        ({"group": None, "notes": None}, {"group": "demo", "notes": None}),
        ({"tags": [2026, "paper"]}, {"tags": ["demo", "vanilla", "seed 3", "2026", "paper"]}),
        ({"tags": "paper"}, {"tags": ["demo", "vanilla", "seed 3", "paper"]}),
        ({"tags": 5}, {"tags": ["demo", "vanilla", "seed 3", "5"]}),
        ({"tags": None}, {"tags": ["demo", "vanilla", "seed 3"]}),
    ],
)
def test_numbers_of_a_command_line_are_words_to_wandb(
    wished: dict[str, Any], kept: dict[str, Any], tmp_path: Path
) -> None:
    plain: dict[str, Any] = {"project": "p", "entity": None, "group": None, "mode": "offline", "artifacts": False}
    mirror = wandb_of_job(some_labels(tmp_path), **{**plain, **wished})
    assert {key: mirror._init[key] for key in kept} == kept
    for tag in ("", "x" * 65):
        with pytest.raises(ValueError, match=f"has {len(tag)} characters, a tag has 1 to 64"):
            wandb_of_job(some_labels(tmp_path), **plain, tags=[tag])


def test_passwords_and_short_keys_are_starred_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0")
    assert without_key({"lr": 0.1, "sizes": [10, "x0"], "a": {"b": True, "c": None}, "of": Path("runs/0")}) == {
        "lr": 0.1, "sizes": [10, "x***"], "a": {"b": True, "c": None}, "of": "runs/***",
    }  # fmt: skip
    monkeypatch.delenv("WANDB_API_KEY")
    assert starred("http://user:p@ss@host:80/a@b and ftp://me@x") == "http://***@host:80/a@b and ftp://***@x"


def test_an_empty_mode_is_none(tmp_path: Path) -> None:
    assert WandbMirror("p", tmp_path, "abc", mode="")._mode in ("online", "offline")  # type: ignore[arg-type]


def test_a_mode_that_wandb_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ofline"):
        WandbMirror("p", tmp_path, "abc", mode="ofline")  # type: ignore[arg-type]


def test_a_fit_takes_all_loggers_at_once(wandb_home: Path) -> None:
    history, mirror = CsvHistory(wandb_home / "metrics.csv"), WandbMirror("p", wandb_home, "abc", mode="offline")
    board = TensorBoardMirror(wandb_home)
    fit(wandb_home, [history, mirror.stage("pretrain", 0), board.stage("pretrain", 0)], [])
    history.finish()
    mirror.finish()
    (folder,) = offline_runs(wandb_home)
    sent = [(row["pretrain/step"], row["pretrain/dev/loss"]) for row in rows(folder) if "pretrain/dev/loss" in row]
    assert sent == read_history(history.path)["dev/loss"]
    assert list((wandb_home / "pretrain" / "tensorboard").glob("events.out.tfevents.*"))
    assert not (wandb_home / "lightning_logs").exists()


MIRRORS: list[Callable[[Path], Mirror]] = [
    lambda folder: WandbMirror("p", folder, "abc", mode="offline"),
    lambda folder: TensorBoardMirror(folder),
]


@pytest.mark.parametrize("make", MIRRORS)
def test_other_ranks_write_nothing(
    make: Callable[[Path], Mirror], tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytorch_lightning.utilities.rank_zero.rank_zero_only.rank", 1)
    mirror = make(tmp_path / "run")
    mirror.scores().log_image("attention", picture)
    tell(mirror)
    assert not (tmp_path / "run").exists()
