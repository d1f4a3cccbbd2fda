"""The default launcher: which jobs run at the same time, with how many cores, and how each comes to its row."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from birthplace_lm.cli import side_by_side, sweeps
from birthplace_lm.cli.board import Board, seconds_left
from birthplace_lm.cli.local import LocalSweep
from birthplace_lm.cli.ranks import INTERRUPTED
from birthplace_lm.cli.side_by_side import SideBySide, Working, share
from birthplace_lm.cli.tasks import Task
from birthplace_lm.report.progress import RunStatus
from birthplace_lm.runs import RunFolder, read_json
from tests.test_stages import TINY
from tests.test_sweeps import sweep

CPU = {"accelerator": "cpu", "devices": 1}


@pytest.mark.parametrize(
    ("settings", "jobs", "cores", "parallel", "expected"),
    [
        ({"trainer": CPU, "threads": None}, 6, 2, None, 1),
        ({"trainer": CPU, "threads": None}, 1, 2, None, 2),
        ({"trainer": CPU, "threads": None}, 2, 8, None, 4),  # fewer jobs than cores
        ({"trainer": CPU, "threads": None}, 3, 8, None, 2),
        ({"trainer": CPU, "threads": 4}, 6, 8, None, 4),
        ({"trainer": CPU, "threads": 4}, 6, 2, None, 2),
        ({"trainer": {**CPU, "devices": 2}, "threads": None}, 6, 8, None, 2),
        ({"trainer": {**CPU, "devices": 2}, "threads": 3}, 6, 8, None, 6),
        ({"trainer": {"accelerator": "gpu", "devices": 1}, "threads": None}, 6, 8, None, 8),
        ({"trainer": {"accelerator": "gpu", "devices": 1}, "threads": None}, 6, 8, 3, 2),  # who says so shares a GPU
        ({"trainer": CPU, "threads": None}, 6, 2, 1, 2),
        ({"trainer": CPU, "threads": None}, 6, 2, 4, 1),
        ({"trainer": CPU, "threads": None}, 2, 8, 4, 4),
    ],
)
def test_the_cores_of_a_job(
    settings: dict[str, Any], jobs: int, cores: int, parallel: int | None, expected: int
) -> None:
    assert share(settings, jobs, cores, parallel) == expected


@dataclass
class Noted(Task):
    """A task whose process is a line of Python, which may note something; it needs no run."""

    program: str = ""
    known: dict[str, Any] = field(default_factory=dict)  # what there is to say without a process
    folder: Path | None = None

    @property
    def run(self) -> Path | None:
        return self.folder

    def status(self) -> RunStatus | None:
        return None


NOTE = "import json; open({0!r}, 'a').write(json.dumps({{'status': {1!r}, 'minutes': 1.0}}) + chr(10))"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Noted]:
    """Makes tasks of programs, and has them started in place of jobs."""
    monkeypatch.setenv(sweeps.RECORD, str(tmp_path / "record"))
    monkeypatch.setattr(side_by_side, "_POLL_SECONDS", 0.01)
    original = side_by_side.start
    made: dict[str, str] = {}

    def start(command: list[str], *rest: Any) -> subprocess.Popen[bytes]:
        return original([sys.executable, "-c", made[command[3]]], *rest)

    def make(program: str = "", note: str = "", **more: Any) -> Noted:
        task = Noted(len(made), [f"seed={len(made)}"], tmp_path, **more)
        note = f"\n{NOTE.format(str(task.record), note)}" if note else ""
        made[str(task.settings_file)] = program + note
        return task

    monkeypatch.setattr(side_by_side, "start", start)
    return make


def rows(tmp_path: Path) -> dict[int, dict[str, Any]]:
    return {row["number"]: row for row in map(json.loads, (tmp_path / "record").read_text().splitlines())}


def run(tasks: list[Noted], cores: int = 2, parallel: int | None = None, **settings: Any) -> list[int]:
    """Carry them out; how many were at work whenever one began."""
    counts: list[int] = []

    def look(task: Any) -> Mapping[str, Any]:
        task.row = task.known
        return {"trainer": CPU, "threads": None, **settings}

    sweep = SideBySide(tasks, look, parallel, cores)
    begun = sweep.board.begun
    sweep.board.begun = lambda work: (counts.append(len(sweep.working)), begun(work))[1]  # type: ignore[method-assign]
    sweep.run()
    return counts


@pytest.mark.parametrize(
    ("cores", "parallel", "settings", "most"),
    [
        (3, None, {}, 3),
        (3, 2, {}, 2),
        (3, 1, {}, 1),
        (2, 4, {}, 4),
        (4, None, {"threads": 2}, 2),
        (4, None, {"trainer": {**CPU, "devices": 4}}, 1),
        (4, None, {"trainer": {"accelerator": "gpu", "devices": 1}}, 1),
        (1, None, {}, 1),
    ],
)
def test_as_many_jobs_run_as_there_are_cores_for(
    cores: int, parallel: int | None, settings: dict[str, Any], most: int, programs: Any, tmp_path: Path
) -> None:
    tasks = [programs("import time; time.sleep(0.3)", "done") for _ in range(5)]
    assert max(run(tasks, cores, parallel, **settings)) == most
    assert [row["status"] for row in rows(tmp_path).values()] == ["done"] * 5


def test_what_becomes_of_a_job_is_noted_whatever_that_is(programs: Any, tmp_path: Path) -> None:
    known = {"status": "skipped", "minutes": 0.0, "overrides": ["seed=1"]}
    tasks = [
        programs("", "done"),
        programs("raise SystemExit('never begun')", known=known),
        programs("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        programs("raise SystemExit(3)", "failed"),
        programs("raise SystemExit(3)"),
    ]
    run(tasks)
    found = rows(tmp_path)
    assert [found[n]["status"] for n in range(5)] == ["done", "skipped", "failed", "failed", "failed"]
    assert [found[n]["overrides"] for n in range(5)] == [[f"seed={n}"] for n in range(5)]
    assert found[2]["error"] == f"its process was ended by signal 9; log: {tmp_path / '2.log'}"
    assert found[4]["error"] == f"its process ended with status 3; log: {tmp_path / '4.log'}"
    assert "error" not in found[0] and not (tmp_path / "1.log").exists()


def test_jobs_of_one_run_wait_for_each_other(programs: Any, tmp_path: Path) -> None:
    """Two would be in each other's way: the second then says that the run is in use."""
    lock = str(tmp_path / "in_use")
    check = f"import os, time; os.mkdir({lock!r}); time.sleep(0.2); os.rmdir({lock!r})"
    tasks = [programs(check, "done", folder=Path("a")) for _ in range(3)]
    run(tasks, cores=3)
    assert [row["status"] for row in rows(tmp_path).values()] == ["done"] * 3


