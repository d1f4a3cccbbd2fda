"""pretrain -> finetune -> evaluate: one run from its configuration to its scored answers.

Every stage finds what the one before left in the run folder, a finished stage is skipped, an interrupted one goes on at
the step where its last checkpoint stands. So the same command again is always the right thing to do.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytorch_lightning as pl
import torch

from birthplace_lm.adaptation import merged, n_learning
from birthplace_lm.asking import Inquiry
from birthplace_lm.callbacks import quieten_lightning
from birthplace_lm.checkpoints import CheckpointEvery, SafetensorsCheckpointIO, newest_valid
from birthplace_lm.composing import as_config_errors, build, plain
from birthplace_lm.data_parallel import Group, joined
from birthplace_lm.durations import duration
from birthplace_lm.figures import loss_curves
from birthplace_lm.history import CsvHistory, RunLogger
from birthplace_lm.identity import of_the_run
from birthplace_lm.jobs import Job, check_same_run, prepare
from birthplace_lm.lightning_modules import FinetuneModule, PretrainModule
from birthplace_lm.loggers import Mirror, labels_of
from birthplace_lm.process import set_up_process
from birthplace_lm.runs import STAGES, RunFolder, Stage, read_json, write_json
from birthplace_lm.scoring import evaluate
from birthplace_lm.setting_names import check_names
from birthplace_lm.sources import sha256_of_corpus
from birthplace_lm.stopping import UnfinishedError
from birthplace_lm.storage import save_weights
from birthplace_lm.trainer_settings import check_device, seconds_of
from birthplace_lm.transformer import Transformer

_FINISHED = -1  # the first step of a stage that has none left


@dataclass(frozen=True)
class Done:
    """A run that came to its end, and whether any stage was trained for it now: if not, all were finished before."""

    folder: RunFolder
    trained: bool


def run(
    config: Any,
    choices: Mapping[str, str] | None = None,
    chosen: Sequence[str] = (),
    callbacks: Sequence[pl.Callback] = (),
) -> Done:
    """Carry out the stages of a composed configuration.

    `choices` names the option of each configuration group, for the folder's name and the loggers. `chosen` lists the
    groups that the user named himself: with init_from the architecture comes from the run that is started from, and
    asking for another one is an error. `callbacks` watch every fit beside those of the configuration. What goes wrong
    once the folder is there is told in its error.txt, which the next attempt clears away.

    Where the trainer's settings want several processes, each of them calls this, and rank 0 alone writes and evaluates.
    """
    settings = plain(config)
    check_names(settings)
    settings["choices"] = dict(choices or settings["choices"])
    quieten_lightning()
    if isinstance(settings["threads"], int) and settings["threads"] > 0:  # `prepare` refuses others
        torch.set_num_threads(settings["threads"])
    with set_up_process(), joined(settings["trainer"]) as group:
        job = prepare(settings, chosen)
        check_device(settings["trainer"])
        if group.leads:
            return Done(job.folder, _lead(job, group, callbacks))
        return Done(job.folder, any([_train(job, group, stage, callbacks, []) for stage in job.steps]))


def _lead(job: Job, group: Group, callbacks: Sequence[pl.Callback]) -> bool:
    """What one process does alone, with the stages in between; whether any was trained."""
    with job.folder.locked():
        check_same_run(job)
        job.folder.create(job.record(), job.tokenizer)
        job.keep_pseudo_labels()
        job.folder.record_provenance(sha256_of_corpus(job.corpus))
        print(f"run folder: {job.folder.root}")
        with job.folder.errors_noted(), group.failing_together(), _mirrors(job) as mirrors:
            trained = any([_train(job, group, stage, callbacks, mirrors) for stage in job.steps])
            if "evaluate" in job.settings["stages"]:
                told = job.told_before() and not trained  # once, not again by every repetition
                if told and mirrors:
                    print(f"{', '.join(job.settings['logger'])}: told before of this run, which is finished")
                _evaluate(job, [] if told else mirrors)
    return trained


def _train(job: Job, group: Group, stage: str, callbacks: Sequence[pl.Callback], mirrors: Sequence[Mirror]) -> bool:
    """Train one stage to its end, from its newest good checkpoint if there is one; whether there was anything to do."""
    folder = job.folder.stage(stage)
    first = group.decided(lambda: _first_step(folder))
    if first == _FINISHED:
        print(f"{stage}: finished before, skipped")
        return False
    if group.decided(lambda: int(_time_left(job) <= 0)):
        raise UnfinishedError(f"{stage} has not begun: this session's time is over; the same command again goes on")
    recipe, data, model = job.settings[stage], job.data(stage), job.adapted(stage, job.starting_model(stage))
    kind = PretrainModule if stage == "pretrain" else FinetuneModule
    optimizer, schedule = build(recipe["optimizer"]), build(recipe["schedule"])
    distillation = job.distillation(stage)
    learner = kind(model, job.tokenizer, optimizer, schedule, seed=job.settings["seed"], distillation=distillation)
    if str(job.settings["trainer"].get("precision")) in ("64", "64-true"):
        learner.double()  # Lightning does so only after it has put a checkpoint's numbers into what is there
    resume = folder.checkpoints / f"step_{first:08d}.ckpt" if first else None
    loggers = [CsvHistory(folder.history, first - 1), *(mirror.stage(stage, first) for mirror in mirrors)]
    if group.leads:
        _note_progress(job, stage, first)
    status = "failed"
    try:
        trainer = _trainer(job, group, stage, data.plan.total_steps, callbacks, loggers)
        if group.leads:
            begins = f"going on from {resume.name}, " if resume else ""
            print(f"{stage}: {begins}{_what_learns(model)}")
        trainer.fit(learner, datamodule=data, ckpt_path=resume)
        if trainer.global_step < trainer.max_steps:
            raise UnfinishedError(
                f"{stage} stopped at step {trainer.global_step:,} of {trainer.max_steps:,}; "
                "the same command again goes on from there"
            )
        status = "success"
        if trainer.is_global_zero:
            facts = {"steps": trainer.global_step, "characters": learner.characters_seen, "seconds": learner.seconds}
            facts["trained_parameters"] = n_learning(model)
            save_weights(folder.weights, merged(model), {"stage": stage})
            write_json(folder.root / "stage.json", facts)
            for logger in loggers:
                logger.log_weights(stage, folder.weights)
            print(f"{stage}: done in {duration(learner.seconds)}")
        if _asked_to_stop(trainer) and stage != job.settings["stages"][-1]:
            raise UnfinishedError(f"{stage} is done; the same command again goes on with what follows")
    finally:
        for logger in loggers:
            logger.finish(status)
    return True


def _asked_to_stop(trainer: pl.Trainer) -> bool:
    return any(callback.asked_to_stop for callback in trainer.callbacks if isinstance(callback, CheckpointEvery))  # type: ignore[attr-defined]


def _what_learns(model: Transformer) -> str:
    learning, total = n_learning(model), model.n_parameters()
    return f"{learning:,} of {total:,} parameters learn" if learning < total else f"all {total:,} parameters learn"


def _first_step(folder: Stage) -> int:
    """The step at which a stage begins or goes on, or that it is finished."""
    if folder.finished:
        return _FINISHED
    newest = newest_valid(folder.checkpoints)
    return int(newest.stem.removeprefix("step_")) if newest else 0


def _time_left(job: Job) -> float:
    """Seconds that this session may still train: all its stages share them."""
    allowed = seconds_of(job.settings["trainer"].get("max_time"))
    return math.inf if allowed is None else allowed - (time.monotonic() - job.begun)


def _note_progress(job: Job, stage: str, first_step: int) -> None:
    """progress.json: the stage that begins now, at which step, what is asked for and the steps of all that train."""
    now, stages = datetime.now(UTC).isoformat(timespec="seconds"), job.settings["stages"]
    progress = {"stage": stage, "from": first_step, "began": now, "stages": stages, "steps": job.steps}
    write_json(job.folder.root / "progress.json", progress)


@contextmanager
def _mirrors(job: Job) -> Iterator[list[Mirror]]:
    """The mirrors that were asked for, beside the local files, which are the truth; ended as the job ends."""
    session = read_json(job.folder.root / "provenance.json")["sessions"][0]
    stages = [stage for stage in STAGES if stage in job.steps or job.folder.stage(stage).finished]
    choices = job.settings["choices"]
    steps = {stage: job.steps.get(stage) or job.folder.stage(stage).facts()["steps"] for stage in stages}
    labels = labels_of(job.folder.root, of_the_run(job.settings), choices, stages, steps, session)
    with as_config_errors("logger"):
        mirrors = [build(node)(labels=labels) for node in (job.settings["logger"] or {}).values()]
    status = "failed"
    try:
        yield mirrors
        status = "success"
    finally:
        for mirror in mirrors:
            mirror.finish(status)


def _trainer(
    job: Job,
    group: Group,
    stage: str,
    steps: int,
    watching: Sequence[pl.Callback],
    loggers: list[RunLogger],
) -> pl.Trainer:
    recipe = job.settings[stage]
    averaging = [recipe["averaging"]] if recipe["averaging"] else []  # first: what is saved holds this step's average
    callbacks = [*(build(node) for node in (*averaging, *job.settings["callbacks"].values())), *watching]
    validations = recipe["validations"]
    with as_config_errors("checkpoint"):
        checkpoints = CheckpointEvery(job.folder.stage(stage).checkpoints, **job.settings["checkpoint"])
    trainer: pl.Trainer = build(
        job.settings["trainer"],
        max_steps=steps,
        logger=loggers,
        callbacks=[*callbacks, checkpoints],
        plugins=[SafetensorsCheckpointIO(), group.environment()],
        strategy=group.strategy(),
        log_every_n_steps=max(1, min(job.settings["trainer"]["log_every_n_steps"], steps // 20)),
        val_check_interval=max(steps // max(validations, 1), 1),
        limit_val_batches=1.0 if validations else 0,
        max_time=timedelta(seconds=left) if math.isfinite(left := _time_left(job)) else None,
    )
    return trainer


def _evaluate(job: Job, mirrors: Sequence[Mirror]) -> None:
    """Score the run and tell the mirrors."""
    loss_curves(job.folder)
    loggers = [mirror.scores() for mirror in mirrors]
    status = "failed"
    try:
        evaluate(job.folder, job.corpus, loggers, Inquiry(at_most=job.settings.get("ask_at_most")))
        pairs = zip(job.settings["logger"] or {}, mirrors, strict=False)  # none where all were told before
        told = {*job.folder.metrics().get("mirrored", []), *(name for name, mirror in pairs if mirror.reached)}
        job.folder.update_metrics(mirrored=sorted(told))
        status = "success"
    finally:
        for logger in loggers:
            logger.finish(status)
