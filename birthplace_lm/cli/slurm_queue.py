"""What Slurm's own commands are asked: to take an array, and what has become of its tasks."""

import os
import re
import shutil
import subprocess
from pathlib import Path

# States that a task does not leave. A task that is preempted, out of time or on a node that failed, and is queued
# again, is PENDING in the same moment.
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
_PATIENCE = 60  # seconds that a command may take: a busy controller is slow, but not silent


class SlurmError(RuntimeError):
    """Slurm is not there or refuses what it was asked, with its own words."""


def check_there() -> None:
    """Raise SlurmError where there are no Slurm commands."""
    if missing := [name for name in ("sbatch", "squeue") if not shutil.which(name)]:
        raise SlurmError(
            f"hydra/launcher=slurm needs Slurm, and {' and '.join(missing)} cannot be found: give the command on a "
            "login node of a cluster, or leave hydra/launcher away: then the jobs run here"
        )


def submit(script: Path) -> str:
    """Hand over a batch script; the number of the array."""
    # What a surrounding job was given (memory, tasks) would be taken for wishes of the new one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
    done = _ask(["sbatch", "--parsable", str(script)], environment)
    number = done.stdout.strip().split(";")[0]
    if done.returncode or not number.isdigit():
        said = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines() if line.strip()]
        raise SlurmError(f"Slurm takes no array: {'; '.join(said) or done.stdout}; the script is {script}")
    return number


def states(array: str) -> dict[int, str] | None:
    """The state of each task that Slurm knows of; None when it does not answer now.

    Slurm forgets an ended task after some minutes (MinJobAge); then its accounting is asked, where there is one.
    """
    done = _ask(["squeue", "--noheader", "--array", "--states=all", f"--jobs={array}", "--format=%K|%T"])
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    return _accounted(array) | _pairs(done.stdout, r"(\d+)\|(\w+)")


def waiting_or_running() -> set[tuple[str, int]]:
    """(array, task) of all of this user's tasks that have not ended; raises SlurmError when Slurm does not answer."""
    done = _ask(["squeue", "--noheader", "--me", "--array", "--format=%F|%K"])
    if done.returncode:
        raise SlurmError(f"Slurm does not answer: {done.stderr.strip()}")
    return {(array, int(task)) for array, task in re.findall(r"^(\d+)\|(\d+)$", done.stdout, flags=re.MULTILINE)}


def _accounted(array: str) -> dict[int, str]:
    if not shutil.which("sacct"):
        return {}
    command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={array}", "--format=JobID,State"]
    return _pairs(_ask(command).stdout, rf"{array}_(\d+)\|(\w+)")


def _pairs(text: str, pattern: str) -> dict[int, str]:
    return {int(task): state for task, state in re.findall(rf"^{pattern}", text, flags=re.MULTILINE)}


def _ask(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer for {_PATIENCE} seconds")
