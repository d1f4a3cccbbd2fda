"""Mirrors of a run, for looking on: wandb and TensorBoard, one file each.

The local files are the truth; a mirror may fail without harm to the run. A job has one `Mirror`, its stages and its
scoring each take a logger from it.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from birthplace_lm.history import RunLogger


@dataclass(frozen=True)
class JobLabels:
    """What a mirror is told of the run that it mirrors.

    `run` is the run folder's name and `born` something that never changes in one folder and differs between two.
    `steps` are those of each stage, in the order of training. `config` has no nested values, so that runs can be
    grouped by any of them.
    """

    run: str
    born: str
    folder: Path
    group: str
    job_type: str
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)


def labels_of(
    folder: Path,
    settings: Mapping[str, Any],
    choices: Mapping[str, str | None],
    stages: Sequence[str],
    steps: Mapping[str, int],
    first_session: Mapping[str, Any],
) -> JobLabels:
    """How a run is found among others: its group is the experiment, tags and settings are what tells runs apart.

    `choices` names the option of each configuration group, `stages` are those that the run has or will have; the first
    session of its folder, which tells when and how it began, stays the same however often the run is gone on with.
    """
    named = {key.split("@")[-1].replace(".", "_"): choice for key, choice in choices.items()}
    experiment = named.get("experiment") or "run"
    tags = [experiment, *(choice for group in ("attention", "positions", "data") if (choice := named.get(group)))]
    return JobLabels(
        run=folder.name,
        born=hashlib.sha256(json.dumps(first_session, sort_keys=True).encode()).hexdigest()[:8],
        folder=folder,
        group=experiment,
        job_type="+".join(stages),
        tags=(*tags, f"seed {settings['seed']}"),
        config={**flat(settings), **named, "commit": first_session["commit"]},
        steps=steps,
    )


class Mirror(ABC):
    """One job's run on a tracker: opened when something is logged for the first time, closed by `finish`."""

    @abstractmethod
    def stage(self, name: str, resume_step: int) -> RunLogger:
        """For the fit of one stage that goes on from this step, 0 for a stage that begins."""

    @abstractmethod
    def scores(self) -> RunLogger:
        """For what is found out about the trained model."""

    @property
    def reached(self) -> bool:
        """Whether what was logged so far came somewhere, so that it need not be told again."""
        return True

    def finish(self, status: str = "success") -> None:  # noqa: B027, most have nothing to close
        """In a `finally`, "failed" after an exception. Twice does no harm."""


def flat(settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Settings without nesting: parts of a name are joined by _ since trackers read a point as nesting.

    What says how a part is built is left out.

    >>> flat({"model": {"_partial_": True, "n_layers": 4}, "stages": ["pretrain"], "seed": 0})
    {'model_n_layers': 4, 'stages': ['pretrain'], 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if re.fullmatch("_(target|partial|convert|recursive)_", key):
            continue
        found |= flat(value, f"{where}{key}_") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return found
