"""Sweeps on a cluster: the batch script as text and in a shell, then a real Slurm of one node, preemption included.

The tests of the real one need root, and the packages that `python tests/one_node_slurm.py install` installs.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import pytorch_lightning as pl

from birthplace_lm.checkpoints import CheckpointEvery
from birthplace_lm.cli import slurm_queue
from birthplace_lm.cli.slurm_batch import RUNNING, check_wishes, script
from birthplace_lm.cli.slurm_queue import SlurmError, states, submit
from birthplace_lm.composing import ConfigError, plain
from tests import one_node_slurm
from tests.helpers import CONFIGS
from tests.test_configs import composed
from tests.test_stages import TINY, tiny_run

if TYPE_CHECKING:
    from birthplace_lm.cli.slurm_tasks import SlurmTask

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [sys.executable, "-m", "birthplace_lm"]
RUN = [*TINY, "stages=[finetune]", "finetune.epochs=10", "threads=1"]
_begun: list[subprocess.Popen[str]] = []
SWEEP = [
    *("-m", "hydra/launcher=slurm", *RUN, "hydra.launcher.poll_seconds=0.5"),
    "hydra.launcher.sbatch.cpus_per_task=1",
]

# -------------------------------------------------------------------------------------- without a Slurm


def written(folder: Path, tasks: tuple[int, ...] = (0, 1, 2), parallel: int | None = None, **sbatch: Any) -> str:
    return script(folder, tasks, sbatch, ["module load cuda", "ulimit -c 0"], parallel, 3, 90)


def directives(text: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")}


def test_every_wish_stands_in_the_batch_script(tmp_path: Path) -> None:
    wishes = {"partition": "gpu", "account": "lab", "qos": "long", "mem": "8G", "time": "1-00:00:00", "exclusive": True}
    text = written(tmp_path, (0, 1, 2, 5), 2, **wishes, gpus_per_node=1, gres="gpu:a100:1", constraint=None)
    assert directives(text) == {
        *("--partition=gpu", "--account=lab", "--qos=long", "--mem=8G", "--time=1-00:00:00", "--exclusive"),
        *("--gpus-per-node=1", "--gres=gpu:a100:1", "--array=0-2,5%2", "--requeue", "--open-mode=append"),
        *("--signal=B:USR1@90", f"--output={tmp_path}/%a.log", f"--chdir={Path.cwd()}"),
    }
    lines = text.splitlines()
    job = next(i for i, line in enumerate(lines) if line.startswith("job="))
    assert lines.index("module load cuda") < lines.index("ulimit -c 0") < job
    assert "most=3" in lines and text.endswith(RUNNING)


def test_a_folder_with_odd_characters_is_one_word_everywhere(tmp_path: Path) -> None:
    text = written(tmp_path / "a 100% $HOME")
    assert f'--output="{tmp_path}/a 100%% $HOME/%a.log"' in directives(text)
    probe = f"SLURM_ARRAY_TASK_ID=7; {text.split('most=')[0]}\nprintf '%s\\n' \"${{job[@]}}\""
    probe = probe.replace("module load cuda", ":")
    words = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True).stdout.splitlines()
    assert words == [sys.executable, "-m", "birthplace_lm.cli.job", f"{tmp_path}/a 100% $HOME/7.yaml"]


def test_wishes_that_cannot_be_granted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sbatch\.array: the launcher sets this option itself"):
        written(tmp_path, array="0-9")
    with pytest.raises(ConfigError, match=r"sbatch\.mem: got '1G\\nrm', need a word or a number"):
        written(tmp_path, mem="1G\nrm")


def test_the_script_for_single_runs_ends_as_the_arrays_do() -> None:
    assert (CONFIGS / "hydra" / "launcher" / "train.sbatch").read_text().endswith(RUNNING)


PROGRAM = "import signal, sys, time; signal.signal(signal.{0}, lambda *_: sys.exit(2)); print('up', flush=True)"


@pytest.mark.parametrize(
    ("number", "restarts", "asked"),
    [("SIGUSR1", 0, "requeue 7_3"), ("SIGUSR1", 2, "requeue 7_3"), ("SIGUSR1", 3, ""), ("SIGTERM", 0, "")],
)
def test_a_job_queues_again_when_time_runs_out_and_not_too_often(
    number: str, restarts: int, asked: str, tmp_path: Path
) -> None:
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\n')
    (tmp_path / "scontrol").chmod(0o755)
    (tmp_path / "asked").touch()
    job = f'job=({sys.executable} -c "{PROGRAM.format(number)}; time.sleep(60)")\nmost=3\n'
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3"}
    environment = {**os.environ, **task, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
    shell = subprocess.Popen(
        ["bash", "-c", job + RUNNING], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert shell.stdout and shell.stdout.readline() == "up\n"
    if number == "SIGTERM":  # reaches all processes of a job
        os.killpg(shell.pid, signal.SIGTERM)
    else:  # reaches the script alone
        shell.send_signal(getattr(signal, number))
    shell.communicate(timeout=30)
    assert shell.returncode in (2, 255) and (tmp_path / "asked").read_text().strip() == asked


def test_a_job_that_ends_well_after_the_warning_is_not_queued_again(tmp_path: Path) -> None:
    program = "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0)); print('up', flush=True)"
    job = f'job=({sys.executable} -c "{program}; signal.pause()")\nmost=3\nscontrol() {{ echo asked; }}\n'
    shell = subprocess.Popen(["bash", "-c", job + RUNNING], stdout=subprocess.PIPE, text=True)
    assert shell.stdout and shell.stdout.readline() == "up\n"
    shell.send_signal(signal.SIGUSR1)
    assert shell.communicate(timeout=30)[0] == "" and shell.returncode == 0


def test_a_signal_that_comes_twice_at_once_is_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed_on: list[int] = []
    numbers = (signal.SIGUSR1, signal.SIGTERM)
    outside = [signal.signal(number, lambda number, frame: passed_on.append(number)) for number in numbers]
    now = 100.0
    monkeypatch.setattr("birthplace_lm.checkpoints.time.monotonic", lambda: now)
    try:
        checkpoints = CheckpointEvery(tmp_path)
        trainer: Any = SimpleNamespace(global_step=0, callbacks=[checkpoints])
        checkpoints.on_train_start(trainer, pl.LightningModule())
        for later in (0.0, 0.1, 0.9):  # Slurm's own and what a starting process passes on
            now = 100.0 + later
            signal.raise_signal(signal.SIGTERM)
        assert checkpoints._requested and not passed_on
        now = 101.5
        signal.raise_signal(signal.SIGUSR1)  # a cluster's, or of who is left without the one that started it: it asks
        assert not passed_on
        signal.raise_signal(signal.SIGTERM)
        assert passed_on == [signal.SIGTERM]
    finally:
        for number, handler in zip(numbers, outside, strict=True):
            signal.signal(number, handler)
        checkpoints.teardown(None, None, "fit")  # type: ignore[arg-type]


def fake(folder: Path, **commands: str) -> None:
    for name, body in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)


def test_states_come_from_the_queue_and_then_from_the_accounting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    fake(tmp_path, squeue="echo '0|RUNNING'; echo '12|PENDING'", sacct="echo '4_0|PENDING'; echo '4_1|CANCELLED by 0'")
    assert states("4") == {0: "RUNNING", 12: "PENDING", 1: "CANCELLED"}
    fake(tmp_path, squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert states("4") == {0: "PENDING", 1: "CANCELLED"}
    fake(tmp_path, squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    assert states("4") is None
    fake(tmp_path, squeue="sleep 5")
    monkeypatch.setattr(slurm_queue, "_PATIENCE", 0.2)
    assert states("4") is None


@pytest.mark.parametrize(
    ("noted", "state", "status", "minutes", "error"),
    [
        (["interrupted", "done"], "COMPLETED", "done", 3.0, None),
        (["interrupted", "skipped"], "COMPLETED", "done", 3.0, None),  # out of time while it was being scored
        (["skipped"], "COMPLETED", "skipped", 1.0, None),
        (["done"], "CANCELLED", "done", 1.0, None),  # it was through before
        ([], "OUT_OF_MEMORY", "failed", 0, "Slurm: OUT_OF_MEMORY; log: {0}/3.log"),
        ([], "CANCELLED", "interrupted", 0, "Slurm: CANCELLED; log: {0}/3.log"),
        (["interrupted"], "NODE_FAIL", "interrupted", 1.0, "at step 5; Slurm: NODE_FAIL; log: {0}/3.log"),
        ([], "UNKNOWN", "interrupted", 0, "Slurm: UNKNOWN; log: {0}/3.log"),
    ],
)
def test_what_a_job_did_not_note_itself_slurm_tells(
    noted: list[str], state: str, status: str, minutes: float, error: str | None, tmp_path: Path
) -> None:
    from birthplace_lm.cli.slurm_tasks import SlurmTask

    rows = [{"status": word, "minutes": i + 1.0} for i, word in enumerate(noted)]
    rows = [{**row, "error": "at step 5"} if row["status"] == "interrupted" else row for row in rows]
    if rows:
        (tmp_path / "3.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = SlurmTask(3, ["seed=3"], tmp_path, state=state)
    task.close()
    assert task.row.pop("error", None) == (error.format(tmp_path) if error else None)
    assert task.row == {"overrides": ["seed=3"], "status": status, "minutes": minutes}


def test_a_job_whose_data_only_the_nodes_see_is_sent_all_the_same(tmp_path: Path) -> None:
    from birthplace_lm.cli.slurm_tasks import SlurmTask

    of_files = [override for override in TINY if not override.startswith("data.")]
    for tiny, source, sent in (
        (of_files, ["data=cs224n", "data.dir=/only/on/the/nodes"], True),
        (TINY, ["data.people=-1"], False),
    ):
        task = SlurmTask(3, source, tmp_path / "base")
        task.look({**plain(composed(*tiny, f"paths.runs={tmp_path}", *source)), "choices": {}}, ())
        assert (task.base / "3.yaml").is_file() is sent and ("error" in task.row) is not sent and task.run is None
        (task.base / "3.yaml").unlink(missing_ok=True)


def test_a_folder_of_another_run_is_no_finished_job(tmp_path: Path) -> None:
    from birthplace_lm.cli.slurm_tasks import SlurmTask

    tiny_run(tmp_path, "name=mine")
    for seed, status in ((0, "skipped"), (7, "failed")):
        overrides = ["name=mine", f"seed={seed}", f"paths.runs={tmp_path}"]
        task = SlurmTask(3, overrides, tmp_path / "base")
        task.look({**plain(composed(*TINY, *overrides)), "choices": {"attention": "vanilla"}}, ())
        assert task.row["status"] == status
    assert "holds another run" in task.row["error"] and "seed: 7 here, 0 there" in task.row["error"]


def looked_at(folder: Path, *overrides: str, number: int = 3, base: str = "base") -> "SlurmTask":
    from birthplace_lm.cli.slurm_tasks import SlurmTask

    shown = [*overrides, f"paths.runs={folder}"]
    task = SlurmTask(number, shown, folder / base)
    of_files = any(override.startswith("data=") for override in overrides)
    tiny = [override for override in TINY if not (of_files and override.startswith("data."))]
    task.look({**plain(composed(*tiny, *shown)), "choices": {"attention": "vanilla"}}, ())
    return task


def test_a_finished_run_is_sent_again_only_for_what_is_left(tmp_path: Path) -> None:
    tiny_run(tmp_path, "name=mine", "stages=[finetune]")
    assert looked_at(tmp_path, "name=mine", "stages=[finetune]").row["status"] == "skipped"
    assert not looked_at(tmp_path, "name=mine", "stages=[finetune,evaluate]").row
    tiny_run(tmp_path, "name=mine", "stages=[finetune,evaluate]")
    assert looked_at(tmp_path, "name=mine", "stages=[finetune,evaluate]").row["status"] == "skipped"
    assert not looked_at(tmp_path, "name=mine", "stages=[finetune,evaluate]", "logger=tensorboard").row  # is not told


def test_a_record_that_cannot_be_read_is_its_own_jobs_failure(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "name=mine")
    for damage in ("[]", '{"scored"', '{"dev": 3}', '{"scored": 7}'):
        (run.root / "metrics.json").write_text(damage)
        row = looked_at(tmp_path, "name=mine").row
        assert row["status"] == "failed" and "metrics.json" in row["error"]


def test_a_job_that_waits_already_is_found_by_its_run_or_by_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its settings where only the nodes see the data, so that here nobody can say which run it is."""
    from birthplace_lm.cli import slurm_tasks
    from birthplace_lm.cli.tasks import note_sweep

    elsewhere = ("data=cs224n", "data.dir=/only/on/the/nodes")
    cases = {4: ("seed=4",), 5: ("seed=5",), 6: ("seed=6", *elsewhere), 7: ("seed=7", *elsewhere)}
    first = [looked_at(tmp_path, *overrides, number=number, base="first") for number, overrides in cases.items()]
    assert [task.job is None for task in first] == [False, False, True, True]
    note_sweep(tmp_path / "first", first, "77")
    monkeypatch.setattr(slurm_tasks, "waiting_or_running", lambda: {("77", 4), ("77", 6)})
    earlier = slurm_tasks.left_behind(tmp_path)
    (tmp_path / "first" / "7.yaml").write_text("a: [")  # of a task that has ended; nobody needs it
    again = [looked_at(tmp_path, *overrides, number=0, base=f"again{number}") for number, overrides in cases.items()]
    assert [earlier.get(task.key) for task in again] == [
        ("77", 4, tmp_path / "first"), None, ("77", 6, tmp_path / "first"), None
    ]  # fmt: skip


