"""What becomes of the runs under a folder while they are at it: read from their files, with no hand on any of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from birthplace_lm.report.collecting import no_runs, read_config, run_folders, unreadable
from birthplace_lm.report.looks import short
from birthplace_lm.runs import STAGES, RunFolder, read_json

STATES = ("running", "interrupted", "failed", "finished")
_TAIL = 4096  # bytes at the end of a history that hold its last row for sure


@dataclass(frozen=True)
class RunStatus:
    """One run. A process works in one that is "running"; "failed" ended with an error, "interrupted" without one.

    `stage` is what it is at, or was at last, `step` of `steps` how far that has come: None where it is not noted.
    `ends` is about when all its stages will have been trained; `exact_match` on dev once it is scored.
    """

    folder: Path
    state: str
    stage: str = ""
    step: int = 0
    steps: int | None = None
    ends: datetime | None = None
    exact_match: float | None = None
    note: str = ""


def statuses(place: Path) -> tuple[list[RunStatus], list[str]]:
    """The runs at or below a folder, by name, and a sentence on each folder beside them that is none."""
    roots = list(run_folders(place))
    found, left_out = [], []
    for root in roots:
        try:
            found.append(status(RunFolder(root)))
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            left_out.append(unreadable(root, error))
    beside = no_runs(place, roots) if roots or any(place.glob("[!.]*/")) else []  # an empty folder is just that
    return sorted(found, key=lambda run: (run.folder.name, str(run.folder))), left_out + beside


def status(folder: RunFolder) -> RunStatus:
    """Where a run stands; raises what reading a damaged file raises."""
    metrics, noted = folder.metrics(), read_json(folder.root / "progress.json")
    wanted = folder.stages_wanted(read_config(folder))
    trained = [stage for stage in STAGES if stage in wanted]
    at = next((stage for stage in trained if not folder.stage(stage).finished), None)
    scored = "evaluate" not in wanted or folder.is_scored()
    share = _number(metrics.get("dev", {}).get("exact_match"))
    error = _error(folder.root / "error.txt")
    if folder.in_use():
        state = "running"
    elif error and "UnfinishedError" not in error.split(":")[0]:
        state = "failed"
    else:
        state = "finished" if at is None and scored else "interrupted"
    step = _steps_done(folder.stage(at).history) if at else 0
    return RunStatus(
        folder=folder.root,
        state=state,
        stage=at or ("" if scored else "evaluate"),
        step=step,
        steps=_number(noted.get("steps", {}).get(at)),
        ends=_end(folder, noted, at, step) if at and state == "running" else None,
        exact_match=share,
        note=error if state == "failed" else "",
    )


def _number(value: Any) -> Any:
    """A number as it is, None for what another program may have written there."""
    return value if isinstance(value, int | float) else None


def _end(folder: RunFolder, noted: dict[str, Any], at: str, step: int) -> datetime | None:
    """When all stages will have been trained if every step to come takes as long as those of this session did.

    None before the first steps, and where another version noted no plan. The stages to come may have quicker steps.
    """
    planned = noted.get("steps", {})
    if noted.get("stage") != at or at not in planned or step <= noted["from"]:
        return None
    last = datetime.fromtimestamp(folder.stage(at).history.stat().st_mtime).astimezone()
    taken = last - datetime.fromisoformat(noted["began"])
    to_come = [steps for stage, steps in planned.items() if stage != at and not folder.stage(stage).finished]
    left = planned[at] - step + sum(to_come)
    return last + left * taken / (step - noted["from"]) if taken > timedelta(0) else None


def _steps_done(history: Path) -> int:
    """The steps of a history, from its last whole row alone, however long it is; 0 where there is none."""
    if not history.is_file():
        return 0
    with history.open("rb") as file:
        file.seek(max(history.stat().st_size - _TAIL, 0))
        rows = file.read().split(b"\n")[:-1]
    first = rows[-1].split(b",")[0] if rows else b""
    return int(first) + 1 if first.isdigit() else 0


def _error(note: Path) -> str:
    """The last line of a traceback: which error, and what it says."""
    lines = note.read_text(encoding="utf-8", errors="replace").split("\n") if note.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def summary(runs: Sequence[RunStatus]) -> str:
    """How many are in which state, and when the last of the running ones will end."""
    counts = Counter(run.state for run in runs)
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state]] or ["no runs"]
    ends = [run.ends for run in runs if run.ends]
    return ", ".join(parts) + (f"; the last that runs ends about {clock(max(ends))}" if ends else "")


def clock(time: datetime) -> str:
    """The hour of today, the day with it of another day."""
    here, now = time.astimezone(), datetime.now().astimezone()
    return here.strftime("%H:%M" if here.date() == now.date() else "%Y-%m-%d %H:%M")


def cells(run: RunStatus) -> list[str]:
    """State, name, how far, when it ends, exact match, and what there is to say of it; a dash for what is not known."""
    share = "–" if run.exact_match is None else f"{run.exact_match:.1%}"
    ends = clock(run.ends) if run.ends else "–"
    return [run.state, short(run.folder.name, 120), how_far(run), ends, share, short(run.note, 200)]


def how_far(run: RunStatus) -> str:
    """The stage that a run is at, and its step: "pretrain 144 of 15,870 (1%)"; a dash where there is none."""
    if run.stage not in STAGES:
        return run.stage or "–"
    return f"{run.stage} {run.step:,}" + (f" of {run.steps:,} ({run.step / run.steps:.0%})" if run.steps else "")
