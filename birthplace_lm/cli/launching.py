"""What launchers share whose jobs are processes of their own: a job is told by a file, not by a pickle.

`python -m birthplace_lm.cli.job FILE` carries it out. Hydra imports launchers at every start, so nothing here brings
torch.
"""

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from birthplace_lm.cli.sweeps import RECORD
from birthplace_lm.composing import plain

if TYPE_CHECKING:
    from birthplace_lm.cli.tasks import Task


class TaskLauncher(Launcher):
    """Composes the jobs of a sweep; what becomes of each stands in the sweep's record, so all return nothing."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what Hydra hands to a launcher."""
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Carry out a batch of jobs, each by its overrides; the files of the batch go to a folder of its own."""
        folder = Path(os.environ[RECORD]).with_suffix("")
        if initial_job_idx:
            folder = folder.with_name(f"{folder.name}-{initial_job_idx}")
        self.carry_out([list(overrides) for overrides in job_overrides], folder, initial_job_idx)
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]

    @abstractmethod
    def carry_out(self, job_overrides: Sequence[list[str]], folder: Path, first: int) -> None:
        """Run the jobs to their end and add a row for each to the sweep's record; the first has the number `first`."""

    def look_at(self, task: "Task", number: int) -> dict[str, Any]:
        """Compose the settings of the job of a number, have its task look at its run, and return the settings.

        One whose settings cannot be composed has the reason in its row, and none are returned.
        """
        settings: dict[str, Any] = {}
        with task.failing():
            settings, chosen = self._composed(task, number)
            task.look(settings, chosen)
        return settings

    def _composed(self, task: "Task", number: int) -> tuple[dict[str, Any], list[str]]:
        """The settings of a job as Hydra composes them now, and the groups that its overrides name."""
        from birthplace_lm.cli.train import choices_of

        config = self.context.config_loader.load_sweep_config(self.config, task.overrides)
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = number, str(number)
        HydraConfig.instance().set_config(config)
        choices, chosen = choices_of(HydraConfig.get())
        task.environment = {name: str(value) for name, value in config.hydra.job.env_set.items()}
        with open_dict(config):
            del config["hydra"]
        return {**plain(config), "choices": choices}, chosen
