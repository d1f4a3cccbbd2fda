"""pretrain -> finetune -> evaluate: one run from its configuration to its scored answers.

Every stage finds what the one before left in the run folder, a finished stage is skipped, an interrupted one goes on at
the step where its last checkpoint stands. So the same command again is always the right thing to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytorch_lightning as pl
import torch

from birthplace_lm.callbacks import duration, quieten_lightning
from birthplace_lm.checkpoints import CheckpointEvery, SafetensorsCheckpointIO, newest_valid
from birthplace_lm.composing import build, plain
from birthplace_lm.figures import loss_curves
from birthplace_lm.history import CsvHistory, RunLogger
from birthplace_lm.jobs import Job, as_config_errors, check_same_run, prepare
from birthplace_lm.lightning_modules import FinetuneModule, PretrainModule
from birthplace_lm.loggers import FitLabels
from birthplace_lm.runs import RunFolder, write_json
from birthplace_lm.scoring import evaluate
from birthplace_lm.sources import sha256_of_corpus
from birthplace_lm.storage import save_weights


class UnfinishedError(RuntimeError):
    """A stage stopped before its last step; nothing is lost."""


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
    """
    settings = plain(config)
    settings["choices"] = dict(choices or settings["choices"])
    quieten_lightning()
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    job = prepare(settings, chosen)
    with job.folder.locked():
        check_same_run(job)
        job.folder.create(job.record(), job.tokenizer)
        job.folder.record_provenance(sha256_of_corpus(job.corpus))
        print(f"run folder: {job.folder.root}")
        with job.folder.errors_noted():
            trained = any([_train(job, stage, callbacks) for stage in job.steps])
            if "evaluate" in settings["stages"]:
                _evaluate(job, mirrored=not trained and "rows" in job.folder.metrics())
    return Done(job.folder, trained)


def _train(job: Job, stage: str, callbacks: Sequence[pl.Callback]) -> bool:
    """Train one stage to its end, from its newest good checkpoint if there is one; whether there was anything to do."""
    folder = job.folder.stage(stage)
    if folder.finished:
        print(f"{stage}: finished before, skipped")
        return False
    recipe, data, model = job.settings[stage], job.data(stage), job.starting_model(stage)
    kind = PretrainModule if stage == "pretrain" else FinetuneModule
    optimizer, schedule = build(recipe["optimizer"]), build(recipe["schedule"])
    learner = kind(model, job.tokenizer, optimizer, schedule, seed=job.settings["seed"])
    resume = newest_valid(folder.checkpoints)
    first = int(resume.stem.removeprefix("step_")) if resume else 0
    loggers = _loggers(job, stage, first)
    _note_progress(job.folder, stage, first, job.steps)
    status = "failed"
    try:
        trainer = _trainer(job, stage, data.plan.total_steps, callbacks, loggers)
        if resume:
            print(f"{stage}: going on from {resume.name}")
        trainer.fit(learner, datamodule=data, ckpt_path=resume)
        if trainer.global_step < trainer.max_steps:
            raise UnfinishedError(
                f"{stage} stopped at step {trainer.global_step:,} of {trainer.max_steps:,}; "
                "the same command again goes on from there"
            )
        status = "success"
        if trainer.is_global_zero:
            save_weights(folder.weights, model, {"stage": stage})
            facts = {"steps": trainer.global_step, "characters": learner.characters_seen, "seconds": learner.seconds}
            write_json(folder.root / "stage.json", facts)
            print(f"{stage}: done in {duration(learner.seconds)}")
    finally:
        for logger in loggers:
            logger.finish(status)
    return True


def _note_progress(folder: RunFolder, stage: str, first_step: int, planned: Mapping[str, int]) -> None:
    """progress.json: the stage that begins now, at which step, and the steps that every stage will have."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder.root / "progress.json", {"stage": stage, "from": first_step, "began": now, "steps": planned})


def _loggers(job: Job, stage: str, resume_step: int) -> list[RunLogger]:
    """The history file, which is the truth, and the mirrors that were asked for."""
    choices, seed = job.settings["choices"], job.settings["seed"]
    tags = [choices.get("experiment") or "run", stage, choices.get("attention", "own"), f"seed {seed}"]
    labels = FitLabels(job.folder.name, stage, job.folder.root, resume_step, tuple(tags))
    with as_config_errors("logger"):
        mirrors = [build(node)(labels=labels) for node in (job.settings["logger"] or {}).values()]
    for mirror in mirrors:
        mirror.log_hyperparams({**choices, "seed": seed, "stage": stage, **job.record()})
    return [CsvHistory(job.folder.stage(stage).history, resume_step - 1), *mirrors]


def _trainer(job: Job, stage: str, steps: int, watching: Sequence[pl.Callback], loggers: list[RunLogger]) -> pl.Trainer:
    callbacks = [*(build(node) for node in job.settings["callbacks"].values()), *watching]
    validations = job.settings[stage]["validations"]
    with as_config_errors("checkpoint"):
        checkpoints = CheckpointEvery(job.folder.stage(stage).checkpoints, **job.settings["checkpoint"])
    trainer: pl.Trainer = build(
        job.settings["trainer"],
        max_steps=steps,
        logger=loggers,
        callbacks=[*callbacks, checkpoints],
        plugins=[SafetensorsCheckpointIO()],
        log_every_n_steps=max(1, min(job.settings["trainer"]["log_every_n_steps"], steps // 20)),
        val_check_interval=max(steps // max(validations, 1), 1),
        limit_val_batches=1.0 if validations else 0,
    )
    return trainer


def _evaluate(job: Job, mirrored: bool) -> None:
    """Score the run; the mirrors are told once, not again by every repetition of a finished command."""
    loss_curves(job.folder)
    mirrors = [] if mirrored else _loggers(job, "evaluate", 0)[1:]
    status = "failed"
    try:
        evaluate(job.folder, job.corpus, mirrors)
        status = "success"
    finally:
        for mirror in mirrors:
            mirror.finish(status)
