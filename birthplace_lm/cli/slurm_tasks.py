"""The jobs of a sweep as tasks of Slurm arrays: which run already, how they end."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from birthplace_lm.cli.slurm_queue import waiting_or_running
from birthplace_lm.cli.tasks import Task, ended_well
from birthplace_lm.composing import ConfigError, load_config, short_hash
from birthplace_lm.runs import read_json

_DIED = ("BOOT_FAIL", "COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY")  # if nothing was noted: not ended by anybody
_LATE = 10.0  # seconds after which a file that another machine has written can be seen here


@dataclass
class SlurmTask(Task):
    """Number `number` of the array `array`, once it is submitted; `state` is Slurm's word for it.

    `earlier` is a task of another sweep, which was perhaps asked for less.
    """

    array: str = ""
    earlier: bool = False
    state: str = "PENDING"
    data_elsewhere: ClassVar[bool] = True

    @property
    def key(self) -> str:
        """What tells the run that it is for: its folder, or the settings where that is not known."""
        return str(self.run) if self.job else _of_settings(self.settings_file)

    def take_over(self, array: str, number: int, base: Path) -> None:
        """Wait for a task that an earlier command has submitted for the same run."""
        self.array, self.number, self.base, self.earlier = array, number, base, True

    def close(self) -> None:
        """Make the row from what the job noted of itself; Slurm's state stands for a last word that is missing."""
        until = time.monotonic() + _LATE
        rows = self.noted()
        while self.state == "COMPLETED" and not ended_well(rows) and time.monotonic() < until:
            time.sleep(0.2)
            rows = self.noted()
        ended = "failed" if self.state in _DIED else "interrupted"
        self.row = rows[-1] if rows else {"status": ended}
        self.row |= {"overrides": self.overrides, "minutes": sum(row["minutes"] for row in rows)}
        if len(rows) > 1 and self.row["status"] == "skipped":  # it was trained by an earlier attempt
            self.row["status"] = "done"
        if self.earlier and self.job and ended_well([self.row]) and not self.is_finished():
            self.row |= {
                "status": "interrupted",
                "error": "it was asked for less; the same command again does the rest",
            }
        if self.row["status"] not in ("done", "skipped"):
            said = f"{self.row['error']}; " if "error" in self.row else ""
            self.row["error"] = f"{said}Slurm: {self.state}; log: {self.log}"


def left_behind(sweeps: Path) -> Mapping[str, tuple[str, int, Path]]:
    """What tasks of earlier sweeps are for, by their `key`: (array, task, folder of the sweep) of each."""
    alive = waiting_or_running()
    found: dict[str, tuple[str, int, Path]] = {}
    for file in sweeps.glob("*/sweep.json"):
        sweep = read_json(file)
        for number, task in sweep["tasks"].items():
            if (sweep["array"], int(number)) in alive:
                key = task["run"] or _of_settings(file.parent / f"{number}.yaml")
                found[key] = (sweep["array"], int(number), file.parent)
    return found


def _of_settings(file: Path) -> str:
    """Tells settings from others; a file that cannot be read is like none."""
    try:
        return f"settings {short_hash(load_config(file))}"
    except (ConfigError, OSError):
        return f"unknown {file}"