def test_a_job_that_was_asked_for_less_is_not_what_is_asked_for_now(tmp_path: Path) -> None:
    for stages, status in (("stages=[finetune]", "done"), ("stages=[finetune,evaluate]", "interrupted")):
        task = looked_at(tmp_path, "name=mine", stages, base=stages)
        base = tmp_path / "earlier"
        base.mkdir(exist_ok=True)
        (base / "8.jsonl").write_text(json.dumps({"status": "done", "minutes": 1.0}) + "\n")
        task.take_over("77", 8, base)
        tiny_run(tmp_path, "name=mine", "stages=[finetune]")
        task.state = "COMPLETED"
        task.close()
        assert task.row["status"] == status
    assert "asked for less; the same command again does the rest" in task.row["error"]


def test_the_last_word_of_a_job_that_was_queued_again_is_waited_for(tmp_path: Path) -> None:
    """Another machine writes it, and it may come to be seen here after Slurm knows that the job is through."""
    from birthplace_lm.cli.slurm_tasks import SlurmTask

    record = tmp_path / "3.jsonl"
    record.write_text(json.dumps({"status": "interrupted", "minutes": 1.0, "error": "x"}) + "\n")
    task = SlurmTask(3, ["seed=3"], tmp_path, state="COMPLETED")
    late = Timer(0.5, lambda: record.open("a").write(json.dumps({"status": "done", "minutes": 2.0}) + "\n"))
    late.start()
    task.close()
    late.join()
    assert task.row == {"overrides": ["seed=3"], "status": "done", "minutes": 3.0}


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"before": "module load cuda"}, r"before is 'module load cuda': a list of shell lines"),
        ({"before": [3]}, r"before is \[3\]"),
        ({"before": None}, "before is None: a list of shell lines"),
        ({"requeues": "often"}, "requeues is often: a whole number"),
        ({"warning_seconds": 0}, "warning_seconds is 0: a whole number is needed, 1 or more"),
        ({"parallel": 0}, "parallel is 0"),
        ({"poll_seconds": None}, "poll_seconds is None: a number above 0"),
    ],
)
def test_wishes_are_looked_at_before_anything_is_submitted(wish: dict[str, Any], told: str) -> None:
    fine: dict[str, Any] = {
        "before": ["module load cuda"], "parallel": None, "requeues": 3, "warning_seconds": 90, "poll_seconds": 0.5,
    }  # fmt: skip
    check_wishes(**fine)
    with pytest.raises(ConfigError, match=told):
        check_wishes(**{**fine, **wish})


