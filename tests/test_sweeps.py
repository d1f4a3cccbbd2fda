"""Sweeps from the command line: all jobs are run whatever becomes of one, and the last word is a table of them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from birthplace_lm.cli import ranks, search, sweeps, train
from birthplace_lm.cli.ranks import INTERRUPTED
from birthplace_lm.commits import hide_environment, origin
from birthplace_lm.composing import ConfigError, plain
from birthplace_lm.ranks import Rank, RankError
from birthplace_lm.runs import RunFolder
from tests.test_configs import composed
from tests.test_stages import TINY


def sweep(folder: Path, *overrides: str) -> tuple[int, list[dict[str, object]], str]:
    """Exit code, the noted rows in the jobs' order and what was printed of one sweep over tiny runs."""
    command = [sys.executable, "-m", "birthplace_lm", "--multirun", *TINY, "stages=[finetune]", "threads=1"]
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # what a user has
    done = subprocess.run(
        [*command, *overrides], cwd=folder, env=own, capture_output=True, text=True, timeout=240, check=False
    )
    records = sorted((folder / "runs" / ".sweeps").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    rows = [json.loads(line) for line in records[-1].read_text().splitlines()]
    return done.returncode, sorted(rows, key=lambda row: row.get("number", 0)), done.stdout


def statuses(rows: list[dict[str, object]]) -> dict[str, object]:
    return {str(row["overrides"][-1]): row["status"] for row in rows}  # type: ignore[index]


def test_an_error_that_nobody_expected_keeps_its_traceback_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(sweeps.RECORD, str(tmp_path / "record"))

    def job() -> Any:
        raise KeyError("in two\nlines")

    assert sweeps.noted(job, ["seed=1"]) == "failed"
    assert "Traceback" in (told := capsys.readouterr().err) and "raise KeyError" in told
    assert json.loads((tmp_path / "record").read_text())["error"] == "KeyError: 'in two\\nlines'"

    def told_already() -> Any:
        raise ConfigError("a wrong key")

    sweeps.noted(told_already, ["seed=2"])
    assert (told := capsys.readouterr().err) == "error: a wrong key\n"


def test_a_key_on_the_command_line_stays_there(tmp_path: Path) -> None:
    """In a file that others may read, or that goes to a mirror, a variable of the environment has no value."""
    code, rows, _ = sweep(tmp_path, "seed=0", "+hydra.job.env_set.A_KEY=5ecre7")
    assert (code, [row["status"] for row in rows]) == (0, ["done"])
    private = tmp_path / "runs" / ".sweeps"
    assert private.stat().st_mode & 0o077 == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files if b"5ecre7" in path.read_bytes()] == ["multirun.yaml"]  # Hydra's own
    assert [path for path in files if path.name == "sweep.json"]


@pytest.mark.parametrize(
    "option",
    [
        "+hydra.job.env_set.A_KEY=5ecre7",
        "+hydra.job.env_set={A_KEY: 5ecre7}",
        "+hydra={job: {env_set: {A_KEY: a=5ecre7}}}",
        "++hydra.job={env_set: {A_KEY: 5ecre7}}",
    ],
)
def test_a_command_is_noted_without_its_variables(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["birthplace-train", "seed=0", option, "name=x"])
    hide_environment()
    hidden = option.partition("=")[0] + "=***"
    assert origin()["command"] == ["birthplace-train", "seed=0", hidden, "name=x"]


def test_a_row_that_could_not_be_written_whole_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record"
    monkeypatch.setenv(sweeps.RECORD, str(record))
    record.write_text('{"overrides": ["seed=3"], "status": "interr')
    row = {"overrides": ["seed=3"], "status": "done", "minutes": 1.0}
    for _ in range(2):
        sweeps.add_row(row)
    assert sweeps.rows_of(record) == [row, row] and sweeps.rows_of(tmp_path / "none") == []
    assert sweeps.print_summary() == 0 and "2 done" in capsys.readouterr().out


