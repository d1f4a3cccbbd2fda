"""The jobs of a sweep as tasks for processes of their own: what each is told, whether it needs to run, how it ended."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from birthplace_lm.cli.errors import tell
from birthplace_lm.cli.sweeps import rows_of
from birthplace_lm.commits import origin
from birthplace_lm.composing import ConfigError, in_one_line, save_config
from birthplace_lm.corpus import Corpus, MissingCorpusError
from birthplace_lm.jobs import Job, check_same_run, prepare
from birthplace_lm.report.progress import RunStatus, status
from birthplace_lm.runs import RunFolder, write_json


@dataclass
class Task:
    """One job, with its files in `base`: NUMBER.yaml it is told by, NUMBER.jsonl it notes its end in, NUMBER.log.

    `job` is what it is to do, None where that cannot be told here since the data lie elsewhere. `row` is what the
    sweep's table says of it, once that is known. `environment` is what its process finds there beside our own, and
    `data_elsewhere` whether it may see data that this one does not.
    """

    number: int
    overrides: list[str]
    base: Path
    job: Job | None = None
    row: dict[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    data_elsewhere: ClassVar[bool] = False

    @property
    def run(self) -> Path | None:
        """The run's folder, where that is known."""
        return self.job.folder.root.resolve() if self.job else None

    @property
    def settings_file(self) -> Path:
        return self.base / f"{self.number}.yaml"

    @property
    def record(self) -> Path:
        return self.base / f"{self.number}.jsonl"

    @property
    def log(self) -> Path:
        return self.base / f"{self.number}.log"

    def look(self, settings: dict[str, Any], chosen: Sequence[str]) -> None:
        """Prepare the run without running it: a finished one and one that cannot work have their row at once."""
        with self.failing():
            try:
                job = prepare(settings, chosen, asks=False)
                check_same_run(job)
                if finished := _finished(job):
                    self.row = {"overrides": self.overrides, "minutes": 0.0, "status": "skipped", **finished}
                    return
                self.job = replace(job, corpus=Corpus((), (), (), ()))  # of which there would be one a job
            except MissingCorpusError:
                if not self.data_elsewhere:
                    raise
            self.base.mkdir(parents=True, exist_ok=True, mode=0o700)
            save_config(settings, self.settings_file)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """What goes wrong with this task is told and is its row; the sweep goes on."""
        try:
            yield
        except Exception as error:
            tell(error)
            self.row = {"overrides": self.overrides, "minutes": 0.0, "status": "failed", "error": in_one_line(error)}

    def status(self) -> RunStatus | None:
        """How far the run is, if that can be told."""
        try:
            return status(RunFolder(self.run)) if self.run else None
        except (ValueError, KeyError, TypeError, AttributeError, OSError):  # files that are just being made
            return None

    def ends(self) -> datetime | None:
        """About when the run will be trained, if that can be told."""
        return found.ends if (found := self.status()) else None

    def noted(self) -> list[dict[str, Any]]:
        """What the job noted of itself, a row each time that it was started, but what it could not write whole."""
        return rows_of(self.record)

    def is_finished(self) -> bool:
        """Whether the run folder has all that is asked for."""
        try:
            return bool(self.job and _finished(self.job))
        except ValueError:
            return False


def _finished(job: Job) -> dict[str, Any]:
    """Folder and exact match of a run that has all that was asked for, else nothing; ConfigError for a damaged one."""
    try:
        share = job.folder.metrics().get("dev", {}).get("exact_match")
        done = job.folder.is_run() and job.is_done()
        return {"folder": str(job.folder.root), "exact_match": share} if done else {}
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"{job.folder.root / 'metrics.json'} is damaged ({in_one_line(error)}): birthplace-evaluate "
            f"{job.folder.root} writes it anew"
        ) from error


def ended_well(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the last of a job's rows says that it came to its end."""
    return bool(rows) and rows[-1]["status"] in ("done", "skipped")


def note_sweep(base: Path, tasks: Sequence[Task], array: str | None = None) -> None:
    """sweep.json: what was launched, from which commit, what each task does; the number of its Slurm array."""
    write_json(
        base / "sweep.json",
        {
            **origin(),
            "array": array,
            "tasks": {str(task.number): {"overrides": task.overrides, "run": str(task.run or "")} for task in tasks},
        },
    )