def test_without_slurm_one_line_says_so(tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        environment = {**os.environ, "PATH": str(tmp_path)}
        done = subprocess.run([*TRAIN, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and not done.stdout
        (line,) = done.stderr.splitlines()
        return line

    assert "needs Slurm, and sbatch and squeue cannot be found" in said(*SWEEP)
    assert "add --multirun (-m)" in said("hydra/launcher=slurm", "seed=1")


# ----------------------------------------------------------------------------------------- a real Slurm


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which commands find a Slurm that is there for this module alone."""
    if reason := one_node_slurm.why_not():
        pytest.skip(f"no Slurm of one node: {reason}")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        yield {**os.environ, **one_node_slurm.start(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finally:
        for process in _begun:
            process.kill()
        one_node_slurm.stop(folder)


SLOW = """
import os, time
if "SLURM_JOB_ID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ:
    from birthplace_lm.checkpoints import CheckpointEvery
    original = CheckpointEvery.on_train_batch_end
    def slowly(*arguments):
        time.sleep(1.5)
        original(*arguments)
    CheckpointEvery.on_train_batch_end = slowly
"""


@pytest.fixture(scope="module")
def slowed(cluster: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the 40 steps of a job's first attempt take a minute."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "sitecustomize.py").write_text(SLOW)
    return {**cluster, "PYTHONPATH": f"{folder}:{ROOT}"}


def begin(folder: Path, environment: dict[str, str], *overrides: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen([*TRAIN, *SWEEP, *overrides], cwd=folder, env=environment, text=True, **pipes)
    _begun.append(process)
    return process


def sweep(folder: Path, environment: dict[str, str], *overrides: str) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """Exit code, output and rows (by the last override) of a sweep."""
    return ended(begin(folder, environment, *overrides), folder)


def ended(process: subprocess.Popen[str], folder: Path) -> tuple[int, str, dict[str, dict[str, Any]]]:
    out, _ = process.communicate(timeout=200)
    record = max((folder / "runs" / ".sweeps").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    return process.returncode, out, {row["overrides"][-1]: row for row in rows}


def until_step(folder: Path, step: int) -> None:
    """Wait until the one run of a folder has done so many steps."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for history in folder.glob("runs/*/finetune/metrics.csv"):
            if f"\n{step}," in history.read_text():
                return
        time.sleep(0.1)
    raise AssertionError(f"no step {step} in {folder}: {[log.read_text() for log in folder.rglob('*.log')]}")


def weights(folder: Path, seed: int) -> bytes:
    (file,) = folder.glob(f"runs/*-s{seed}-*/finetune/weights.safetensors")
    return file.read_bytes()


def logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("runs/.sweeps/*/*.log")))


@pytest.fixture(scope="module")
def out_of_time(slowed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.Popen[str], Path]:
    """A sweep whose job has a minute; other tests go on meanwhile.

    Slurm looks at the clock every half minute, and then looks half a minute ahead: the warning comes after 20 to 50 s.
    """
    folder = tmp_path_factory.mktemp("time") / "with a space"
    limits = [
        "hydra.launcher.sbatch.time=1",
        "hydra.launcher.warning_seconds=10",
        "hydra.launcher.sbatch.partition=high",
    ]
    return begin(folder, slowed, *limits, "seed=1"), folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, cluster: dict[str, str]) -> Path:
    """Seeds 0 and 1 without a cluster."""
    folder = tmp_path_factory.mktemp("local")
    command = [*TRAIN, "-m", *RUN, "seed=0,1"]
    subprocess.run(command, cwd=folder, env=cluster, check=True, capture_output=True, timeout=200)
    return folder


