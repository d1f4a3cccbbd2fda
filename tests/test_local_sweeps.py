"""The default launcher: which jobs run at the same time, with how many cores, and how each comes to its row."""

import errno
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
from hydra.errors import HydraException

from birthplace_lm.cli import children, job, side_by_side, sweeps
from birthplace_lm.cli.board import Board, seconds_left
from birthplace_lm.cli.errors import tell
from birthplace_lm.cli.local import LocalSweep
from birthplace_lm.cli.ranks import INTERRUPTED
from birthplace_lm.cli.side_by_side import SideBySide, Working, share
from birthplace_lm.cli.tasks import Task
from birthplace_lm.commits import commit
from birthplace_lm.composing import ConfigError, plain, save_config
from birthplace_lm.ranks import own_cores
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
    made: dict[str, str] = {}

    def start(module: str, arguments: list[str], environment: dict[str, str], out: Any, err: Any) -> Any:
        assert module == "birthplace_lm.cli.job" and "--ends-with-starter" in arguments
        command = [sys.executable, "-c", made[arguments[0]]]
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=err)

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


@pytest.mark.parametrize("error", [HydraException("no such option"), ConfigError("${nowhere} leads nowhere")])
def test_a_job_that_cannot_be_composed_has_the_reason_in_its_row(error: Exception, tmp_path: Path) -> None:
    def load(*_: Any) -> None:
        raise error

    launcher: Any = LocalSweep(None)
    launcher.setup(
        hydra_context=SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=load)),
        task_function=None,
        config=None,
    )
    task = Task(1, ["seed=1"], tmp_path)
    assert launcher.look_at(task, 1) == {}
    assert (task.row["status"], task.row["overrides"]) == ("failed", ["seed=1"]) and str(error) in task.row["error"]


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
    assert capsys.readouterr().out.count("stopping: what is at work saves after its step") == 1