@pytest.mark.parametrize(("said", "each"), [(None, "2"), ("1", "1"), ("8", "2"), ("junk", "2")])
def test_a_job_gets_its_share_of_the_threads(
    said: str | None, each: str, programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    show = "import os; print(os.environ['OMP_NUM_THREADS'])"
    run([programs(show, "done"), programs(show, "done")], cores=4)
    assert [(tmp_path / f"{n}.log").read_text().strip() for n in range(2)] == [each] * 2


def test_a_job_has_as_many_threads_as_if_no_other_were_finished(
    programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job computes depends on its threads: a sweep that was stopped is to end as one that was not."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    finished = {"status": "skipped", "minutes": 0.0, "overrides": []}
    run([programs(known=finished), programs("import os; print(os.environ['OMP_NUM_THREADS'])", "done")], cores=4)
    assert (tmp_path / "1.log").read_text().strip() == "2"


def test_a_job_alone_has_the_terminal_and_all_threads(
    programs: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run([programs("import os; print('threads', os.environ.get('OMP_NUM_THREADS'))", "done")], cores=4)
    out = capfd.readouterr().out
    assert "threads None" in out and "begun: job 0\n" in out and not (tmp_path / "0.log").exists()


STOPPABLE = """
import signal, sys, time
def stop(number, frame):
    time.sleep(0.2)
    print("saved", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(60)
"""


def test_a_signal_reaches_the_jobs_at_work_and_ends_the_sweep(
    programs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [programs(STOPPABLE) for _ in range(3)]
    logs = [tmp_path / f"{n}.log" for n in range(2)]
    original = Board.show

    def show(self: Board, *rest: Any, **more: Any) -> None:
        original(self, *rest, **more)
        if not more["stopping"] and all(log.is_file() and "up" in log.read_text() for log in logs):
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(Board, "show", show)
        run(tasks)
    assert ended.value.code == INTERRUPTED
    assert [log.read_text() for log in logs] == ["up\nsaved\n"] * 2 and not (tmp_path / "2.log").exists()
    assert {n: row["status"] for n, row in rows(tmp_path).items()} == {0: "interrupted", 1: "interrupted"}
    assert capsys.readouterr().out.count("stopping: 2 jobs save after their step") == 1


@pytest.mark.parametrize("parallel", [0, -1, "two", 1.5, True])
def test_a_number_of_jobs_that_is_none(parallel: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        LocalSweep(parallel).carry_out([["seed=0"]], tmp_path / "new")
    assert f"error: hydra.launcher.parallel is {parallel}: a whole number is needed" in capsys.readouterr().err


def working(elapsed: float, left: float | None, state: str = "running") -> Working:
    ends = None if left is None else datetime.now().astimezone() + timedelta(seconds=left)
    run = RunStatus(Path("runs/a"), state, "pretrain", 3, 10, ends)
    task: Any = SimpleNamespace(status=lambda: run, number=0)
    return Working(task, None, 1, time.monotonic() - elapsed, True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at_work", "waiting", "taken", "expected"),
    [
        ([], 0, [10.0], 0.0),
        ([(5.0, None)], 3, [], None),
        ([(5.0, 15.0), (5.0, 25.0)], 0, [], 25.0),
        ([(5.0, 15.0), (5.0, 25.0)], 4, [], 70.0),  # 25 s each on average: (15 + 25 + 4 · 25) / 2
        ([(5.0, None)], 2, [30.0], 85.0),
        ([(50.0, None)], 0, [30.0], 0.0),
        ([], 2, [30.0], 60.0),
    ],
)
def test_how_long_a_sweep_still_takes(
    at_work: list[tuple[float, float | None]], waiting: int, taken: list[float], expected: float | None
) -> None:
    found = seconds_left([working(*job) for job in at_work], waiting, taken)
    assert found == (expected if expected is None else pytest.approx(expected, abs=0.5))
    assert seconds_left([working(5.0, None, state="finished")], 0, [30.0]) == 0.0


def test_in_a_terminal_a_table_says_what_is_at_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    board = Board([["model=small", "seed=0"], ["model=small", "seed=1"]])
    Console(width=100).print(board._table([working(5.0, 15.0), working(5.0, None, state="interrupted")], 4))
    out = capsys.readouterr().out
    assert "job 0 seed=0" in out and "pretrain 3 of 10 (30%)" in out and "starting" in out
    assert "2 at work, 4 to come, about 55 s left" in out  # (15 + 15 + 4 · 20) / 2


# ------------------------------------------------------------------------------------------------ whole sweeps


@pytest.mark.slow
def test_jobs_run_side_by_side(tmp_path: Path) -> None:
    jobs = ("attention=vanilla,hybrid,linear", "positions=learned,rotary")
    code, noted, out = sweep(tmp_path, "threads=null", "hydra.launcher.parallel=3", *jobs)
    assert code == 1 and len(noted) == 6
    ends = {tuple(row["overrides"][-2:]): row["status"] for row in noted}  # type: ignore[index]
    assert [ends[(f"attention={a}", "positions=learned")] for a in ("vanilla", "hybrid", "linear")] == ["done"] * 3
    assert ends[("attention=vanilla", "positions=rotary")] == "done"
    assert ends[("attention=linear", "positions=rotary")] == "failed"
    folders = {str(row["folder"]) for row in noted if row["status"] == "done"}
    assert len(folders) == 4 and "jobs run side by side" in out
    sessions = [read_json(tmp_path / folder / "provenance.json")["sessions"][0] for folder in folders]
    assert all(session["hardware"]["threads"] <= max((os.cpu_count() or 1) // 3, 1) for session in sessions)
    assert {session["command"][0] for session in sessions} == {"birthplace-train"}
    (folder,) = (path for path in (tmp_path / "runs" / ".sweeps").iterdir() if path.is_dir())
    assert {path.suffix for path in folder.glob("[0-9].*")} == {".yaml", ".log", ".jsonl"}
    assert len(read_json(folder / "sweep.json")["tasks"]) == 6


@pytest.mark.slow
def test_a_sweep_that_is_killed_takes_its_jobs_with_it_and_they_save(tmp_path: Path) -> None:
    """A job that went on unseen would hold its run against the same command, which is to go on with it."""
    command = [sys.executable, "-m", "birthplace_lm", "-m", *TINY, "stages=[finetune]", "threads=1", "seed=0,1,2"]
    long = ["finetune.epochs=100000", "checkpoint.every_n_steps=1000", "hydra.launcher.parallel=2"]
    process = subprocess.Popen([*command, *long], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        until(lambda: len(list(tmp_path.glob("runs/*/finetune/metrics.csv"))) == 2)
        process.kill()
        process.wait()
        until(lambda: len(list(tmp_path.glob("runs/*/finetune/checkpoints/step_*.ckpt"))) == 2)
        until(lambda: not any(RunFolder(path.parent).in_use() for path in tmp_path.glob("runs/*/config.yaml")))
    finally:
        process.kill()
    assert len(list(tmp_path.glob("runs/*/config.yaml"))) == 2


def until(true: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
