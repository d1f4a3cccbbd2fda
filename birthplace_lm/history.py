"""What a fit writes down on disk: a local history that resumption leaves without gaps or repeats.

This file is the truth, reports are built from it.
"""

import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

HEADER = "step,name,value"


class RunLogger(Logger):
    """A Lightning logger that also takes what a stage has to tell beside its curves; what it can't show it ignores."""

    name = version = ""  # Lightning makes folders of these two; ours lie where the run folder says
    takes_images = False  # whether a picture is worth drawing for it

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Keep a table, such as question, answer, prediction, right."""

    def log_text(self, name: str, text: str, step: int | None = None) -> None:
        """Keep a text, such as a decoded example."""

    def log_image(self, name: str, path: Path) -> None:
        """Keep a picture, a PNG file that may change afterwards."""

    def log_weights(self, name: str, path: Path) -> None:
        """Keep the weights file of a finished stage, where the user wants copies of such."""

    def summarize(self, metrics: Mapping[str, Any]) -> None:
        """Keep the figures that a run is known by."""

    def finish(self, status: str = "success") -> None:
        """Close files and connections: in a `finally`, with "failed" after an exception. Twice does no harm."""
        self.finalize(status)


class CsvHistory(RunLogger):
    """Append every metric to one `metrics.csv` of rows `step,name,value`; what is not a metric is ignored.

    The long form takes any metrics at any step without rewriting what is there, so a row is written as soon as it is
    known and survives `kill -9`; `repr` keeps every bit. `resume_step` is the last step whose rows are kept: those
    behind it, and a half-written last line, are cut off when the fit starts. Lightning writes the first batch's row
    under step 0 and counts `global_step` 1 after it, so from a checkpoint on means `global_step - 1`; -1 starts anew.
    """

    def __init__(self, path: str | Path, resume_step: int = -1) -> None:
        super().__init__()
        self.path = Path(path)
        self.resume_step = resume_step
        self._file: TextIO | None = None
        self._last: dict[str, tuple[int, str, str]] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> TextIO:
        """The open file; Lightning asks for it when a fit starts, on rank zero alone."""
        if self._file is None:
            cut_history(self.path, self.resume_step)
        if self._file is None or self._file.closed:
            self._file = self.path.open("a", encoding="utf-8", newline="\n")
        return self._file

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write one row a metric; a value that the same step already has (Lightning repeats `epoch`) is left out."""
        if step is None:
            raise ValueError(f"{self.path}: no step for {', '.join(metrics)}; rows are kept or cut by their step")
        if bad := [name for name in metrics if re.search(r'[,"\r\n]', name)]:
            raise ValueError(f"{self.path}: metric {bad[0]!r}: a name can't have commas, quotes or line breaks")
        rows = [(int(step), name, repr(float(value))) for name, value in metrics.items()]
        new = [row for row in rows if self._last.get(row[1]) != row]
        self._last.update({row[1]: row for row in new})
        self.experiment.write("".join(f"{at},{name},{value}\n" for at, name, value in new))
        self.experiment.flush()

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """Ignored: the run folder's `config.yaml` holds them."""

    def finish(self, status: str = "success") -> None:
        if self._file is not None:
            self._file.close()


def cut_history(path: Path, last_step: int) -> None:
    """Drop the rows behind `last_step` and a half-written last line; the file is replaced whole, or left alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [HEADER, *(f"{step},{name},{value!r}" for step, name, value in _rows(path) if step <= last_step)]
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_text("\n".join(kept) + "\n", encoding="utf-8", newline="\n")
    os.replace(beside, path)


def read_history(path: str | Path) -> dict[str, list[tuple[int, float]]]:
    """The curves of a `metrics.csv`, each a list of (step, value) in the order of writing; also during a fit."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, name, value in _rows(Path(path)):
        curves.setdefault(name, []).append((step, value))
    return curves


def _rows(path: Path) -> list[tuple[int, str, float]]:
    """The rows that have their line's end, none of a file that is not there; ValueError for any other kind of row."""
    data = path.read_bytes() if path.exists() else b""
    lines = data[: data.rfind(b"\n") + 1].decode("utf-8").split("\n")[:-1]
    if lines and lines[0] != HEADER:
        raise ValueError(f"{path}:1: {lines[0]!r} instead of {HEADER!r}: this is not a history, move it away")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            step, name, value = line.split(",")
            rows.append((int(step), name, float(value)))
        except ValueError:
            raise ValueError(f"{path}:{number}: {line!r} is not {HEADER!r}; delete the line or the file") from None
    return rows
