"""The jobs of a sweep as tasks of Slurm arrays: which need to run, which run already, how they end."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from birthplace_lm.cli.errors import TOLD
from birthplace_lm.cli.slurm_queue import waiting_or_running
from birthplace_lm.composing import ConfigError, in_one_line, load_config, save_config, short_hash
from birthplace_lm.corpus import Corpus, MissingCorpusError
from birthplace_lm.jobs import Job, check_same_run, prepare
from birthplace_lm.provenance import provenance
from birthplace_lm.report.progress import status
from birthplace_lm.runs import RunFolder, read_json, write_json

_DIED = ("BOOT_FAIL", "COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY")  # if nothing was noted: not ended by anybody
_LATE = 10.0  # seconds after which a file that another machine has written can be seen here


@dataclass
class Task:
    """One job: number `number` of the array `array`, once it is submitted, with its files in `base`.

    `job` is what it is to do, None where that cannot be told here since the data lie elsewhere. `row` is what the
    sweep's table says of it, once that is known; `state` is Slurm's word for it. `earlier` is a task of another sweep,
    which was perhaps asked for less.
    """

    number: int
    overrides: list[str]
    base: Path
    array: str = ""
    job: Job | None = None
    earlier: bool = False
    row: dict[str, Any] = field(default_factory=dict)
    state: str = "PENDING"

    @property
    def run(self) -> Path | None:
        """The run's folder, where that is known."""
        return self.job.folder.root.resolve() if self.job else None

    @property
    def key(self) -> str:
        """What tells the run that it is for: its folder, or the settings where that is not known."""
        return str(self.run) if self.job else _of_settings(self.base / f"{self.number}.yaml")

    def take_over(self, array: str, number: int, base: Path) -> None:
        """Wait for a task that an earlier command has submitted for the same run."""
        self.array, self.number, self.base, self.earlier = array, number, base, True

    def look(self, settings: dict[str, Any], chosen: Sequence[str]) -> None:
        """Prepare the run without running it: a finished one and one that cannot work have their row at once."""
        row = {"overrides": self.overrides, "minutes": 0.0}
        try:
            job = prepare(settings, chosen)
            check_same_run(job)
            if finished := _finished(job):
                self.row = {**row, "status": "skipped", **finished}
                return
            self.job = replace(job, corpus=Corpus((), (), (), ()))  # of which there would be one a job
        except MissingCorpusError:  # perhaps only the nodes see the data
            pass
        except (*TOLD, ValueError, OSError) as error:
            self.row = {**row, "status": "failed", "error": in_one_line(error)}
            return
        self.base.mkdir(parents=True, exist_ok=True, mode=0o700)
        save_config(settings, self.base / f"{self.number}.yaml")

    def ends(self) -> datetime | None:
        """About when the run will be trained, if that can be told."""
        try:
            return status(RunFolder(self.run)).ends if self.run else None
        except (ValueError, KeyError, TypeError, AttributeError, OSError):  # files that are just being made
            return None

    def close(self) -> None:
        """Make the row from what the job noted of itself; Slurm's state stands for a last word that is missing."""
        until = time.monotonic() + _LATE
        rows = self._noted()
        while self.state == "COMPLETED" and not _ended_well(rows) and time.monotonic() < until:
            time.sleep(0.2)
            rows = self._noted()
        ended = "failed" if self.state in _DIED else "interrupted"
        self.row = rows[-1] if rows else {"status": ended}
        self.row |= {"overrides": self.overrides, "minutes": sum(row["minutes"] for row in rows)}
        if len(rows) > 1 and self.row["status"] == "skipped":  # it was trained by an earlier attempt
            self.row["status"] = "done"
        if self.earlier and self.job and _ended_well([self.row]) and not _is_finished(self.job):
            self.row |= {
                "status": "interrupted",
                "error": "it was asked for less; the same command again does the rest",
            }
        if self.row["status"] not in ("done", "skipped"):
            said = f"{self.row['error']}; " if "error" in self.row else ""
            self.row["error"] = f"{said}Slurm: {self.state}; log: {self.base / f'{self.number}.log'}"

    def _noted(self) -> list[dict[str, Any]]:
        """What the job noted of itself, a row each time that it was started."""
        record = self.base / f"{self.number}.jsonl"
        text = record.read_text(encoding="utf-8") if record.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]


def _finished(job: Job) -> dict[str, Any]:
    """Folder and exact match of a run that has all that was asked for, else nothing; ConfigError for a damaged one."""
    try:
        share = job.folder.metrics().get("dev", {}).get("exact_match")
        return {"folder": str(job.folder.root), "exact_match": share} if job.is_done() else {}
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"{job.folder.root / 'metrics.json'} is damaged ({in_one_line(error)}): birthplace-evaluate "
            f"{job.folder.root} writes it anew"
        ) from error


def _is_finished(job: Job) -> bool:
    try:
        return bool(_finished(job))
    except ValueError:
        return False


def _ended_well(rows: Sequence[Mapping[str, Any]]) -> bool:
    return bool(rows) and rows[-1]["status"] in ("done", "skipped")


def note_sweep(base: Path, tasks: Sequence[Task], array: str | None) -> None:
    """sweep.json: what was launched, from which commit, which task does what; the array's number once there is one."""
    origin = provenance("")
    write_json(
        base / "sweep.json",
        {
            **{key: origin[key] for key in ("started", "command", "commit", "dirty")},
            "array": array,
            "tasks": {str(task.number): {"overrides": task.overrides, "run": str(task.run or "")} for task in tasks},
        },
    )


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
