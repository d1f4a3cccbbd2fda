"""What came of the trials: a row each, best first, for the terminal and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from birthplace_lm.search.study import SharedStudy

_STYLES = {"finished": "green", "pruned": "", "running": "cyan", "interrupted": "yellow", "failed": "red"}
_STATES = tuple(_STYLES)


@dataclass(frozen=True)
class Row:
    """One trial, numbered from 1. `dev` is the score of a finished one, none where it has no result.

    `reported` has the exact match at each validation, by its number: of a pruned trial that is all there is.
    """

    number: int
    state: str
    values: Mapping[str, Any]
    dev: Mapping[str, Any] = field(default_factory=dict)
    reported: Mapping[int, float] = field(default_factory=dict)
    minutes: float | None = None
    folder: str = ""
    error: str = ""
    command: str = ""

    @property
    def exact_match(self) -> float | None:
        return self.dev.get("exact_match")


def rows(study: SharedStudy) -> list[Row]:
    """Every trial of a study: finished ones from the best on, then the others as they stand."""
    trials, running = study.trials()
    found = [_row(trial, trial.number in running) for trial in trials]
    return sorted(found, key=lambda row: (_STATES.index(row.state), -(row.exact_match or 0.0), row.number))


def _row(trial: FrozenTrial, running: bool) -> Row:
    states = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    told = trial.user_attrs
    return Row(
        number=trial.number + 1,
        state=states.get(trial.state, "running" if running else "interrupted"),
        values=trial.params,
        dev=told.get("dev", {}),
        reported=trial.intermediate_values,
        minutes=told.get("minutes"),
        folder=told.get("folder", ""),
        error=told.get("error", ""),
        command=told.get("command", ""),
    )


def table(rows: Sequence[Row], keys: Sequence[str], title: str) -> Table:
    """The rows for a terminal; only a finished trial has an exact match, a pruned one says where it was left."""
    drawn = Table(title=Text(title), title_justify="left")
    for column in ("trial", *(short_keys(keys)), "exact match", "state", "minutes", "run folder or error"):
        text = column in ("state", "run folder or error")
        drawn.add_column(Text(column), justify="left" if text else "right", overflow="fold")
    for row in rows:
        drawn.add_row(
            str(row.number),
            *(Text(shown(row.values.get(key, "–"))) for key in keys),
            _share(row),
            Text(_state(row), style=_STYLES[row.state]),
            "–" if row.minutes is None else f"{row.minutes:.1f}",
            Text(row.error or row.folder or "–"),
        )
    return drawn


def _share(row: Row) -> str:
    if row.exact_match is None:
        return "–"
    return f"{row.exact_match:.1%} ({row.dev['correct']} of {row.dev['total']})"


def _state(row: Row) -> str:
    if row.state != "pruned" or not row.reported:
        return row.state
    last = max(row.reported)
    return f"pruned at validation {last} with {row.reported[last]:.1%}"


def shown(value: Any) -> str:
    """A value in a table: four digits of a number that has more.

    >>> shown(0.0123456), shown(12), shown(None), shown("salient")
    ('0.01235', '12', 'null', 'salient')
    """
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value)


def short_keys(keys: Sequence[str]) -> list[str]:
    """The keys without the words in front that no other key needs to be told apart from.

    >>> short_keys(["pretrain.optimizer.lr", "finetune.optimizer.lr", "model.n_layers"])
    ['pretrain.optimizer.lr', 'finetune.optimizer.lr', 'n_layers']
    """
    lasts = [key.split(".")[-1] for key in keys]
    return [last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)]


def as_csv(rows: Sequence[Row], keys: Sequence[str]) -> str:
    """One line a trial, all digits; empty where there is nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["trial", "state", "exact_match", "correct", "total", "minutes", "folder", *keys, "error", "command"]
    )
    for row in rows:
        scores = [row.dev.get(key, "") for key in ("exact_match", "correct", "total")]
        values = ["null" if key in row.values and row.values[key] is None else row.values.get(key, "") for key in keys]
        minutes = "" if row.minutes is None else round(row.minutes, 3)
        writer.writerow([row.number, row.state, *scores, minutes, row.folder, *values, row.error, row.command])
    return out.getvalue()


def last_words(rows: Sequence[Row], runs: Path) -> str:
    """How many trials ended how, and the command of the best with what may be said of it."""
    counts = ", ".join(f"{n} {state}" for state in _STATES if (n := sum(row.state == state for row in rows)))
    best = next((row for row in rows if row.exact_match is not None), None)
    if best is None:
        return f"{counts or 'no trials yet'}; none has a result, so there is no best one"
    low, high = best.dev["wilson95"]
    equals = sum(row.exact_match == best.exact_match for row in rows) - 1
    more = f", as have {equals} more" if equals else ""
    return (
        f"{counts}; trial {best.number} has the most right{more}: {_share(best)}, 95 % interval {low:.1%} – {high:.1%} "
        f"of {best.dev['total']} people, and the best of several is lucky too: try it with other seeds\n"
        f"its run is {runs / best.folder}, made by\n  {best.command}\n"
        "without held_out_share the same settings are asked about dev"
    )
