"""The rows of a wandb run: metrics with a step axis a stage, tables, pictures."""

import os
import re
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from birthplace_lm.history import RunLogger

Run = Any  # wandb.Run: wandb is imported late, it costs half a second


class WandbRows(RunLogger):
    """What one stage, or with no prefix the scoring, logs into a job's run.

    `tell` does something with the run, now or never; `artifacts` is whether weights are copied.

    wandb's own step has to grow from one row to the next all through a run, so a stage's rows begin where the rows
    before them end: `offset` is the row of its step 0.
    """

    takes_images = True

    def __init__(
        self,
        tell: Callable[[Callable[[Run], object]], None],
        prefix: str = "",
        steps_before: int = 0,
        artifacts: bool = False,
    ) -> None:
        super().__init__()
        self._tell, self._prefix, self._steps_before, self._artifacts = tell, prefix, steps_before, artifacts
        self._offset: int | None = None
        self._known = -1  # the last step that the run had of this stage when it was opened
        self._characters: dict[str, Any] = {}

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """A row a step, with the characters seen so far in each: whatever is logged can be drawn over them."""
        named = {self._prefix + name.removeprefix("train/"): value for name, value in metrics.items()}
        characters = f"{self._prefix}characters"
        self._characters |= {key: value for key, value in named.items() if key == characters}
        self._tell(lambda run: self._log(run, {**self._characters, **named}, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        plain = vars(params) if isinstance(params, Namespace) else params
        self._tell(lambda run: run.config.update(without_key(plain), allow_val_change=True))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._tell(lambda run: self._log(run, {self._prefix + name: _table(columns, rows)}))

    def log_text(self, name: str, text: str, step: int | None = None) -> None:
        self._tell(lambda run: self._log(run, {self._prefix + name: _text(text)}, step or 0))

    def log_image(self, name: str, path: Path) -> None:
        self._tell(lambda run: self._log(run, {self._prefix + name: _image(path)}))

    def log_weights(self, name: str, path: Path) -> None:
        if self._artifacts:
            self._tell(lambda run: run.log_artifact(_artifact(f"{run.id}-{name}", path)))

    def summarize(self, metrics: Mapping[str, Any]) -> None:
        """A row too, since panels offer what has been logged."""
        named = {self._prefix + name: value for name, value in metrics.items()}
        self._tell(lambda run: self._log(run, named))
        self._tell(lambda run: run.summary.update(named))

    def _log(self, run: Run, row: Mapping[str, Any], step: int | None = None) -> None:
        """Into the row of a step of this stage, or into the newest row where no step is named."""
        if step is None or not self._prefix:
            return run.log(dict(row), step=run.step)
        if self._offset is None:
            self._offset = self._begin(run)
        if step > self._known:
            run.log({**row, f"{self._prefix}step": step}, step=self._offset + step)

    def _begin(self, run: Run) -> int:
        """Give the stage its axis; the row of its step 0, behind all rows that the run has of other stages.

        A run that goes on online knows its last rows. One that goes on offline knows nothing of them: there the planned
        steps keep its rows apart, and the repeated ones get the numbers that they had.
        """
        axis = f"{self._prefix}step"
        run.define_metric(axis, hidden=True)
        run.define_metric(f"{self._prefix}*", step_metric=axis, step_sync=False)
        self._known = int(run.summary.get(axis, -1))
        return max(self._steps_before, (run.step + 1 if run.step else 0) - (self._known + 1))


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])


def _text(text: str) -> Any:
    import wandb

    return wandb.Html(f"<pre>{escape(text)}</pre>", inject=False)


def _image(path: Path) -> Any:
    import wandb

    return wandb.Image(str(path))


def _artifact(name: str, weights: Path) -> Any:
    """A stage's weights and what they are loaded with, in places where `RunFolder` of the download finds them."""
    import wandb

    artifact, root = wandb.Artifact(name, type="model"), weights.parent.parent
    with_them = (weights.parent / "stage.json", root / "config.yaml", root / "vocabulary.json")
    for path in (weights, *(path for path in with_them if path.is_file())):
        artifact.add_file(str(path), name=path.relative_to(root).as_posix())
    return artifact


def starred(text: str) -> str:
    """The text with wandb's key, and a password inside an address, starred out."""
    key = os.environ.get("WANDB_API_KEY")
    return re.sub(r"://[^/\s\"]+@", "://***@", text.replace(key, "***") if key else text)


def without_key(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values, whatever of the key or a password they hold starred out."""
    return {starred(str(key)): _starred(value) for key, value in values.items()}


def _starred(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_key(value)
    if isinstance(value, list | tuple):
        return [_starred(one) for one in value]
    return value if isinstance(value, int | float | None) else starred(str(value))