@pytest.mark.slow
def test_a_sweep_is_one_array_and_the_same_command_does_what_is_left(
    out_of_time: Any, cluster: dict[str, str], uninterrupted: Path, tmp_path: Path
) -> None:
    jobs = [
        "finetune.epochs=2",
        "stages=[finetune,evaluate]",
        "hydra.launcher.parallel=3",
        "seed=0",
        "finetune.optimizer.lr=1e-3,1e-4,1e-5,1e38",
    ]
    code, out, rows = sweep(tmp_path, cluster, *jobs)
    assert code == 1 and sorted(row["status"] for row in rows.values()) == ["done", "done", "done", "failed"], out
    assert "4 jobs submitted" in out and "3 done, 1 failed; noted in" in out
    assert "NonFiniteLossError" in rows["finetune.optimizer.lr=1e+38"]["error"]
    assert re.search(r"\d+ running", out) and out.count("Slurm array") == 1
    assert "--array=0-3%3" in directives(next(tmp_path.glob("runs/.sweeps/*/array.sh")).read_text())
    code, out, rows = sweep(tmp_path, cluster, *jobs)
    assert code == 1 and "1 jobs submitted" in out and "3 skipped, 1 failed; noted in" in out, out


@pytest.mark.slow
def test_a_preempted_job_goes_on_where_it_was_and_ends_with_the_same_bits(
    out_of_time: Any, slowed: dict[str, str], uninterrupted: Path, tmp_path: Path
) -> None:
    process = begin(tmp_path, slowed, "hydra.launcher.sbatch.cpus_per_task=2", "seed=0")
    until_step(tmp_path, 2)
    urgent = ["srun", "--partition=high", f"--ntasks={one_node_slurm.CPUS - 1}", "true"]  # one CPU too many
    subprocess.run(urgent, env=slowed, check=True, capture_output=True, timeout=60)
    code, out, rows = ended(process, tmp_path)
    assert code == 0 and rows["seed=0"]["status"] == "done", out + logs(tmp_path)
    assert re.search(r"going on from step_0*[2-9]\d*\.ckpt", logs(tmp_path)) and "PREEMPTION" in logs(tmp_path)
    assert weights(tmp_path, 0) == weights(uninterrupted, 0)
    (run,) = tmp_path.glob("runs/*-s0-*")
    assert run.name in {path.name for path in uninterrupted.glob("runs/*")}


