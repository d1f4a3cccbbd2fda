"""Tasks carried out by processes of this machine, as many at a time as there are cores for."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from birthplace_lm.cli.board import Board
from birthplace_lm.cli.children import PATIENCE, paused_together, signals_passed_on, start, tell
from birthplace_lm.cli.ranks import INTERRUPTED
from birthplace_lm.cli.sweeps import RECORD, add_row
from birthplace_lm.cli.tasks import Task
from birthplace_lm.ranks import wanted_ranks

_POLL_SECONDS = 0.1


def share(settings: Mapping[str, Any], jobs: int, cores: int, parallel: int | None) -> int:
    """How many of the cores one of a sweep's jobs is for, where at most `parallel` run at once.

    What runs on a GPU has all. What says its threads or has several ranks has as many as these want; a thread each is
    enough for the others, unless the sweep has fewer jobs than there are cores.
    """
    if parallel:
        return max(cores // min(parallel, jobs), 1)
    if settings["trainer"]["accelerator"] != "cpu":
        return cores
    wanted = wanted_ranks(settings["trainer"]) * (settings["threads"] or 1)
    return min(max(wanted, cores // jobs, 1), cores)


@dataclass
class Working:
    """A task at work in a process, which has so many of the cores and began then by the monotonic clock.

    One that may have others `beside` it writes to its log, another one to the terminal.
    """

    task: Task
    process: subprocess.Popen[bytes]
    cores: int
    began: float
    beside: bool

    def row(self, stopped: bool) -> dict[str, Any]:
        """What became of it, now that the process has ended; `stopped` if it was told to."""
        noted, status = self.task.noted(), self.process.returncode
        row = noted[-1] if noted else {"status": "interrupted" if stopped else "failed"}
        row = {"minutes": (time.monotonic() - self.began) / 60, **row, "overrides": self.task.overrides}
        if row["status"] not in ("done", "skipped"):
            ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            log = f"; log: {self.task.log}" if self.beside else ""
            row["error"] = row.get("error", f"its process {ended}") + log
        return row


class SideBySide:
    """Carries out tasks in their order. `look` composes one, has it look at its run, and returns its settings.

    At most `parallel` at once; None: as many as `cores` are for. Tasks of one run wait for each other.
    """

    def __init__(
        self, tasks: Sequence[Task], look: Callable[[Task], Mapping[str, Any]], parallel: int | None, cores: int
    ) -> None:
        self.waiting, self.look, self.parallel, self.cores = list(tasks), look, parallel, cores
        self.jobs = len(self.waiting)
        self.working: list[Working] = []
        self.processes: list[subprocess.Popen[bytes]] = []  # those of `working`, for whom signals are passed on
        self.board = Board({task.number: task.overrides for task in tasks})
        self.cores_of_next: int | None = None  # those of the first that waits, once it was looked at

    def run(self) -> None:
        """Until all have ended, each noted as it ends; after a signal exits with status 130, when all at work saved."""
        with signals_passed_on(self.processes) as received, paused_together(self.processes), self.board:
            try:
                while self.working or (self.waiting and not received):
                    while self.waiting and not received and self._begin(received):
                        pass
                    self._end(stopped=bool(received))
                    self.board.show(self.working, len(self.waiting), stopping=bool(received))
                    time.sleep(_POLL_SECONDS)
            except BaseException:
                self._give_up()
                raise
        if received:
            sys.exit(INTERRUPTED)

    def _begin(self, received: Sequence[int]) -> bool:
        """Start the first that waits if there is room for it, or note what there is to say without that; else False.

        It is not looked at before: an earlier job of the sweep may make what it starts from.
        """
        if not self._has_room(1):
            return False
        task = self.waiting[0]
        if self.cores_of_next is None:
            settings = self.look(task)
            if not task.row:
                with task.failing():
                    self.cores_of_next = share(settings, self.jobs, self.cores, self.parallel)
        if self.cores_of_next is None:
            self._note(self.waiting.pop(0), task.row)
            return True
        shared = task.run and task.run in {work.task.run for work in self.working}
        if received or shared or not self._has_room(self.cores_of_next):
            return False
        cores, self.cores_of_next = self.cores_of_next, None
        beside = cores < self.cores or min(self.parallel or 1, self.jobs) > 1
        work = Working(self.waiting.pop(0), _started(task, cores if beside else None), cores, time.monotonic(), beside)
        self.working.append(work)
        self.processes.append(work.process)
        if received:  # while it was being started
            tell(work.process, received[-1])
        self.board.begun(work)
        return True

    def _has_room(self, cores: int) -> bool:
        """For one more that has so many cores."""
        if self.parallel:
            return len(self.working) < self.parallel
        return not self.working or sum(work.cores for work in self.working) + cores <= self.cores

    def _give_up(self) -> None:
        """After an error of ours: what is at work notices that nobody waits, saves, and is noted."""
        for process in self.processes:
            process.stdin.close()  # type: ignore[union-attr]
        until = time.monotonic() + 2 * PATIENCE
        while self.working and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            self._end(stopped=True)

    def _end(self, stopped: bool) -> None:
        for work in [work for work in self.working if work.process.poll() is not None]:
            self.working.remove(work)
            self.processes.remove(work.process)
            self._note(work.task, work.row(stopped))

    def _note(self, task: Task, row: dict[str, Any]) -> None:
        add_row({"number": task.number, **row})
        self.board.ended(task, row, self.working, len(self.waiting))


def _started(task: Task, cores: int | None) -> subprocess.Popen[bytes]:
    """The process of a task, with a log and so many cores; None: with the terminal and all that it finds."""
    job = ("birthplace_lm.cli.job", [str(task.settings_file), "--ends-with-starter"])
    environment = {**os.environ, **task.environment, RECORD: str(task.record)}
    if cores is None:
        return start(*job, environment, None, None)
    said = environment.get("OMP_NUM_THREADS", "")
    environment["OMP_NUM_THREADS"] = str(min(int(said), cores) if said.isdecimal() else cores)
    with task.log.open("wb") as log:
        return start(*job, environment, log, subprocess.STDOUT)
