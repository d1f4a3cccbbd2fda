"""Several processes train one run: the same curve, one folder, and nobody left waiting whoever fails."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from birthplace_lm.checkpoints import CheckpointEvery
from birthplace_lm.cli.children import signals_passed_on
from birthplace_lm.composing import ConfigError
from birthplace_lm.data_parallel import Group
from birthplace_lm.history import read_history
from birthplace_lm.identity import run_name
from birthplace_lm.ranks import Rank, RankError, own_rank, wanted_ranks
from birthplace_lm.runs import RunFolder, read_json
from birthplace_lm.stages import run
from birthplace_lm.stopping import UnfinishedError
from birthplace_lm.world import World
from tests.test_configs import composed, settings
from tests.test_stages import TINY, _reached, assert_same, final_state

# 30 examples an epoch in batches of 7, 14 questions in batches of 13: the last ones are of 2 and of 1, so that a rank
# of two has one example or none. Without dropout, whose masks are a rank's own.
RECIPE = [
    *TINY, "model.dropout=0", "threads=1", "stages=[pretrain,finetune]", "pretrain.epochs=8", "pretrain.batch_size=7",
    "finetune.epochs=8", "finetune.batch_size=13", "data.train_share=0.6", "checkpoint.every_n_steps=1",
    "trainer.gradient_clip_val=0.8",
]  # fmt: skip
PROGRAM = [sys.executable, "-m", "birthplace_lm", *RECIPE]
SECONDS = 120.0  # after which a test ends its processes


def environment(**more: str) -> dict[str, str]:
    """This one, in which nobody was started as a rank and the package is that of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "MASTER_"))}
    root = Path(__file__).resolve().parents[1]
    return {**kept, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **more}


@contextmanager
def started(folder: Path, command: Sequence[str], **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a folder and a session of its own; what it wrote is in `out`, and at the end all of it is gone."""
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(**more), stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        ranks = children(process.pid)
        for pid in (-process.pid, *ranks):
            with_pid_gone(pid)
        process.wait()


def with_pid_gone(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def children(pid: int) -> list[int]:
    rows = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(row.split()[0]) for row in rows.splitlines() if int(row.split()[1]) == pid]


def finish(folder: Path, *overrides: str, command: Sequence[str] = PROGRAM, **more: str) -> tuple[int, str]:
    """Status and output of a command that ends by itself."""
    with started(folder, [*command, *overrides], **more) as process:
        status = process.wait(SECONDS)
    return status, (folder / "out").read_text()


def alone(folder: Path, *overrides: str) -> RunFolder:
    """The same run in this process."""
    choices = {"attention": "vanilla", "positions": "learned"}
    return run(composed(*RECIPE, f"paths.runs={folder / 'runs'}", *overrides), choices).folder


def wait_for_step(process: subprocess.Popen[bytes], folder: Path, stage: str, step: int) -> None:
    until = time.monotonic() + SECONDS
    while _reached(folder / "runs", stage) < step:
        assert process.poll() is None and time.monotonic() < until, (folder / "out").read_text()
        time.sleep(0.005)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every history of a run, by stage and name."""
    (root,) = (path for path in (folder / "runs").iterdir() if (path / "config.yaml").is_file())
    stages = ("pretrain", "finetune")
    return {f"{s}/{name}": curve for s in stages for name, curve in read_history(root / s / "metrics.csv").items()}


def assert_like(one: dict[str, list[tuple[int, float]]], other: dict[str, list[tuple[int, float]]]) -> None:
    """The same rows, their values as near as sums in another order are."""
    assert one.keys() == other.keys()
    for name in one:
        assert [step for step, _ in one[name]] == [step for step, _ in other[name]]
        assert [v for _, v in one[name]] == pytest.approx([v for _, v in other[name]], rel=1e-4, abs=1e-6), name


# --------------------------------------------------------------------------------------------------- who is which rank

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "9",
}
SRUN = {
    "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "70",
    "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "gpu[07-08,12]",
}  # fmt: skip


def test_ranks_are_read_off_the_environment() -> None:
    assert own_rank(4, {}) is None and own_rank(1, {}) is None
    assert own_rank(4, TORCHRUN) == Rank(3, 4, 1, 1, "a", 9)
    found = own_rank(4, SRUN)
    assert found == Rank(3, 4, 1, 1, "gpu07", 15000 + 31 * 70 + 2)
    assert own_rank(4, found.environment()) == found


def test_a_task_of_slurm_is_a_rank_only_where_srun_started_several_of_a_run_that_has_several() -> None:
    assert own_rank(1, SRUN) is None  # several runs side by side
    of_the_batch_script = {name: value for name, value in SRUN.items() if "STEP" not in name} | {"SLURM_PROCID": "0"}
    assert own_rank(4, of_the_batch_script) is None


