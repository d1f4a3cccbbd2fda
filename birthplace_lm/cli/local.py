"""hydra/launcher=local, the default: the jobs of a sweep here, each in a process of its own, side by side.

Two trainings of one thread do more than one of two threads (birthplace-bench jobs measures it), so on a processor as
many jobs run as there are cores for; where one job fills the machine, as on a GPU, they take turns. A job that is
killed, out of memory say, is noted as failed and stops no other. Hydra's own launcher (hydra/launcher=basic) carries
out jobs in this process, where a debugger sees them.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn

from birthplace_lm.cli.launching import TaskLauncher
from birthplace_lm.composing import ConfigError, check_whole
from birthplace_lm.ranks import own_cores, own_rank, wanted_ranks


class LocalSweep(TaskLauncher):
    """At most `parallel` jobs at the same time; None: as many as there are cores for, and on a GPU one.

    A job without `threads` gets its share of the cores. What jobs print that have others beside them goes to their
    logs, and here one line tells of each. Ctrl-C, SIGTERM and the like save the jobs at work and end the sweep.
    """

    def __init__(self, parallel: int | None) -> None:
        self.parallel = parallel

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See `TaskLauncher`; where torchrun or srun started ranks, all of them walk through the jobs together."""
        with suppress(ConfigError):  # which the jobs will tell
            if own_rank(wanted_ranks(self.config.trainer)):
                in_turn = BasicLauncher()
                in_turn.setup(hydra_context=self.context, task_function=self.task_function, config=self.config)
                return in_turn.launch(job_overrides, initial_job_idx)
        return super().launch(job_overrides, initial_job_idx)

    def carry_out(self, job_overrides: Sequence[list[str]], folder: Path, first: int) -> None:
        """Run the jobs in their order, those that are not finished."""
        if self.parallel is not None:
            try:
                check_whole("hydra.launcher.parallel", self.parallel, 1, " is ")
            except ConfigError as error:
                print(f"error: {error}", file=sys.stderr)
                sys.exit(2)
        from birthplace_lm.cli.side_by_side import SideBySide
        from birthplace_lm.cli.tasks import Task, note_sweep

        tasks = [Task(number, overrides, folder) for number, overrides in enumerate(job_overrides, first)]
        folder.mkdir(parents=True, mode=0o700)
        note_sweep(folder, tasks)
        SideBySide(tasks, lambda task: self.look_at(task, task.number), self.parallel, own_cores()).run()