@pytest.mark.slow
def test_ctrl_c_leaves_the_jobs_which_the_same_command_finds_and_scancel_saves(
    out_of_time: Any, slowed: dict[str, str], cluster: dict[str, str], tmp_path: Path
) -> None:
    process = begin(tmp_path, slowed, "seed=3")
    until_step(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    told = re.findall(r"^  (scancel '\d+_\[0\]')$", out, flags=re.MULTILINE)
    assert len(told) == 1, out
    assert process.returncode == 130 and "1 jobs go on without this command" in out and "Traceback" not in out
    process = begin(tmp_path, cluster, "seed=3")
    assert process.stdout and "1 pending" in process.stdout.readline()  # nothing is submitted
    subprocess.run(told[0], shell=True, env=cluster, check=True, timeout=30)
    code, out, rows = ended(process, tmp_path)
    row = rows["seed=3"]
    assert code == 1 and row["status"] == "interrupted" and "jobs submitted" not in out
    assert re.search(r"finetune stopped at step \d+.*; Slurm: CANCELLED; log: .*/0\.log$", row["error"]), row
    here = subprocess.run(
        [*TRAIN, *RUN, "seed=3"], cwd=tmp_path, env=cluster, capture_output=True, text=True, timeout=200
    )
    assert here.returncode == 0 and "finetune: going on from step_" in here.stdout and "finetune: done" in here.stdout


@pytest.mark.slow
def test_a_job_that_dies_without_a_word_is_in_the_table(cluster: dict[str, str], tmp_path: Path) -> None:
    code, out, rows = sweep(tmp_path, cluster, "hydra.launcher.before=['kill -9 $$']", "seed=0")
    assert code == 1 and rows["seed=0"]["status"] == "failed" and "Slurm: FAILED; log: " in out.replace("\n", " ")


@pytest.mark.slow
def test_two_tasks_are_two_ranks_of_one_run(cluster: dict[str, str], tmp_path: Path) -> None:
    ranks = ["trainer=ddp", "hydra.launcher.sbatch.ntasks_per_node=2", "finetune.epochs=2"]
    code, out, rows = sweep(tmp_path, cluster, *ranks, "seed=0")
    assert code == 0 and rows["seed=0"]["status"] == "done", out + logs(tmp_path)
    (run,) = tmp_path.glob("runs/run-*")
    (session,) = json.loads((run / "provenance.json").read_text())["sessions"]
    assert session["hardware"]["processes"] == 2 and session["command"][-1] == "seed=0"
    (record,) = tmp_path.glob("runs/.sweeps/*/0.jsonl")
    assert len(record.read_text().splitlines()) == 1  # rank 0 notes for both


@pytest.mark.slow
def test_what_slurm_refuses_is_told_in_its_words(
    cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])
    refusals = {
        "partition": ("nope", "invalid partition"),
        "time": ("soon", "Invalid --time"),
        "gres": ("gpu:1", "gres"),
    }
    for option, (value, answer) in refusals.items():
        file = tmp_path / "array.sh"
        file.write_text(written(tmp_path, **{option: value}))
        with pytest.raises(SlurmError, match=rf"(?i)Slurm takes no array: .*{answer}.*; the script is {file}"):
            submit(file)
    code, out, _ = sweep(tmp_path, cluster, "hydra.launcher.sbatch.partition=nope", "seed=0")
    assert code == 2 and "error: Slurm takes no array: invalid partition" in out and "Traceback" not in out