@pytest.mark.parametrize(("found", "wanted"), [(TORCHRUN, 2), (TORCHRUN, 1), (SRUN, 2)])
def test_more_or_fewer_processes_than_wanted_are_an_error(found: dict[str, str], wanted: int) -> None:
    with pytest.raises(ConfigError, match=f"4 processes were started for this run, but .* is {wanted}: "):
        own_rank(wanted, found)


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"devices": "auto"}, "trainer.devices is 'auto': say how many"),
        ({"devices": 0}, "trainer.devices is 0"),
        ({"devices": [0, 1]}, "say how many"),
        ({"devices": 1, "num_nodes": 0.5}, "trainer.num_nodes is 0.5"),
        ({"devices": 1, "strategy": "fsdp"}, "trainer.strategy is 'fsdp': leave it out"),
    ],
)
def test_settings_that_are_no_number_of_processes_are_refused(trainer: dict[str, Any], message: str) -> None:
    assert wanted_ranks({"devices": 2, "num_nodes": 3}) == 6
    with pytest.raises(ConfigError, match=message):
        wanted_ranks(trainer)


def test_a_process_that_was_started_alone_is_told_who_starts_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"trainer\.devices is 2, but this process was started alone"):
        alone(tmp_path, "trainer=ddp")
    assert not (tmp_path / "runs").exists()


def test_the_number_of_processes_is_not_part_of_a_run_and_the_precision_is() -> None:
    corpus = World(people=20).corpus()
    name = run_name(settings(), corpus)
    for same in (["trainer=ddp"], ["trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2"], ["trainer.devices=3"]):
        assert run_name(settings(*same), corpus) == name
    assert run_name(settings("trainer.precision=bf16-mixed"), corpus) != name


