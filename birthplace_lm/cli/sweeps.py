"""What a sweep did: every job notes its end in one file, and the sweep's last word is a table of them.

Hydra shows the first failure of a sweep and forgets the others. Here a job that fails is noted like the others and the
sweep goes on. The jobs may run in other processes or on other machines, so they share a file, not a variable: its path
travels to them in the environment.
"""

import json
import logging
import os
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from birthplace_lm.commits import hide_environment
from birthplace_lm.composing import ConfigError, in_one_line
from birthplace_lm.ranks import own_rank, wanted_ranks
from birthplace_lm.stopping import in_terminal, interrupted

RECORD = "BIRTHPLACE_SWEEP_RECORD"  # the variable of the environment that names the file
STYLES = {"failed": "red", "interrupted": "yellow", "elsewhere": "yellow"}  # of jobs that did not come to their end


_of_processes = set[int]()  # those that carry out a sweep's jobs one after the other, by their ids


def takes_turns() -> bool:
    """Whether this process carries out the jobs of a sweep in turn, so that it is for it to begin the next one."""
    return os.getpid() in _of_processes


class SweepRecord(Callback):
    """Makes the file in the runs folder before the first job starts; of a sweep on several ranks the first does."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _of_processes.add(os.getpid())
        hide_environment()
        with suppress(ConfigError):  # which the jobs will tell
            if (rank := own_rank(wanted_ranks(config.trainer))) and rank.rank:
                logging.disable(logging.INFO)  # what Hydra tells of every job
                return
        folder = Path(config.paths.runs).resolve() / ".sweeps"
        path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # Hydra's own file there holds the whole command
            path.touch()
        except OSError as error:  # Hydra makes a warning of exceptions here, and then stumbles over the same
            print(f"error: the runs folder {folder.parent} cannot be written: {error}", file=sys.stderr)
            sys.exit(2)
        os.environ[RECORD] = str(path)


def noted(job: Callable[[], Any], overrides: Sequence[str]) -> str:
    """Carry out one job of a sweep, note how it ended and return that; an error is noted and printed, not raised.

    The job returns something with a `folder` and with `trained`, which says whether there was anything to do. One whose
    folder another command is at work in ends "elsewhere": two sweeps of the same jobs share them, and neither failed.
    """
    from birthplace_lm.cli.errors import tell
    from birthplace_lm.run_lock import RunInUseError
    from birthplace_lm.stopping import UnfinishedError

    endings: dict[type[Exception], str] = {UnfinishedError: "interrupted", RunInUseError: "elsewhere"}
    started = time.monotonic()
    row: dict[str, Any] = {"overrides": list(overrides), "status": "interrupted"}
    try:
        done = job()
        row |= {"status": "done" if done.trained else "skipped", "folder": str(done.folder.root)}
        row["exact_match"] = done.folder.metrics().get("dev", {}).get("exact_match")
    except KeyboardInterrupt:
        interrupted()
    except Exception as error:
        tell(error)
        row |= {"status": endings.get(type(error), "failed"), "error": in_one_line(error)}
    finally:
        row["minutes"] = (time.monotonic() - started) / 60
        add_row(row)
    return str(row["status"])


def add_row(row: Mapping[str, Any]) -> None:
    """Put a job's row into the sweep's file."""
    line = json.dumps(row, ensure_ascii=False) + "\n"
    with open(os.environ[RECORD], "ab+") as record:
        if record.seek(0, os.SEEK_END) and (record.seek(-1, os.SEEK_END), record.read(1))[1] != b"\n":
            line = "\n" + line  # of a row before that could not be written whole
        record.write(line.encode())  # one short write: lines of two jobs never mix


def rows_of(record: Path) -> list[dict[str, Any]]:
    """The rows that jobs put into a file, but what could not be written whole; none where there is no file."""
    rows = []
    for line in record.read_text(encoding="utf-8").splitlines() if record.exists() else ():
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def print_summary() -> int:
    """Print the table of the sweep that just ended, if there was one; 1 unless all its jobs came to their end, else 0.

    The title holds the overrides that all jobs share, a job's row its own.
    """
    path = os.environ.pop(RECORD, None)
    rows = rows_of(Path(path)) if path else []
    if not rows:
        return 0
    rows.sort(key=lambda row: row.get("number", 0))  # where they ran side by side each was noted as it ended
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shared, own = shared_and_own([row["overrides"] for row in rows])
    table = Table(title=Text(" ".join(["sweep", *shared])), title_justify="left")
    for column in ("job", "status", "exact match", "minutes", "run folder or error"):
        table.add_column(column, justify="right" if column in ("exact match", "minutes") else "left", overflow="fold")
    for row, overrides in zip(rows, own, strict=True):
        share = row.get("exact_match")
        table.add_row(
            Text(" ".join(overrides)),
            Text(row["status"], style=STYLES.get(row["status"], "")),
            "–" if share is None else f"{share:.1%}",
            f"{row['minutes']:.1f}",
            Text(row.get("folder") or row.get("error") or "–"),
        )
    Console(width=None if in_terminal() else 160, highlight=False).print(table)
    counts = {status: sum(row["status"] == status for row in rows) for status in ("done", "skipped", *STYLES)}
    print(", ".join(f"{count} {status}" for status, count in counts.items() if count) + f"; noted in {path}")
    if counts["elsewhere"]:
        print("elsewhere: another command is at work on these; the same command again, when it has ended, shows them")
    folders = [Path(row["folder"]) for row in rows if "folder" in row]
    for runs in sorted({folder.parent for folder in folders if any(folder.glob("wandb/offline-run-*"))}):
        print(f"wandb: to upload what was kept here of all jobs: wandb sync {shlex.quote(str(runs))}/*/wandb")
    return int(any(counts[status] for status in STYLES))


def shared_and_own(jobs: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The overrides that all jobs of a sweep have, and those that each has beside them; a single job has its own only.

    >>> shared_and_own([["model=small", "seed=0"], ["model=small", "seed=1"]])
    (['model=small'], [['seed=0'], ['seed=1']])
    """
    common = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    return [one for one in jobs[0] if one in common], [[one for one in job if one not in common] for job in jobs]
