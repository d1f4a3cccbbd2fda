"""pretrain -> finetune -> evaluate: one run from its configuration to its scored answers.

Every stage finds what the one before left in the run folder, a finished stage is skipped, an interrupted one goes on at
the step where its last checkpoint stands. So the same command again is always the right thing to do.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from birthplace_lm.batches import step_seed
from birthplace_lm.callbacks import duration, quieten_lightning
from birthplace_lm.checkpoints import CheckpointEvery, SafetensorsCheckpointIO, newest_valid
from birthplace_lm.composing import ConfigError, build, plain, short_hash
from birthplace_lm.corpus import Corpus, hold_out
from birthplace_lm.datamodules import BirthplaceDataModule, SpanCorruptionDataModule
from birthplace_lm.figures import loss_curves
from birthplace_lm.history import CsvHistory, RunLogger
from birthplace_lm.lightning_modules import FinetuneModule, PretrainModule
from birthplace_lm.loggers import FitLabels
from birthplace_lm.runs import STAGES, RunFolder, build_model, check_same_architecture, write_json
from birthplace_lm.scoring import evaluate
from birthplace_lm.sources import sha256_of_corpus
from birthplace_lm.storage import load_weights, save_weights
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer

_NOT_OF_THE_RUN = ("paths", "logger", "wandb", "callbacks", "checkpoint", "choices", "name", "threads")


class UnfinishedError(RuntimeError):
    """A stage stopped before its last step; nothing is lost."""


@dataclass(frozen=True)
class Job:
    """One run while it is worked on: what it was told, where it lives, what it learns from."""

    settings: dict[str, Any]
    folder: RunFolder
    corpus: Corpus
    tokenizer: CharTokenizer
    source: RunFolder | None  # where the weights come from that it starts with


def run(config: Any, choices: Mapping[str, str] | None = None, chosen: Sequence[str] = ()) -> RunFolder:
    """Carry out the stages of a composed configuration; returns the run folder.

    `choices` names the option of each configuration group, for the folder's name and the loggers. `chosen` lists the
    groups that the user named himself: with init_from the architecture comes from the run that is started from, and
    asking for another one is an error.
    """
    settings = plain(config)
    settings["choices"] = dict(choices or settings["choices"])
    unknown = set(settings["stages"]) - {*STAGES, "evaluate"}
    if unknown:
        raise ConfigError(f"stages are {', '.join(STAGES)} and evaluate, not {', '.join(sorted(unknown))}")
    quieten_lightning()
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    job = _prepare(settings, chosen)
    with job.folder.locked():
        job.folder.create(_without_places(job.settings), job.tokenizer)
        job.folder.record_provenance(sha256_of_corpus(job.corpus))
        print(f"run folder: {job.folder.root}")
        for stage in settings["stages"]:
            _STAGES[stage](job)
    return job.folder


def _prepare(settings: dict[str, Any], chosen: Sequence[str]) -> Job:
    source = RunFolder(settings["init_from"]) if settings["init_from"] else None
    if source:
        found = source.config()
        if {"model", "attention", "positions"} & set(chosen):
            check_same_architecture(settings, found, source.root)
        settings = {**settings, **{key: found[key] for key in ("model", "attention", "positions")}}
    corpus = with_held_out(build(settings["data"]).corpus(), settings["held_out_share"])
    tokenizer = source.tokenizer() if source else CharTokenizer.fit(_shown_in_training(corpus))
    folder = RunFolder(Path(settings["paths"]["runs"]) / run_name(settings, corpus))
    return Job(settings, folder, corpus, tokenizer, source)


def _shown_in_training(corpus: Corpus) -> Iterator[str]:
    """Documents and train questions: a text need not hold a question mark for questions to end in one."""
    yield from corpus.documents
    for question in corpus.train:
        yield question.text + (question.answer or "")


def corpus_of(folder: RunFolder, data: Path | None = None) -> Corpus:
    """The data that a finished run was made from; `data` names the folder of its files where it used files."""
    settings = folder.config()
    node = {**settings["data"], "dir": str(data)} if data else settings["data"]
    corpus = with_held_out(build(node).corpus(), settings["held_out_share"])
    if sha256_of_corpus(corpus) != folder.data_fingerprint():
        raise ConfigError(f"the data now found differ from those that {folder.root} was trained on")
    return corpus


def with_held_out(corpus: Corpus, share: float) -> Corpus:
    """For tuning: some of the train people take the place of dev, and test is left out: neither is looked at."""
    if not share:
        return corpus
    train, held = hold_out(corpus.train, share, seed=0)
    return replace(corpus, train=train, dev=held, test=())


def run_name(settings: Mapping[str, Any], corpus: Corpus) -> str:
    """experiment-attention-positions-s<seed>-<hash of everything that the result depends on>."""
    if settings["name"]:
        return str(settings["name"])
    told = {key: value for key, value in _without_places(settings).items() if key not in _NOT_OF_THE_RUN}
    choices = settings["choices"]
    words = [choices.get("experiment") or "run", choices.get("attention", "own"), choices.get("positions", "own")]
    return "-".join([*words, f"s{settings['seed']}", short_hash(told, sha256_of_corpus(corpus))])


def _without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without what only holds on this machine."""
    data = {key: None if key == "dir" else value for key, value in settings["data"].items()}
    return {**{key: value for key, value in settings.items() if key != "paths"}, "data": data}