@pytest.mark.slow
def test_without_the_launcher(cluster: dict[str, str], tmp_path: Path) -> None:
    """The sbatch file for one run, srun and torchrun in an sbatch of one's own, all at the same time."""
    path = f"{Path(sys.executable).parent}:{cluster['PATH']}"
    plain = ["-m", "birthplace_lm", *RUN, "finetune.epochs=2"]
    starts = [
        [str(CONFIGS / "hydra" / "launcher" / "train.sbatch"), *plain[2:], "name=sbatch"],
        ["--wrap", " ".join(["srun", "python", *plain, "name=srun"])],
        ["--wrap", " ".join(["torchrun", "--nproc-per-node=1", *plain, "name=torchrun"])],
    ]
    for start in starts:
        command = ["sbatch", "--cpus-per-task=1", "--job-name=alone", *start]
        subprocess.run(
            command, env={**cluster, "PATH": path}, cwd=tmp_path, check=True, capture_output=True, timeout=30
        )
    queue = ["squeue", "--noheader", "--states=all", "--format=%T", "--name=alone"]
    ends: list[str] = []
    until = time.monotonic() + 200
    while not (ends and set(ends) <= slurm_queue.ENDED) and time.monotonic() < until:
        time.sleep(0.5)
        ends = subprocess.run(queue, env=cluster, capture_output=True, text=True, check=True).stdout.split()
    said = "".join(path.read_text() for path in tmp_path.glob("*.*"))
    assert ends == ["COMPLETED"] * 3, said
    results = {file.parts[-3]: file.read_bytes() for file in tmp_path.glob("runs/*/finetune/weights.safetensors")}
    assert set(results) == {"sbatch", "srun", "torchrun"} and len(set(results.values())) == 1


@pytest.mark.slow
def test_a_job_out_of_time_is_queued_again_and_ends_with_the_same_bits(
    out_of_time: tuple[subprocess.Popen[str], Path], uninterrupted: Path
) -> None:
    code, out, rows = ended(*out_of_time)
    said = logs(out_of_time[1])
    assert code == 0 and rows["seed=1"]["status"] == "done", out + said
    assert "SIGUSR1: saving after this step" in said and "out of time: queued again, restart 1 of at most 20" in said
    assert "going on from step_" in said and weights(out_of_time[1], 1) == weights(uninterrupted, 1)
