"""What a sweep says of itself while its jobs run side by side: a table in a terminal, and a line a job."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from birthplace_lm.cli.sweeps import shared_and_own
from birthplace_lm.durations import duration
from birthplace_lm.report.progress import RunStatus, clock, how_far
from birthplace_lm.stopping import in_terminal, say

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from birthplace_lm.cli.side_by_side import Working
    from birthplace_lm.cli.tasks import Task

_EVERY = 1.0  # seconds between two looks at the runs' files


class Board:
    """Is told what begins and what ends; `jobs` are the overrides of all, by their numbers.

    `taken` are the seconds of each that was done.
    """

    def __init__(self, jobs: Mapping[int, Sequence[str]]) -> None:
        own = (
            shared_and_own(list(jobs.values()))[1] if len(jobs) > 1 else [[]]
        )  # nothing tells a single job from others
        self.names = {number: " ".join([f"job {number}", *some]) for number, some in zip(jobs, own, strict=True)}
        self.taken: list[float] = []
        self.live: Live | None = None
        self.looked = 0.0
        self.told: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave_terminal()

    def begun(self, work: "Working") -> None:
        """A job has its process now."""
        if work.beside:
            self._once(f"jobs run side by side; what they print: {work.task.base}/NUMBER.log")
        else:
            self._leave_terminal()
        self._say(f"begun: {self.names[work.task.number]}")

    def ended(self, task: "Task", row: dict[str, Any], working: Sequence["Working"], waiting: int) -> None:
        """A job has its row; others are still at work or wait."""
        if row["status"] == "done":
            self.taken.append(60 * row["minutes"])
        share = row.get("exact_match")
        parts = [f"{row['status']}: {self.names[task.number]}"]
        parts += [f"{share:.1%}"] if share is not None else []
        parts += [duration(60 * row["minutes"])] if row["status"] == "done" else []
        parts += [row["error"]] if "error" in row else []
        left = seconds_left(working, waiting, self.taken) if working or waiting else None
        self._say(", ".join(parts) + (f"; about {duration(left)} left" if left is not None else ""))

    def show(self, working: Sequence["Working"], waiting: int, stopping: bool) -> None:
        """Look at those that write to their logs, if it is time to."""
        if stopping and working:
            self._once("stopping: what is at work saves after its step")
        if not in_terminal() or time.monotonic() < self.looked + _EVERY:
            return
        self.looked = time.monotonic()
        if beside := [work for work in working if work.beside]:
            from rich.live import Live

            with suppress(OSError):  # of a terminal that was closed
                if not self.live:
                    self.live = Live(auto_refresh=False, transient=True)
                    self.live.start()
                self.live.update(self._table(beside, waiting), refresh=True)

    def _table(self, working: Sequence["Working"], waiting: int) -> "Group":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("at work", "at", "ends about")
        for work in working:
            run = work.task.status()
            far = "starting" if not run or run.state == "interrupted" else how_far(run)
            ends = clock(run.ends) if run and run.ends else "–"
            table.add_row(*map(Text, (self.names[work.task.number], far, ends)))
        left = seconds_left(working, waiting, self.taken)
        time_left = f", about {duration(left)} left" if left is not None else ""
        return Group(table, Text(f"{len(working)} at work, {waiting} to come{time_left}"))

    def _once(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            self._say(text)

    def _say(self, text: str) -> None:
        if self.live:
            from rich.text import Text

            with suppress(OSError):
                self.live.console.print(Text(text))
        else:
            say(text)

    def _leave_terminal(self) -> None:
        if self.live:
            with suppress(OSError):
                self.live.stop()
            self.live = None


def seconds_left(working: Sequence["Working"], waiting: int, taken: Sequence[float]) -> float | None:
    """About how long until all of a sweep's jobs have ended; None before anything is known of any.

    Jobs to come take as long as those that are done (`taken`, in seconds) and those at work are going to, on average.
    """
    elapsed = [time.monotonic() - work.began for work in working]
    rest = [_training_left(work.task.status()) for work in working]
    whole = [*taken, *(past + left for past, left in zip(elapsed, rest, strict=True) if left is not None)]
    if not whole:
        return None
    mean = sum(whole) / len(whole)
    of_each = [max(mean - past, 0.0) if left is None else left for past, left in zip(elapsed, rest, strict=True)]
    if not waiting:
        return max(of_each, default=0.0)
    return (sum(of_each) + mean * waiting) / max(len(working), 1)


def _training_left(run: RunStatus | None) -> float | None:
    if run and run.ends:
        return max((run.ends - datetime.now().astimezone()).total_seconds(), 0.0)
    return 0.0 if run and run.state == "finished" else None