# ---------------------------------------------------------------------------------------------------- the same training


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    alone(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, the folder it was started in."""
    folder = tmp_path_factory.mktemp("two")
    status, out = finish(folder, "trainer=ddp", "stages=[pretrain,finetune,evaluate]")
    assert status == 0, out
    return folder


@pytest.mark.slow
def test_two_processes_have_the_curves_of_one(single: Path, two: Path) -> None:
    expected, found = curves(single), curves(two)
    assert_like(found, expected)
    norms = [norm for _, norm in expected["pretrain/train/gradient_norm"]]
    assert min(norms) < 0.8 < max(norms)  # some steps are clipped, some are not
    names = [next(path.name for path in (f / "runs").iterdir() if path.is_dir()) for f in (single, two)]
    assert names[0] == names[1]


@pytest.mark.slow
def test_the_first_process_alone_writes_and_speaks(two: Path) -> None:
    out = (two / "out").read_text()
    for line in ("run folder:", "pretrain: done", "finetune: done", "exact match on dev"):
        assert out.count(line) == 1
    assert "Warn" not in out and "srun" not in out
    (root,) = (path for path in (two / "runs").iterdir() if path.is_dir())
    (session,) = read_json(root / "provenance.json")["sessions"]
    assert session["hardware"]["processes"] == 2
    assert session["command"][1:] == [*RECIPE, "trainer=ddp", "stages=[pretrain,finetune,evaluate]"]
    assert RunFolder(root).metrics()["pretrain_steps"] == 8 * 5
    assert not (root / "error.txt").exists()


@pytest.mark.slow
def test_whoever_is_killed_nobody_hangs_and_the_same_command_ends_with_the_same_bits(two: Path, tmp_path: Path) -> None:
    said = {
        "rank 1": "error: another process of this run ended without a word",
        "rank 0": "error: rank 0 of 2 was ended by SIGKILL",
        "starter": "SIGUSR1: saving after this step",
    }
    for victim, stage, step in (("rank 1", "pretrain", 3), ("rank 0", "pretrain", 9), ("starter", "finetune", 3)):
        with started(tmp_path, [*PROGRAM, "trainer=ddp"]) as process:
            wait_for_step(process, tmp_path, stage, step)
            ranks = children(process.pid)
            (lock,) = (tmp_path / "runs").glob("*/.lock")
            first = int(lock.read_text())
            (second,) = set(ranks) - {first}
            os.kill({"rank 0": first, "rank 1": second, "starter": process.pid}[victim], signal.SIGKILL)
            status = process.wait(30)
            for rank in ranks:
                wait_until_gone(rank, 30)
        out = (tmp_path / "out").read_text()
        assert said[victim] in out and out.count("error: ") == 1 and "Traceback" not in out, out
        assert status == (-signal.SIGKILL if victim == "starter" else 2)
    status, out = finish(tmp_path, "trainer=ddp", "stages=[pretrain,finetune,evaluate]")
    assert status == 0, out
    assert out.count("pretrain: finished before, skipped") == out.count("finetune: going on from step_") == 1, out
    assert_same(final_state(tmp_path / "runs"), final_state(two / "runs"))


def wait_until_gone(pid: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while str(pid) in subprocess.run(["ps", "-o", "pid=", "-p", str(pid)], capture_output=True, text=True).stdout:
        assert time.monotonic() < until, f"process {pid} is still there"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_goes_on_with_more_processes_and_with_fewer(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CheckpointEvery.on_train_batch_end

    def stop_at_three(self: CheckpointEvery, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == 3:
            self.request()
        original(self, trainer, *arguments)

    monkeypatch.setattr(CheckpointEvery, "on_train_batch_end", stop_at_three)
    with pytest.raises(UnfinishedError, match="pretrain stopped at step 3 of"):
        alone(tmp_path)
    monkeypatch.undo()
    with started(tmp_path, [*PROGRAM, "trainer=ddp", "checkpoint.every_n_steps=null"]) as process:
        wait_for_step(process, tmp_path, "pretrain", 9)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 2
    out = (tmp_path / "out").read_text()
    assert "pretrain: going on from step_00000003.ckpt" in out
    assert out.count("SIGTERM: saving after this step") == out.count("error: pretrain stopped at step") == 1, out
    alone(tmp_path)
    assert_like(curves(tmp_path), curves(single))


# ----------------------------------------------------------------------------------- three who start it, and failures

# Python runs this file of a path when it starts: rank 1 fails in its third step of the sweep's first job.
FAILING = """
import os
if os.environ.get("RANK", os.environ.get("SLURM_PROCID")) == "1":
    from birthplace_lm.checkpoints import CheckpointEvery
    original = CheckpointEvery.on_train_batch_end
    def fail(self, trainer, module, *rest):
        if module.seed == 0 and trainer.global_step == 3:
            raise ValueError("a bug on rank 1")
        original(self, trainer, module, *rest)
    CheckpointEvery.on_train_batch_end = fail
"""
SWEEP = ["-m", *RECIPE, "trainer=ddp", "stages=[finetune]", "seed=0,1"]


def swept_by_srun(folder: Path, **more: str) -> tuple[int, str]:
    """Two processes with what srun tells its tasks."""
    shared = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "localhost", **more}
    command = [sys.executable, "-m", "birthplace_lm", *SWEEP]
    (folder / "second").mkdir()
    paths = f"paths.runs={folder / 'runs'}"
    ranks = [{**shared, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_JOB_ID": str(os.getpid())} for rank in "01"]
    with (
        started(folder, [*command, paths], **ranks[0]) as first,
        started(folder / "second", [*command, paths], **ranks[1]) as second,
    ):
        statuses = first.wait(SECONDS), second.wait(SECONDS)
    assert statuses[1] == 0 and not (folder / "second" / "out").read_text()
    return statuses[0], (folder / "out").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("starter", ["birthplace-train", "torchrun", "srun"])
def test_a_sweep_goes_on_after_a_rank_failed_whoever_started_the_ranks(starter: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[1])])
    if starter == "srun":
        status, out = swept_by_srun(tmp_path, PYTHONPATH=path)
    else:
        by_torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        start = [*(by_torchrun if starter == "torchrun" else []), "-m", "birthplace_lm"]
        status, out = finish(tmp_path, *SWEEP, command=[sys.executable, *start], PYTHONPATH=path)
    assert status == 1 and "1 done, 1 failed" in out, out
    failure = "error: rank 1 of this run failed: ValueError: a bug on rank 1"
    assert out.count("finetune: done") == out.count(failure) == 1, out
    assert starter == "birthplace-train" or out.count("Launching 2 jobs") == 1, out
    (record,) = (tmp_path / "runs" / ".sweeps").glob("*.jsonl")
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed", "done"] and "a bug on rank 1" in rows[0]["error"]
    (note,) = (tmp_path / "runs").glob("*/error.txt")
    assert "in fail" in note.read_text()  # where on rank 1 it happened


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[enforce fail at gloo/transport/tcp/pair.cc] Connection closed by peer"), True),
        (dist.DistNetworkError("the socket was closed"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("no connection between name and place"), False),  # of the data, not of the ranks
        (NotImplementedError("this socket"), False),  # though it is a RuntimeError by birth
    ],
)
def test_an_error_of_ones_own_is_told_from_a_lost_connection(error: Exception, lost: bool) -> None:
    store = dist.HashStore()
    store.set("failure", "rank 1 of this run failed: its own words")
    with pytest.raises(RankError if lost else type(error)) as caught, Group(0, 2, store).failing_together():
        raise error
    assert (str(caught.value) == "rank 1 of this run failed: its own words") == lost
    assert caught.value.__cause__ is (error if lost else None)


def test_ranks_hear_of_an_error_of_ones_own() -> None:
    store = dist.HashStore()
    with pytest.raises(ValueError, match="a bug"), Group(1, 2, store).failing_together():
        raise ValueError("a bug")
    with pytest.raises(RankError, match="rank 1 of this run failed: ValueError: a bug"):
        Group(0, 2, store)._heard("decision 0")


@pytest.mark.parametrize("heard", [True, False])
def test_a_signal_is_passed_on_unless_it_was_ignored_before(heard: bool) -> None:
    sent: list[int] = []
    first: Any = SimpleNamespace(send_signal=sent.append)
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL if heard else signal.SIG_IGN)  # ignored: as under nohup
    try:
        with signals_passed_on([first]) as received:
            signal.raise_signal(signal.SIGHUP)
        assert received == ([signal.SIGHUP] if heard else [])
        assert sent == ([signal.SIGHUP, signal.SIGCONT] if heard else [])  # also one that was stopped
    finally:
        signal.signal(signal.SIGHUP, former)