# ------------------------------------------------------------------------------------------------------ training stages


def _pretrain(job: Job) -> None:
    recipe, size = dict(job.settings["pretrain"]), job.settings["model"]["block_size"]
    _fit(
        job, "pretrain", PretrainModule, recipe,
        lambda rest: SpanCorruptionDataModule(
            job.corpus.documents, job.corpus.train, job.tokenizer,
            build(job.settings["corruption"], block_size=size), size, seed=job.settings["seed"], **rest,
        ),
    )  # fmt: skip


def _finetune(job: Job, stage: str = "finetune") -> None:
    _fit(
        job, stage, FinetuneModule, dict(job.settings[stage]),
        lambda rest: BirthplaceDataModule(
            job.corpus.train, job.corpus.dev, job.tokenizer, job.settings["model"]["block_size"],
            seed=job.settings["seed"], **rest,
        ),
    )  # fmt: skip


def _fit(
    job: Job,
    stage: str,
    module: type[PretrainModule | FinetuneModule],
    recipe: dict[str, Any],
    data: Callable[[dict[str, Any]], SpanCorruptionDataModule | BirthplaceDataModule],
) -> None:
    """Train one stage to its end, from its newest good checkpoint if there is one."""
    folder = job.folder.stage(stage)
    if folder.finished:
        print(f"{stage}: finished before, skipped")
        return
    optimizer, schedule = build(recipe.pop("optimizer")), build(recipe.pop("schedule"))
    validations = recipe.pop("validations", 0)
    datamodule = data(recipe)
    model = _starting_model(job, stage)
    learner = module(model, job.tokenizer, optimizer, schedule, seed=job.settings["seed"])
    resume = newest_valid(folder.checkpoints)
    loggers = _loggers(job, stage, int(resume.stem.removeprefix("step_")) if resume else 0)
    trainer = _trainer(job, stage, datamodule.plan.total_steps, validations, loggers)
    if resume:
        print(f"{stage}: going on from {resume.name}")
    status = "failed"
    try:
        trainer.fit(learner, datamodule=datamodule, ckpt_path=resume)
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


def _starting_model(job: Job, stage: str) -> Transformer:
    """Fresh weights, or those that the stage starts from: this run's pretraining, or the run named by init_from."""
    torch.manual_seed(step_seed(job.settings["seed"], -1))
    model = build_model(job.settings, len(job.tokenizer))
    pretrained = job.folder.stage("pretrain")
    if stage == "finetune_only":
        return model
    if stage == "finetune" and "pretrain" in job.settings["stages"]:
        load_weights(pretrained.weights, model)
    elif job.source:
        begin = job.source.stage("pretrain")
        load_weights(begin.weights if begin.finished else job.source.stage(job.source.final_stage()).weights, model)
    return model


def _loggers(job: Job, stage: str, resume_step: int) -> list[RunLogger]:
    """The history file, which is the truth, and the mirrors that were asked for."""
    choices, seed = job.settings["choices"], job.settings["seed"]
    tags = [choices.get("experiment") or "run", stage, choices.get("attention", "own"), f"seed {seed}"]
    labels = FitLabels(job.folder.name, stage, job.folder.root, resume_step, tuple(tags))
    mirrors = [build(node, labels=labels) for node in (job.settings["logger"] or {}).values()]
    for mirror in mirrors:
        mirror.log_hyperparams({**choices, "seed": seed, "stage": stage, **_without_places(job.settings)})
    return [CsvHistory(job.folder.stage(stage).history, resume_step - 1), *mirrors]


def _trainer(job: Job, stage: str, steps: int, validations: int, loggers: list[RunLogger]) -> pl.Trainer:
    callbacks = [build(node) for node in job.settings["callbacks"].values()]
    checkpoints = CheckpointEvery(job.folder.stage(stage).checkpoints, **job.settings["checkpoint"])
    every = max(steps // max(validations, 1), 1)
    trainer: pl.Trainer = build(
        job.settings["trainer"],
        max_steps=steps,
        logger=loggers,
        callbacks=[*callbacks, checkpoints],
        plugins=[SafetensorsCheckpointIO()],
        val_check_interval=every,
        limit_val_batches=1.0 if validations else 0,
    )
    return trainer


def _evaluate(job: Job) -> None:
    loss_curves(job.folder)
    evaluate(job.folder, job.corpus, _loggers(job, "evaluate", 0)[1:])


_STAGES: dict[str, Callable[[Job], None]] = {
    "pretrain": _pretrain,
    "finetune": _finetune,
    "finetune_only": functools.partial(_finetune, stage="finetune_only"),
    "evaluate": _evaluate,
}
