"""The trials of a search on disk, shared by as many processes as like to work on them.

    study.json      what is searched: the run that the trials vary, its command, the space
    journal.log     every trial, a line an event, written by Optuna
    locks/0007      held by the process that works on trial 7
    .lock           held while a trial is claimed
    .telling        held while the table and the pictures are made

Locks die with their process, so a trial that is called running and whose lock is free has lost its worker. The next
worker takes it over as it is: the same number, the same values, hence the same run folder, which goes on from its last
checkpoint. No clock and no heartbeat has to be right for that.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from birthplace_lm.composing import ConfigError, differences
from birthplace_lm.runs import read_json, write_json
from birthplace_lm.search.space import Space, Value


class _JournalLock(JournalFileOpenLock):
    """For Optuna's journal the lock of everything else here: one that a killed process leaves behind open."""

    def __init__(self, path: Path):
        self.path = path

    def acquire(self) -> bool:
        self._file = _locked(self.path, wait=True)
        return True

    def release(self) -> None:
        assert self._file
        self._file.close()


class SharedStudy:
    """A study in a folder: claims trials for this process and tells how all of them stand.

    `sampler` makes the sampler of a trial from its number, so what is proposed depends on the trials before it alone,
    not on which process asks or how often it was started. `first` are the values of the first trial, if they lie in
    the space: those of the command as it was given.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        sampler: Callable[[int], BaseSampler],
        pruner: BasePruner,
        first: Mapping[str, Value],
    ):
        self.folder, self.space, self.sampler = folder, space, sampler
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        with self._alone():
            with self._alone(".journal.lock"):
                _mend(folder / "journal.log")
            journal = JournalFileBackend(str(folder / "journal.log"), _JournalLock(folder / ".journal.lock"))
            self._storage = JournalStorage(journal)
            self._study = optuna.create_study(
                storage=self._storage, study_name=folder.name, direction="maximize", load_if_exists=True,
                sampler=sampler(0), pruner=pruner,
            )  # fmt: skip
            if not self._study.get_trials(deepcopy=False) and _lies_in(first, space):
                self._study.enqueue_trial(dict(first))

    @contextmanager
    def claimed(self, wanted: int) -> Iterator[Trial | None]:
        """A trial for this process as long as the block lasts: one that lost its worker, else a new one.

        None when there are `wanted` trials already and somebody works on each that is not finished.
        """
        with self._alone():
            trial, lock = self._claim(wanted)
        try:
            yield trial
        finally:
            if lock:
                lock.close()

    def _claim(self, wanted: int) -> tuple[Trial | None, TextIO | None]:
        trials = self._study.get_trials(deepcopy=False)
        for frozen in trials[: max(wanted, 0)]:
            if frozen.state == TrialState.RUNNING and (lock := _locked(self._lock(frozen.number))):
                return self._suggested(frozen.number, partial(self._trial, frozen.number)), lock
        begun = sum(trial.state != TrialState.WAITING for trial in trials)
        if begun >= wanted:
            return None, None
        waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
        number = waiting[0] if waiting else len(trials)
        lock = _locked(self._lock(number))
        return self._suggested(number, self._study.ask), lock

    def _suggested(self, number: int, get: Callable[[], Trial]) -> Trial:
        """The trial with a value for every key; those that it has already stay."""
        self._study.sampler = self.sampler(number)
        trial = get()
        for key, choice in self.space.items():
            choice.suggest(trial, key)
        return trial

    def _trial(self, number: int) -> Trial:
        study = self._storage.get_study_id_from_name(self._study.study_name)
        return Trial(self._study, self._storage.get_trial_id_from_study_id_trial_number(study, number))

    def reported(self, number: int) -> Mapping[int, float]:
        """What a trial has told so far: exact match by the number of the validation."""
        return self._study.get_trials(deepcopy=False)[number].intermediate_values

    def tell(self, trial: Trial, value: float | None, state: TrialState) -> None:
        """The end of a trial, with its value if it is complete."""
        self._study.tell(trial, value, state)

    def trials(self) -> tuple[Sequence[FrozenTrial], set[int]]:
        """All trials that have begun, and the numbers of those that a live process works on."""
        with self._alone():  # else the look at a lock could keep somebody from claiming that trial
            trials = [t for t in self._study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
            running = {t.number for t in trials if t.state == TrialState.RUNNING and self._is_held(t.number)}
        return trials, running

    def _is_held(self, number: int) -> bool:
        lock = _locked(self._lock(number))
        if lock:
            lock.close()
        return lock is None

    def _lock(self, number: int) -> Path:
        return self.folder / "locks" / f"{number + 1:04d}"  # Optuna counts from 0, people from 1

    @property
    def optuna(self) -> optuna.Study:
        """The study as Optuna knows it, to be analysed."""
        return self._study

    def telling(self) -> AbstractContextManager[None]:
        """Alone with the table and the pictures: of two workers that end together, the last to draw looked last."""
        return self._alone(".telling")

    @contextmanager
    def _alone(self, name: str = ".lock") -> Iterator[None]:
        lock = _locked(self.folder / name, wait=True)
        try:
            yield
        finally:
            assert lock
            lock.close()


def check_same_search(folder: Path, base: str, space: Mapping[str, Any]) -> None:
    """Keep in study.json which run is varied and how; ConfigError with a table where the folder has another search."""
    facts, found = {"varied run": base, "space": dict(space)}, read_json(folder / "study.json")
    if not found:
        write_json(folder / "study.json", facts)
    elif rows := differences(facts, found):
        table = "\n".join(f"  {key}: {ours} here, {theirs} there" for key, ours, theirs in rows)
        raise ConfigError(f"{folder} holds another search:\n{table}\ngive this one another search.name")


def _mend(journal: Path) -> None:
    """Cut off a last line that has no end, of a process that was killed or a disk that was full while it was written.

    Optuna passes over it, but would write the next event on the same line, and never read the journal again.
    """
    if journal.is_file() and (text := journal.read_bytes()) and not text.endswith(b"\n"):
        os.truncate(journal, text.rfind(b"\n") + 1)


def _locked(path: Path, wait: bool = False) -> TextIO | None:
    """The file, locked until it is closed; None where another holds it and we do not wait."""
    file = open(path, "a+")  # noqa: SIM115 (closed by whoever holds it)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    return file


def _lies_in(values: Mapping[str, Value], space: Space) -> bool:
    return all(choice.holds(values[key]) for key, choice in space.items())
