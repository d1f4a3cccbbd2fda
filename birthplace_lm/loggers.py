"""Mirrors of a fit's history, for looking on: wandb and TensorBoard.

The local history is the truth; a mirror may fail without harm to the run.
"""

import importlib.util
import json
import os
import re
import shlex
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from birthplace_lm.history import RunLogger

Mode = Literal["online", "offline", "disabled"]


class WandbMirror(RunLogger):
    """Send what a fit logs to Weights & Biases, and never let the run fail by it; see `wandb_logger`.

    The connection is made at the first use, on rank zero: online once, offline when that fails (no key, no network),
    off when that fails too. What goes wrong later is reported once and swallowed. The next stages of a process do not
    wait again for a server that one stage found out of reach.
    """

    unreachable: ClassVar[bool] = False

    def __init__(self, init: Mapping[str, Any], mode: Mode, init_timeout: float, finish_timeout: float) -> None:
        super().__init__()
        self._init = dict(init)
        self._mode: Mode = "offline" if mode == "online" and WandbMirror.unreachable else mode
        self._timeouts = init_timeout, finish_timeout
        self._mirror: WandbLogger | None = None
        self._reported = False

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._safely(lambda mirror: mirror.log_metrics(metrics, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        plain = vars(params) if isinstance(params, Namespace) else params
        self._safely(lambda mirror: mirror.log_hyperparams(json.loads(_without_key(json.dumps(plain, default=str)))))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._safely(lambda mirror: mirror.log_table(name, columns=list(columns), data=[list(row) for row in rows]))

    def log_text(self, name: str, text: str, step: int | None = None) -> None:
        self._safely(lambda mirror: mirror.log_text(name, columns=["text"], data=[[text]], step=step))

    def summarize(self, metrics: Mapping[str, Any]) -> None:
        self._safely(lambda mirror: mirror.experiment.summary.update(dict(metrics)))

    def finish(self, status: str = "success") -> None:
        """End the run, else the next job of a multirun would go on in it; tell how to upload what stayed here."""
        mirror, stayed = self._mirror, self._mode == "offline"
        self._mirror, self._mode = None, "disabled"
        if mirror is None:
            return
        try:
            mirror.experiment.finish(exit_code=0 if status == "success" else 1)
        except Exception as error:
            stayed = True
            _report("the upload did not finish", error)
        if stayed:
            print(f"wandb: kept here; to upload: wandb sync {shlex.quote(str(mirror.experiment.settings.sync_dir))}")

    @rank_zero_only
    def _safely(self, action: Callable[[WandbLogger], object]) -> None:
        try:
            if mirror := self._connected():
                action(mirror)
        except Exception as error:  # whatever it is, a mirror is not worth a run
            if not self._reported:
                _report("something could not be logged (said once)", error)
            self._reported = True

    def _connected(self) -> WandbLogger | None:
        while self._mirror is None and self._mode != "disabled":
            try:
                self._mirror = self._connect()
            except Exception as error:
                failed, self._mode = self._mode, "offline" if self._mode == "online" else "disabled"
                WandbMirror.unreachable = WandbMirror.unreachable or failed == "online"
                _report(f"{failed} did not work, going on {self._mode}", error)
        return self._mirror

    def _connect(self) -> WandbLogger:
        import wandb  # here alone in the package, and late: it costs half a second

        wandb.setup(wandb.Settings(silent=True))
        if self._mode == "online" and not wandb.login(prompt=False, verify=False):  # init would ask for a key and wait
            raise RuntimeError("no API key (`wandb login` or WANDB_API_KEY)")
        settings = wandb.Settings(silent=True, console="off", disable_git=True, finish_timeout_raises=True)
        settings.init_timeout, settings.finish_timeout = self._timeouts
        run = wandb.init(**self._init, mode=self._mode, resume="allow", reinit="create_new", settings=settings)
        run.define_metric("trainer/global_step")  # WandbLogger does these two only for runs that it starts itself
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return WandbLogger(experiment=run, project=self._init["project"], save_dir=self._init["dir"])


def _report(what: str, error: Exception) -> None:
    print(f"wandb: {what}: {_without_key((str(error) or type(error).__name__).splitlines()[0])[:200]}")


def _without_key(text: str) -> str:
    """The text with wandb's key, and a password inside an address, starred out."""
    key = os.environ.get("WANDB_API_KEY")
    return re.sub(r"://[^/@\s\"]+@", "://***@", text.replace(key, "***") if key else text)


def wandb_logger(
    project: str,
    save_dir: str | Path,
    id: str,
    name: str | None = None,
    entity: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] = (),
    mode: Mode = "online",
    init_timeout: float = 20.0,
    finish_timeout: float = 60.0,
) -> WandbMirror:
    """A mirror on wandb; nothing is imported or connected before the first use. Timeouts are in seconds.

    The same `id` after a resumption goes on in the same run. Files lie in `save_dir/wandb/`. The server is wandb's
    default or WANDB_BASE_URL, the key comes from `wandb login` or WANDB_API_KEY and is never written or printed here.
    """
    if mode not in ("online", "offline", "disabled"):
        raise ValueError(f"mode={mode!r}: choose online, offline or disabled")
    init = {"project": project, "dir": str(save_dir), "id": id, "name": name, "entity": entity, "group": group}
    return WandbMirror({**init, "job_type": job_type, "tags": list(tags)}, mode, init_timeout, finish_timeout)


class TensorBoard(TensorBoardLogger, RunLogger):
    """Lightning's TensorBoard logger that also shows texts, final figures among them; tables it can't show."""

    @rank_zero_only
    def log_text(self, name: str, text: str, step: int | None = None) -> None:
        self.experiment.add_text(name, re.sub("^", "    ", text, flags=re.M), step)  # Markdown's code block

    def summarize(self, metrics: Mapping[str, Any]) -> None:
        self.log_text("summary", json.dumps(dict(metrics), indent=2, default=str))


def tensorboard(save_dir: str | Path, resume_step: int = -1) -> TensorBoard:
    """A TensorBoard mirror in `save_dir/`; points behind `resume_step` are hidden, as `CsvHistory` cuts them."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ModuleNotFoundError("the TensorBoard logger needs the package tensorboard: pip install tensorboard")
    return TensorBoard(save_dir, name="", version="", purge_step=resume_step + 1)


@dataclass(frozen=True)
class FitLabels:
    """What a mirror is told of the stage that it mirrors: where it lies, how it is called, from where it goes on."""

    run: str
    stage: str
    folder: Path
    resume_step: int
    tags: tuple[str, ...]


def wandb_of_stage(
    labels: FitLabels,
    project: str,
    entity: str | None,
    group: str | None,
    mode: Mode,
) -> WandbMirror:
    """One wandb run a stage, its job type the stage, grouped by run folder unless a group is given."""
    name = f"{labels.run}-{labels.stage}"
    return wandb_logger(
        project, labels.folder, id=name, name=name, entity=entity, group=group or labels.run, job_type=labels.stage,
        tags=labels.tags, mode=mode,
    )  # fmt: skip


def tensorboard_of_stage(labels: FitLabels) -> TensorBoard:
    """The stage's events in `tensorboard/` of its folder."""
    return tensorboard(labels.folder / labels.stage / "tensorboard", labels.resume_step - 1)
