"""One trial after the other: claimed, run as birthplace-train would run it, watched, told."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from optuna.trial import Trial, TrialState

from birthplace_lm.composing import ConfigError
from birthplace_lm.jobs import prepare
from birthplace_lm.lightning_modules import PretrainModule
from birthplace_lm.replacing import replace_file
from birthplace_lm.run_lock import RunInUseError
from birthplace_lm.runs import RunFolder
from birthplace_lm.search.space import override
from birthplace_lm.search.study import SharedStudy
from birthplace_lm.stages import Done, run
from birthplace_lm.stopping import UnfinishedError

Composed = tuple[dict[str, Any], list[str]]  # the settings of a command line, and the groups that it names
Compose = Callable[[Sequence[str]], Composed]


class Watch(pl.Callback):
    """Tells `lags` the exact match of every validation, and ends the run where it says so.

    `validations` says how many each stage has, in their order: pretrain, then the one that learns to answer.
    lags(number, exact match) -> whether to stop; validations are numbered from 1 through all stages. Where a stage has
    one more or less than was asked for, because its steps do not divide, the numbers go by how far it has come, so that
    the same number is the same place in every trial.
    """

    def __init__(self, validations: Mapping[str, int], lags: Callable[[int, float], bool]):
        self.validations, self.lags, self.stopped = validations, lags, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.stopped:  # by the last validation of the stage before, which had no step left to be stopped at
            raise UnfinishedError("stopped between two stages; the same command again goes on from there")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        counts = list(self.validations.values())
        at = 0 if isinstance(pl_module, PretrainModule) else len(counts) - 1
        number = sum(counts[:at]) + max(1, round(counts[at] * trainer.global_step / trainer.max_steps))
        if self.lags(number, float(trainer.callback_metrics["validation/exact_match"])):
            self.stopped = trainer.should_stop = True


def work(study: SharedStudy, given: Sequence[str], compose: Compose, wanted: int, most_failures: int) -> None:
    """Carry out trials until there are `wanted`, this process's and others' counted together.

    `given` are the overrides that all trials share, `compose` makes settings of overrides. A trial that fails is noted
    as failed and the search goes on, until `most_failures` of this process have failed in a row, which is a
    ConfigError: then it is not the values. A run that is interrupted is an UnfinishedError and stays claimable.
    """
    failed: list[str] = []
    while True:
        with study.claimed(wanted) as trial:
            if trial is None:
                return
            overrides = [*given, *(override(key, trial.params[key]) for key in study.space)]
            print(f"\ntrial {trial.number + 1} of {wanted}: {' '.join(overrides[len(given) :])}", flush=True)
            trial.set_user_attr("command", command(overrides))
            error = _carry_out(study, trial, compose(overrides))
        failed = [*failed, error] if error else []
        if error:
            print(f"trial {trial.number + 1} failed: {error}", flush=True)
        if len(failed) >= most_failures:
            raise ConfigError(
                f"{len(failed)} trials in a row have failed, the last with {error}; mend the command or the space, "
                "or raise search.failures"
            )


def command(overrides: Sequence[str]) -> str:
    """The command that makes the run of a trial, to be pasted into a shell."""
    return shlex.join(["birthplace-train", *overrides])


def _carry_out(study: SharedStudy, trial: Trial, composed: Composed) -> str:
    """Run a trial to its end and tell the study; the error where it failed, else nothing.

    Its minutes are those of training, of all sessions and whoever began it; of one that was not finished, of its last.
    """
    settings, chosen = composed
    began = time.monotonic()

    def ended(state: TrialState, value: float | None = None, **facts: Any) -> None:
        for key, fact in {"minutes": (time.monotonic() - began) / 60, **facts}.items():
            trial.set_user_attr(key, fact)
        study.tell(trial, value, state)

    watch = _watch(study, trial, settings)
    try:
        folder = prepare(settings, chosen).folder
        trial.set_user_attr("folder", folder.name)
        _run_when_free(settings, chosen, watch)
    except UnfinishedError:
        if not watch.stopped:
            raise
        ended(TrialState.PRUNED, folder=folder.name)
        who = f"the search {study.folder.name}, trial {trial.number + 1}"
        _note(folder, f"pruned by {who}: {trial.user_attrs['command']} finishes it")
    except OSError:  # a full disk or a folder out of reach says nothing of the values: the trial stays claimable
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        ended(TrialState.FAIL, error=message)
        return message
    else:
        dev = folder.metrics()["dev"]
        ended(TrialState.COMPLETE, dev["exact_match"], dev=dev, minutes=folder.seconds_of_training() / 60)
    return ""


def _watch(study: SharedStudy, trial: Trial, settings: Mapping[str, Any]) -> Watch:
    """What tells the study the exact match of every validation, and asks it whether the trial lags behind others."""
    seen = set(study.reported(trial.number))

    def lags(number: int, share: float) -> bool:
        if number not in seen:  # a resumed run may validate again what it has told before
            seen.add(number)
            trial.report(share, number)
        return trial.should_prune()

    trained = [stage for stage in settings["stages"] if stage != "evaluate"]
    return Watch({stage: settings[stage]["validations"] for stage in trained}, lags)


def _run_when_free(settings: Mapping[str, Any], chosen: Sequence[str], watch: Watch) -> Done:
    """Run, once nobody else does: another worker may have drawn the same values, or somebody tries the command."""
    told = False
    while True:
        try:
            return run(settings, None, chosen, [watch])
        except RunInUseError as error:
            if not told:
                print(f"waiting: {error}", flush=True)
            told = True
            time.sleep(1)


def _note(folder: RunFolder, sentence: str) -> None:
    """Where birthplace-status looks: an unfinished run, not a failed one; the next attempt clears it away."""
    replace_file(folder.root / "error.txt", f"{UnfinishedError.__module__}.{UnfinishedError.__name__}: {sentence}\n")