@pytest.mark.parametrize("moment", ["look", "start"])
def test_a_signal_while_a_job_is_being_begun_is_not_lost(
    moment: str, programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nobody yet whom it could be passed on to."""
    task = programs(STOPPABLE)
    start = side_by_side.start

    def look(task: Any) -> Mapping[str, Any]:
        if moment == "look":
            signal.raise_signal(signal.SIGTERM)
        return {"trainer": CPU, "threads": None}

    def started(*arguments: Any) -> Any:
        process = start(*arguments)
        until(lambda: "up" in task.log.read_text())
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(side_by_side, "start", started)
    began = time.monotonic()
    with pytest.raises(SystemExit, match=str(INTERRUPTED)):
        SideBySide([task, programs(STOPPABLE)], look, None, 2).run()
    assert time.monotonic() - began < 30
    if moment == "look":
        assert not task.log.exists() and not (tmp_path / "record").exists()
    else:
        assert task.log.read_text() == "up\nsaved\n"
        assert {n: row["status"] for n, row in rows(tmp_path).items()} == {0: "interrupted"}


WAITING = "import os; os.read(0, 1); print('saved')"


def test_after_an_error_of_the_sweep_itself_what_was_at_work_is_waited_for_and_noted(
    programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(*_: Any, **__: Any) -> None:
        raise RuntimeError("no table today")

    monkeypatch.setattr(Board, "show", show)
    with pytest.raises(RuntimeError, match="no table today"):
        run([programs(WAITING, "interrupted"), programs(WAITING, "interrupted")])
    assert {row["status"] for row in rows(tmp_path).values()} == {"interrupted"}
    assert (tmp_path / "0.log").read_text() == "saved\n"


def test_a_setting_that_no_job_can_have_is_that_jobs_failure(
    programs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looked: list[int] = []

    def look(task: Any) -> Mapping[str, Any]:
        looked.append(task.number)
        if task.number == 3:  # nothing could be composed
            task.row = {"status": "failed", "minutes": 0.0, "error": "no such option"}
            return {}
        return {"trainer": {**CPU, "devices": "auto" if task.number == 1 else 1}, "threads": None}

    SideBySide([programs("", "done") for _ in range(5)], look, None, 2).run()
    found = rows(tmp_path)
    assert [found[n]["status"] for n in range(5)] == ["done", "failed", "done", "failed", "done"]
    assert looked == [0, 1, 2, 3, 4]
    assert "trainer.devices is 'auto'" in found[1]["error"]
    assert "error: trainer.devices is 'auto'" in capsys.readouterr().err


@pytest.mark.parametrize("cores", [1, 2])
def test_a_job_is_looked_at_when_there_is_room_for_it(cores: int, programs: Any) -> None:
    """Jobs in turn may start from each other."""
    at_work: list[int] = []

    def look(_: Any) -> Mapping[str, Any]:
        at_work.append(len(sweep.working))
        return {"trainer": CPU, "threads": None}

    sweep = SideBySide([programs("import time; time.sleep(0.3)", "done") for _ in range(3)], look, None, cores)
    sweep.run()
    assert len(at_work) == 3 and max(at_work) < cores


def test_what_hydra_is_to_set_is_set_for_the_job(programs: Any, tmp_path: Path) -> None:
    show = "import os; print(os.environ['OF_THIS_JOB'], os.environ['OMP_NUM_THREADS'])"
    environments = [{"OF_THIS_JOB": "a", "OMP_NUM_THREADS": "1"}, {"OF_THIS_JOB": "b"}]
    run([programs(show, "done", environment=environment) for environment in environments], cores=4)
    assert (tmp_path / "0.log").read_text() == "a 1\n" and (tmp_path / "1.log").read_text().startswith("b")


def test_jobs_of_a_sweep_in_batches_go_on_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[int]] = []
    kept = SimpleNamespace(run=lambda: None)
    monkeypatch.setattr(side_by_side, "SideBySide", lambda tasks, *_: batches.append([t.number for t in tasks]) or kept)
    monkeypatch.setenv(sweeps.RECORD, str(tmp_path / "sweep.jsonl"))
    launcher: Any = LocalSweep(None)
    launcher.setup(hydra_context=None, task_function=None, config=SimpleNamespace(trainer=CPU))
    for first in (0, 2):
        launcher.launch([["seed=0"], ["seed=1"]], first)
    assert batches == [[0, 1], [2, 3]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep", "sweep-2"]


def test_a_note_that_could_not_be_written_whole_is_none(tmp_path: Path) -> None:
    task = Task(3, ["seed=3"], tmp_path)
    task.record.write_text('{"status": "interrupted", "minutes": 1.0}\n{"status": "do')
    assert task.noted() == [{"status": "interrupted", "minutes": 1.0}]


def test_without_standard_output_nothing_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    Board({0: ["seed=0"]}).show([working(5.0, 15.0)], 0, stopping=True)
    (tmp_path / "record").write_text(json.dumps({"overrides": ["seed=0"], "status": "done", "minutes": 1.0}) + "\n")
    monkeypatch.setenv(sweeps.RECORD, str(tmp_path / "record"))
    assert sweeps.print_summary() == 0


@pytest.mark.parametrize(
    ("error", "full", "traced", "told"),
    [
        (ConfigError("a wrong key"), "0", False, True),
        (ConfigError("a wrong key"), "1", True, True),
        (OSError(errno.ENOSPC, "a wrong key"), "0", False, True),
        (ModuleNotFoundError("a wrong key"), "0", False, True),
        (OSError(errno.EIO, "a bug"), "0", True, False),
        (KeyError("a bug"), "0", True, False),
    ],
)
def test_an_error_is_told_as_it_can_be_mended(
    error: Exception, full: str, traced: bool, told: bool,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("HYDRA_FULL_ERROR", full)
    tell(error)
    err = capsys.readouterr().err
    assert (f"{type(error).__name__}: " in err) == traced and (
        "error: " in err.splitlines()[-1] and "a wrong key" in err.splitlines()[-1]
    ) == told


def test_a_process_has_the_code_of_the_one_that_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what lies in the working directory, which Python would look into first."""
    (tmp_path / "birthplace_lm").mkdir()
    for name in ("birthplace_lm/__init__.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    process = children.start("birthplace_lm.cli.job", ["--help"], os.environ, subprocess.PIPE, subprocess.STDOUT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and b"--ends-with-starter" in out


ORPHAN = """
import signal, sys, time
from birthplace_lm.cli.children import end_with_starter
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))
end_with_starter()
print("up", flush=True)
time.sleep(60)
"""


def test_who_is_left_alone_is_asked_to_end() -> None:
    """By a signal that asks: after a Ctrl-C a second SIGTERM would end it at once, in the midst of what it saves."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", ORPHAN], **pipes)
    assert process.stdout and process.stdout.readline() == b"up\n" and process.stdin
    process.stdin.close()
    assert process.wait(timeout=30) == 7


STARTER = """
import os, subprocess, sys, time
from birthplace_lm.cli.children import paused_together
below, noted = int(sys.argv[1]), sys.argv[2]
processes = [subprocess.Popen([sys.executable, __file__, str(below - 1), noted], process_group=0)] if below else []
with paused_together(processes):
    with open(noted, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(60)
"""


def is_paused(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc says which processes are paused")
def test_ctrl_z_pauses_what_was_started_too(tmp_path: Path) -> None:
    """Also what was started by that, as a job starts ranks; and a second time as the first."""
    script, noted = tmp_path / "starter.py", tmp_path / "pids"
    script.write_text(STARTER)
    noted.touch()
    process = subprocess.Popen([sys.executable, str(script), "2", str(noted)], process_group=0)
    try:
        until(lambda: len(noted.read_text().split()) == 3)
        pids = [int(pid) for pid in noted.read_text().split()]
        for _ in range(2):
            process.send_signal(signal.SIGTSTP)
            until(lambda: all(map(is_paused, pids)))
            process.send_signal(signal.SIGCONT)
            until(lambda: not any(map(is_paused, pids)))
    finally:
        for pid in noted.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("parallel", [0, -1, "two", 1.5, True])
def test_a_number_of_jobs_that_is_none(parallel: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        LocalSweep(parallel).carry_out([["seed=0"]], tmp_path / "new", 0)
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

    board = Board({0: ["model=small", "seed=0"], 1: ["model=small", "seed=1"]})
    Console(width=100).print(board._table([working(5.0, 15.0), working(5.0, None, state="interrupted")], 4))
    out = capsys.readouterr().out
    assert "job 0 seed=0" in out and "pretrain 3 of 10 (30%)" in out and "starting" in out
    assert "2 at work, 4 to come, about 55 s left" in out  # (15 + 15 + 4 · 20) / 2


# ------------------------------------------------------------------------------------------------ whole sweeps


@pytest.mark.slow
def test_jobs_run_side_by_side(tmp_path: Path) -> None:
    jobs = ("attention=vanilla,linear", "positions=learned,rotary")
    code, noted, out = sweep(tmp_path, "threads=null", "hydra.launcher.parallel=3", *jobs)
    ends = {tuple(row["overrides"][-2:]): row["status"] for row in noted}  # type: ignore[index]
    assert code == 1 and ends == {
        ("attention=vanilla", "positions=learned"): "done",
        ("attention=vanilla", "positions=rotary"): "done",
        ("attention=linear", "positions=learned"): "done",
        ("attention=linear", "positions=rotary"): "failed",
    }
    folders = {str(row["folder"]) for row in noted if row["status"] == "done"}
    assert len(folders) == 3 and "jobs run side by side" in out
    sessions = [read_json(tmp_path / folder / "provenance.json")["sessions"][0] for folder in folders]
    assert [session["hardware"]["threads"] for session in sessions] == [max(own_cores() // 3, 1)] * 3
    assert {session["command"][0] for session in sessions} == {"birthplace-train"}
    (folder,) = (path for path in (tmp_path / "runs" / ".sweeps").iterdir() if path.is_dir())
    assert {path.suffix for path in folder.glob("[0-9].*")} == {".yaml", ".log", ".jsonl"}
    assert len(read_json(folder / "sweep.json")["tasks"]) == 4


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


def test_a_job_takes_its_settings_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were resolved when the sweep was launched: what looks like an interpolation since then is text."""
    monkeypatch.setattr(sys, "argv", [])
    settings = {"choices": {"attention": "vanilla"}, "wandb": {"notes": r"costs \${HOME}, says ${oc.env:HOME}"}}
    save_config(settings, tmp_path / "0.yaml")
    (tmp_path / "sweep.json").write_text(json.dumps({**commit(), "tasks": {"0": {"overrides": ["seed=0"]}}}))
    carried_out: list[Any] = []
    monkeypatch.setattr(job, "carry_out", lambda *told: carried_out.append((plain(told[0]), *told[1:])))
    with pytest.raises(SystemExit, match="0"):
        job.main([str(tmp_path / "0.yaml")])
    assert carried_out == [(settings, settings["choices"], [], ["seed=0"])]