@pytest.mark.parametrize("command", [train, search])
def test_who_interrupts_a_command_that_gets_ready_is_told_in_a_line(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_train" if command is train else "_search", interrupted)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; the same command again goes on from the last checkpoint\n"


def test_runs_that_cannot_be_written_are_told_before_the_first_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "afile").write_text("")
    with pytest.raises(SystemExit, match="2"):
        sweeps.SweepRecord().on_multirun_start(composed(f"paths.runs={tmp_path / 'afile'}"))
    assert f"error: the runs folder {tmp_path / 'afile'} cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failed_job_stops_no_other_and_the_same_command_does_what_is_left(tmp_path: Path) -> None:
    jobs = "finetune.optimizer.lr=1e-3,1e38,1e-4"
    code, rows, out = sweep(tmp_path, jobs)
    last = statuses(rows)
    assert code == 1 and list(last.values()) == ["done", "failed", "done"]
    assert "2 done, 1 failed" in out and "NonFiniteLossError" in out and "jobs run side by side" in out
    (note,) = (tmp_path / "runs").glob("*/error.txt")
    assert "NonFiniteLossError" in note.read_text() and "Traceback" in note.read_text()
    code, rows, out = sweep(tmp_path, jobs)
    assert code == 1 and list(statuses(rows).values()) == ["skipped", "failed", "skipped"]


