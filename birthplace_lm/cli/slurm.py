"""hydra/launcher=slurm: a sweep as one Slurm array, watched until it ends.

What is submitted is a batch script that one can read, and a configuration file for each job, in runs/.sweeps/<sweep>/.
submitit, which Hydra's Slurm launcher is made of, pickles the job instead: loading such a file runs what it holds, and
its way of requeueing takes a signal and a state of its own. Here a job is a plain command, a requeue is that command
again, and the same command again goes on where the run stopped, as everywhere in this package. Nothing to install.
"""

import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from birthplace_lm.cli.launching import TaskLauncher
from birthplace_lm.cli.slurm_batch import check_wishes, ranges, script
from birthplace_lm.cli.slurm_queue import ENDED, SlurmError, check_there, states, submit
from birthplace_lm.cli.sweeps import add_row
from birthplace_lm.composing import ConfigError
from birthplace_lm.stopping import in_terminal

if TYPE_CHECKING:
    from birthplace_lm.cli.slurm_tasks import SlurmTask


class SlurmSweep(TaskLauncher):
    """Submits the jobs of a sweep that are not finished, waits for them, and notes how each ended.

    `sbatch` holds options of that command by their own names (underscores for dashes), `before` shell lines that a job
    begins with. At most `parallel` jobs run at once. `warning_seconds` before its time is over a job saves and is
    queued again, until it was restarted `requeues` times. The states are looked at every `poll_seconds`.
    A job that an earlier command left in the queue is waited for, not submitted twice.
    """

    def __init__(
        self,
        sbatch: Mapping[str, Any],
        before: Sequence[str],
        parallel: int | None,
        requeues: int,
        warning_seconds: int,
        poll_seconds: float,
    ) -> None:
        self.sbatch, self.before = dict(sbatch), before
        self.parallel, self.requeues = parallel, requeues
        self.warning_seconds, self.poll_seconds = warning_seconds, poll_seconds

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See `TaskLauncher`; without a Slurm one line says so."""
        try:
            check_there()
            from birthplace_lm.cli.errors import in_plain_words  # which brings torch, so not before there is something

            with in_plain_words():
                return super().launch(job_overrides, initial_job_idx)
        except SlurmError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    def carry_out(self, job_overrides: Sequence[list[str]], folder: Path, first: int) -> None:
        """Submit what nobody has submitted and wait until all have ended; an array counts its tasks from 0."""
        from birthplace_lm.cli.slurm_tasks import SlurmTask, left_behind

        check_wishes(self.before, self.parallel, self.requeues, self.warning_seconds, self.poll_seconds)
        tasks = [SlurmTask(number, overrides, folder) for number, overrides in enumerate(job_overrides)]
        for task in tasks:
            self.look_at(task, first + task.number)
            if task.environment:
                raise ConfigError("hydra.job.env_set: say it to Slurm by hydra.launcher.before=['export NAME=VALUE']")
        earlier = left_behind(folder.parent)
        for task in tasks:
            if not task.row and (found := earlier.get(task.key)):
                task.take_over(*found)
        self._submit([task for task in tasks if not task.row and not task.array], folder)
        self._wait(tasks, first)

    def _submit(self, tasks: list["SlurmTask"], folder: Path) -> None:
        from birthplace_lm.cli.tasks import note_sweep

        if not tasks:
            return
        file = folder / "array.sh"
        numbers = [task.number for task in tasks]
        text = script(folder, numbers, self.sbatch, self.before, self.parallel, self.requeues, self.warning_seconds)
        file.write_text(text, encoding="utf-8")
        note_sweep(folder, tasks)
        array = submit(file)
        note_sweep(folder, tasks, array)
        for task in tasks:
            task.array = array
        print(f"Slurm array {array}: {len(tasks)} jobs submitted by {file}", flush=True)

    def _wait(self, tasks: list["SlurmTask"], first: int) -> None:
        """Until every job has ended; each is noted as it ends, so that an interrupted command has a table, too."""
        for task in tasks:
            if task.row:
                add_row({"number": first + task.number, **task.row})
        waiting = [task for task in tasks if not task.row]
        said = ""
        with _interrupts() as interrupts:
            while waiting and not interrupts:
                said = _tell(tasks, said)
                until = time.monotonic() + self.poll_seconds
                while not interrupts and (left := until - time.monotonic()) > 0:
                    time.sleep(min(left, 0.1))
                waiting = _end(waiting, first)
        _tell(tasks, said)
        print(end="\n" if in_terminal() else "")
        if waiting:
            print(
                f"{len(waiting)} jobs go on without this command, and the same command again waits for them. "
                f"To cancel them, saved as they then are:\n  scancel {_names(waiting)}",
                flush=True,
            )
            sys.exit(130)


class SweepsOnly(Callback):
    """Refuses single runs: Hydra carries these out by itself, here and now, which is not what was asked for."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        print("error: hydra/launcher=slurm is for sweeps, also of one job: add --multirun (-m)", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C as an entry of a list to be looked at, where an exception is lost that comes in a destructor, say.

    A second one is raised as ever.
    """
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        if came:
            signal.default_int_handler(number, frame)
        came.append(number)

    former = signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, former)


def _end(waiting: list["SlurmTask"], first: int) -> list["SlurmTask"]:
    """Ask for the states, note the jobs that have ended; those that go on."""
    known = {array: states(array) for array in {task.array for task in waiting}}
    for task in waiting:
        found = known[task.array]
        task.state = "WITHOUT NEWS, AS SLURM DOES NOT ANSWER" if found is None else found.get(task.number, "UNKNOWN")
        if task.state in ENDED or task.state == "UNKNOWN":
            task.close()
            add_row({"number": first + task.number, **task.row})
    return [task for task in waiting if not task.row]


def _tell(tasks: list["SlurmTask"], said: str) -> str:
    """Print how many jobs are in which state, if that is another sentence than the one said last; the sentence."""
    counts = Counter(task.row["status"] if task.row else task.state.lower() for task in tasks)
    text = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    ends = [end for task in tasks if not task.row and task.state == "RUNNING" and (end := task.ends())]
    live = in_terminal()
    from birthplace_lm.report.progress import clock

    if live or text != said:
        time_left = f"; the last that runs ends about {clock(max(ends))}" if ends else ""
        print(f"\r\033[K{text}{time_left}" if live else f"{text}{time_left}", end="" if live else "\n", flush=True)
    return text


def _names(tasks: list["SlurmTask"]) -> str:
    """Tasks as scancel takes them from a shell: '12_[0-3,7]'."""
    arrays = sorted({task.array for task in tasks})
    return " ".join(f"'{a}_[{ranges([task.number for task in tasks if task.array == a])}]'" for a in arrays)
