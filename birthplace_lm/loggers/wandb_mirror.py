"""A mirror on Weights & Biases: one run a job, whose stages are prefixes with a step axis each.

    pretrain/loss   pretrain/characters   pretrain/step          finetune/validation/exact_match   finetune/step
    dev/exact_match   dev/auroc   seconds   parameters           predictions   attention   loss_curves

Curves come during the fits, all of the second line when the run is scored.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from birthplace_lm.history import RunLogger
from birthplace_lm.loggers import JobLabels, Mirror
from birthplace_lm.loggers.wandb_rows import Run, WandbRows, starred, without_key

Mode = Literal["online", "offline", "disabled"]


class WandbMirror(Mirror):
    """Send what a job logs to wandb, and never let the job fail by it.

    The connection is made at the first use, on rank zero: online once, offline when that fails (no key, no network),
    off when that fails too. What goes wrong later is reported once and swallowed. The next jobs of a process do not
    wait again for a server that one job found out of reach.

    The same `id` after an interruption goes on in the same run. Files lie in `save_dir/wandb/`. `config` should be
    without nested values; `steps` says how many steps each stage has, in the order of training. Trained weights are
    copied only with `artifacts`. The server is wandb's default or WANDB_BASE_URL; the key comes from `wandb login` or
    WANDB_API_KEY and is never written or printed here. Timeouts are in seconds.
    """

    unreachable: ClassVar[bool] = False

    def __init__(
        self,
        project: str,
        save_dir: str | Path,
        id: str,
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        config: Mapping[str, Any] | None = None,
        steps: Mapping[str, int] | None = None,
        mode: Mode = "online",
        artifacts: bool = False,
        init_timeout: float = 20.0,
        finish_timeout: float = 60.0,
    ) -> None:
        mode = mode or "online"  # WANDB_MODE= in the environment says nothing
        if mode not in ("online", "offline", "disabled"):
            raise ValueError(f"wandb.mode={mode!r}: choose online, offline or disabled")
        init = {"project": project, "id": id, "name": name, "entity": entity, "group": group, "job_type": job_type}
        init["notes"] = notes
        self._init: dict[str, Any] = {**init, "tags": list(tags), "config": without_key(config or {})}
        self._folder, self._steps, self._artifacts = Path(save_dir), dict(steps or {}), artifacts
        self._mode: Mode = "offline" if mode == "online" and WandbMirror.unreachable else mode
        self._timeouts = init_timeout, finish_timeout
        self._unwanted = mode == "disabled"
        self._run: Run | None = None
        self._reported = False

    def stage(self, name: str, resume_step: int) -> RunLogger:
        """Its metrics get the stage as a prefix; what the run already has of repeated steps is not sent again."""
        before = list(self._steps)[: list(self._steps).index(name)] if name in self._steps else []
        return WandbRows(self._tell, f"{name}/", sum(self._steps[stage] for stage in before), self._artifacts)

    def scores(self) -> RunLogger:
        return WandbRows(self._tell)

    @property
    def reached(self) -> bool:
        return self._run is not None or self._unwanted

    def finish(self, status: str = "success") -> None:
        """End the run, else the next job of a sweep would go on in it; tell how to upload what stayed here."""
        run, stayed = self._run, "" if self._mode == "offline" else None
        self._run, self._mode = None, "disabled"
        if run is None:
            return
        try:
            run.finish(exit_code=0 if status == "success" else 1)
        except Exception as error:
            stayed = " --include-online" if stayed is None else stayed
            _report("the upload did not finish", error)
        if stayed is not None:
            print(f"wandb: kept here; to upload: wandb sync{stayed} {shlex.quote(str(self._folder / 'wandb'))}")

    @rank_zero_only
    def _tell(self, action: Callable[[Run], object]) -> None:
        """Do something with the run, if there is one; whatever goes wrong, a mirror is not worth a job."""
        try:
            if run := self._connected():
                action(run)
        except Exception as error:
            if not self._reported:
                _report("something could not be logged (said once)", error)
            self._reported = True

    def _connected(self) -> Run | None:
        while self._run is None and self._mode != "disabled":
            try:
                self._run = self._connect()
            except Exception as error:
                failed, self._mode = self._mode, "offline" if self._mode == "online" else "disabled"
                WandbMirror.unreachable = WandbMirror.unreachable or failed == "online"
                _report(f"{failed} did not work, going on {self._mode}", error)
                _forget_connection()
        return self._run

    def _connect(self) -> Run:
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        if self._mode == "online" and not logged_in():  # init would ask for a key and wait
            raise RuntimeError("no API key (`wandb login` or WANDB_API_KEY)")
        settings = wandb.Settings(silent=True, console="off", disable_git=True, finish_timeout_raises=True)
        settings.init_timeout, settings.finish_timeout = self._timeouts
        where: dict[str, Any] = {"dir": str(self._folder), "mode": self._mode, "settings": settings}
        return wandb.init(**self._init, **where, resume="allow", reinit="create_new")


def _forget_connection() -> None:
    """End wandb's process, which after a failed call keeps the run's id in use."""
    with suppress(Exception, SystemExit):  # wandb exits by itself when its process ended badly
        import wandb

        wandb.teardown()


def logged_in() -> bool:
    """Whether there is a key for wandb's server; asks nobody, neither the user nor the server, and prints nothing."""
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    return bool(wandb.login(prompt=False, verify=False))


def default_entity() -> str | None:
    """Whose project is meant where nobody is named: the server is asked, with its errors."""
    import wandb

    entity: str | None = wandb.Api(timeout=20).default_entity
    return entity


def _report(what: str, error: Exception) -> None:
    print(f"wandb: {what}: {starred(' '.join(str(error).split()) or type(error).__name__)[:200]}")


def wandb_of_job(
    labels: JobLabels,
    project: Any,
    entity: Any,
    group: Any,
    mode: Mode,
    artifacts: bool,
    tags: Any = (),
    notes: Any = None,
) -> WandbMirror:
    """The mirror of `logger=wandb`. A run folder that was removed and made again is a new run on wandb too.

    What a command line made numbers of, a year perhaps, are words here; one tag need be no list. Raises ValueError for
    a tag that wandb would not take.
    """
    project, entity, group, notes = (None if one is None else str(one) for one in (project, entity, group, notes))
    tags = [str(tag) for tag in (tags if isinstance(tags, list | tuple) else [tags])] if tags not in (None, "") else []
    if wrong := [tag for tag in tags if not 1 <= len(tag) <= 64]:
        raise ValueError(f"wandb.tags: {wrong[0]!r} has {len(wrong[0])} characters, a tag has 1 to 64")
    id = re.sub(r"[^\w.-]", "-", f"{labels.run[:100]}-{labels.born}", flags=re.ASCII)
    return WandbMirror(
        project, labels.folder, id, name=labels.run, entity=entity, group=group or labels.group,
        job_type=labels.job_type, tags=(*labels.tags, *tags), notes=notes, config=labels.config, steps=labels.steps,
        mode=mode, artifacts=artifacts,
    )  # fmt: skip