def test_a_job_that_another_command_is_at_is_passed_over_and_did_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(sweeps.RECORD, str(tmp_path / "record.jsonl"))
    run = RunFolder(tmp_path / "runs" / "a")

    def job() -> None:
        with run.locked():
            raise AssertionError("two processes in one folder")

    with run.locked():
        assert sweeps.noted(job, ["seed=0"]) == "elsewhere"
    assert sweeps.print_summary() == 1  # not all jobs have come to their end
    out = capsys.readouterr().out
    told = " ".join(re.sub("[│┃]", " ", out).split())  # a long path wraps the cells of the table
    assert "1 elsewhere" in told and "failed" not in told and f"in use by process {os.getpid()}" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "at_once", "told"),
    [
        (["hydra/launcher=basic"], 1, "SIGTERM: saving after this step"),
        (["hydra.launcher.parallel=1"], 1, "SIGTERM: saving after this step"),
        (["hydra.launcher.parallel=2"], 2, "stopping: what is at work saves after its step"),
    ],
)
def test_who_stops_a_job_stops_its_sweep(launcher: list[str], at_once: int, told: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "birthplace_lm", "-m", *TINY, "stages=[finetune]", "threads=1", "seed=0,1,2"]
    long = ["finetune.epochs=100000", "checkpoint.every_n_steps=1", *launcher]
    process = subprocess.Popen([*command, *long], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        while process.poll() is None:
            if len({path.parent for path in tmp_path.glob("runs/*/finetune/checkpoints/step_*.ckpt")}) == at_once:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED and told in out, out
    assert f"{at_once} interrupted; noted in" in out and len(list(tmp_path.glob("runs/*/config.yaml"))) == at_once


@pytest.mark.parametrize(("turns", "ended", "stops"), [(True, "interrupted", True), (True, "failed", False),
                                                       (False, "interrupted", False)])  # fmt: skip
def test_a_job_stops_the_sweep_only_where_it_would_begin_the_next(
    turns: bool, ended: str, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "noted", lambda *_: ended)
    monkeypatch.setattr(sweeps, "_of_processes", {os.getpid()} if turns else {os.getpid() + 1})
    with pytest.raises(SystemExit, match="130") if stops else nullcontext():
        ranks.carry_out(composed(*TINY), {}, [], ["seed=1"])


def test_ranks_that_were_stopped_before_they_could_hear_it_stop_the_sweep_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal while they import ends them at once: nothing of theirs is noted, and it is no failure of theirs."""
    rank = SimpleNamespace(returncode=-signal.SIGTERM, kill=lambda: None, wait=lambda: None)
    monkeypatch.setattr(ranks, "_process", lambda *_: rank)
    monkeypatch.setattr(ranks, "_watch", lambda _: set())
    monkeypatch.setattr(ranks, "_account", lambda *_: "rank 0 of 2 was ended by SIGTERM")
    monkeypatch.setenv(sweeps.RECORD, str(tmp_path / "record"))
    for received, ends in (([signal.SIGTERM], SystemExit), ([], RankError)):
        monkeypatch.setattr(ranks, "signals_passed_on", lambda _, came=received: nullcontext(came))
        with pytest.raises(ends) as ended:
            ranks._start(composed(*TINY), {}, [], ["seed=1"], 2)
        if received:
            assert isinstance(ended.value, SystemExit) and ended.value.code == 128 + signal.SIGTERM
            (row,) = (json.loads(line) for line in (tmp_path / "record").read_text().splitlines())
            assert (row["overrides"], row["status"]) == (["seed=1"], "interrupted")


def test_ranks_are_told_what_their_settings_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no Hydra, nor another environment's word, to look anything up in; what only looks so is text."""
    rank = SimpleNamespace(returncode=0, kill=lambda: None, wait=lambda: None)
    told: list[dict[str, Any]] = []

    def process(_: Rank, folder: Path, __: Any) -> Any:
        told.append(plain(OmegaConf.create(json.loads((folder / "job.json").read_text())["config"])))
        monkeypatch.setenv("A_NOTE", "another")
        return rank

    monkeypatch.setattr(ranks, "_process", process)
    monkeypatch.setattr(ranks, "_watch", lambda _: set())
    monkeypatch.setenv("A_NOTE", "costs ${HOME}")
    ranks._start(composed(*TINY, "wandb.notes='${oc.env:A_NOTE}'"), {}, [], None, 2)
    assert [settings["wandb"]["notes"] for settings in told] == ["costs ${HOME}"] * 2


@pytest.mark.parametrize(("said", "each"), [(None, 4), ("6", 3), ("1", 1), ("64", 4), ("junk", 4)])
def test_ranks_share_the_threads_that_one_process_would_have(
    said: str | None, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a batch script says of all of them: with as many each they would be in each other's way."""
    started: list[dict[str, str]] = []
    monkeypatch.setattr(ranks, "own_cores", lambda: 8)
    monkeypatch.setattr(subprocess, "Popen", lambda command, env, **_: started.append(env))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    for threads in (None, 5):
        ranks._process(Rank(1, 2, 1, 0, "127.0.0.1", 1), tmp_path, threads)
    assert [env["OMP_NUM_THREADS"] for env in started] == [str(each), "5"]


@pytest.mark.slow
def test_two_sweeps_at_once_share_their_jobs(tmp_path: Path) -> None:
    launcher = "hydra/launcher=basic"  # which is sooner at its jobs
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(sweep, tmp_path, f"seed={seeds}", launcher) for seeds in ("0,1,2", "2,1,0")]
        assert {future.result()[0] for future in both} <= {0, 1}
    records = [path.read_text().splitlines() for path in (tmp_path / "runs" / ".sweeps").glob("*.jsonl")]
    rows = [json.loads(line) for lines in records for line in lines]
    assert len(records) == 2 and len(rows) == 6 and {row["status"] for row in rows} <= {"done", "skipped", "elsewhere"}
    trained = [str(row["overrides"][-1]) for row in rows if row["status"] == "done"]
    assert sorted(trained) == ["seed=0", "seed=1", "seed=2"]
    code, last, _ = sweep(tmp_path, "seed=0,1,2")
    assert code == 0 and set(statuses(last).values()) == {"skipped"}


def test_the_table_names_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.jsonl"
    monkeypatch.setenv(sweeps.RECORD, str(record))
    rows = [
        {
            "overrides": ["model=small", "seed=0"],
            "status": "done",
            "folder": "runs/a",
            "exact_match": 0.5,
            "minutes": 1,
        },
        {"overrides": ["model=small", "seed=1"], "status": "failed", "error": "ValueError: [red]x", "minutes": 2},
        {"overrides": ["model=small", "seed=2"], "status": "interrupted", "minutes": 3},
    ]
    record.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sweeps.print_summary() == 1
    out = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    record.write_text(json.dumps(rows[0]) + "\n")
    monkeypatch.setenv(sweeps.RECORD, str(record))
    assert sweeps.print_summary() == 0 and "1 done; noted in" in capsys.readouterr().out
    assert set(lines) == {"seed=0", "seed=1", "seed=2"} and out.startswith("sweep model=small")
    assert "50.0%" in lines["seed=0"] and "ValueError: [red]x" in lines["seed=1"]
    assert "1 done, 1 failed, 1 interrupted" in out


def test_without_a_sweep_there_is_no_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(sweeps.RECORD, raising=False)
    assert sweeps.print_summary() == 0 and not capsys.readouterr().out
