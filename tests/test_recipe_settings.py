"""Stages, recipes, names and folders that a user might write, and what is said of those that cannot be meant."""

import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from birthplace_lm import stages
from birthplace_lm.composing import ConfigError, build
from birthplace_lm.identity import of_the_run
from birthplace_lm.jobs import prepare
from birthplace_lm.recipe_settings import check_recipes
from birthplace_lm.stopping import UnfinishedError
from birthplace_lm.trainer_settings import check_callbacks, seconds_of
from tests.test_configs import settings
from tests.test_stages import TINY, stop_at, tiny_run


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pretrain.optimizer=adamw", "a choice is optimizer@pretrain.optimizer=adamw"),
        ("finetune.schedule=linear", "a choice is schedule@finetune.schedule=linear"),
        ("pretrain.averaging=ema", "a choice is averaging@pretrain.averaging=ema"),
        ("finetune.adaptation=lora", "a choice is adaptation@finetune.adaptation=lora"),
        ("pretrain.distillation=runs", "a choice is distillation@pretrain.distillation=runs"),
        ("+finetune.self_training={runs: [/somewhere]}", "only a pretraining learns that"),
        ("+finetune.distillation={runs: [/somewhere]}", "only a pretraining learns that"),
        ("pretrain.shuffle=no", "pretrain.shuffle=no: true or false"),
        ("pretrain.static_width=off", "pretrain.static_width=off: true or false"),
        ("pretrain.epochs=2.5", "pretrain.epochs=2.5: a whole number"),
        ("name=..", "name=..: it becomes a folder"),
        ("name=.", "name=.: it becomes a folder"),
        ("name=.hidden", "name=.hidden: it becomes a folder"),
        ("name=a/b", "name=a/b: it becomes a folder"),
        ('paths.runs="~/runs"', "paths.runs=~/runs: a shell writes ~ out"),
        ('+data.dir="~/files"', "data.dir=~/files: a shell writes ~ out"),
        ('init_from="~/runs/mine"', "init_from=~/runs/mine: a shell writes ~ out"),
        ("stages=[evaluate,pretrain]", "in this order"),
        ("seed=-1", "seed=-1: a whole number"),
        ("pretrain.optimizer.betas=[0.9]", "two numbers are needed"),
        ("optimizer@pretrain.optimizer=muon pretrain.optimizer.lr=-1", "use 0 or more"),
        ("optimizer@pretrain.optimizer=muon pretrain.optimizer.momentum=5", "use 0 or more"),
        ("threads=0", "threads=0: a whole number"),
    ],
)
def test_what_cannot_be_meant_is_told_before_any_data_are_read(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        prepare(settings(*TINY, *(override.split() if "muon" in override else [override])), [])
    assert said in str(refused.value)


@pytest.mark.parametrize("override", ["name=mine", "name=v1.2_a-b", "pretrain.shuffle=false", "seed=3", "threads=2"])
def test_what_can_be_meant_is_not_refused(override: str) -> None:
    check_recipes(settings(*TINY, override))


@pytest.mark.parametrize("experiment", ["demo", "attention_variants"])
def test_ones_own_files_take_the_place_of_an_experiments_world(experiment: str, tmp_path: Path) -> None:
    own = settings("data=files", f"data.dir={tmp_path}")["data"]
    assert settings(f"experiment={experiment}", "data=files", f"data.dir={tmp_path}")["data"] == own


def test_a_finetuning_does_not_pass_over_a_pretraining_that_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would begin from random weights, and the pretraining could never be gone on with."""
    stop_at(monkeypatch, 3)
    with pytest.raises(UnfinishedError):
        tiny_run(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="a pretraining that has not come to its end"):
        tiny_run(tmp_path, "stages=[finetune,evaluate]")
    assert tiny_run(tmp_path, "stages=[pretrain]").stage("pretrain").finished
    assert tiny_run(tmp_path, "stages=[finetune,evaluate]").stage("finetune").finished


@pytest.mark.parametrize("node", ["RichProgressBar", None, 3, {"verbose": True}])
def test_a_callback_that_names_no_class_is_told(node: Any) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.b is .*: name a class, \+callbacks\.b\._target_="):
        check_callbacks({"b": node})
    with pytest.raises(ConfigError, match="does not say what to build: a node with a _target_ is needed"):
        build(node)


def test_a_sessions_time_is_not_that_of_the_next(tmp_path: Path) -> None:
    """Nor a setting that tells runs apart: what one session had no time for the next does, whatever it is given."""
    steps = []
    for seconds in (2, 1):
        with pytest.raises(UnfinishedError) as stopped:
            tiny_run(tmp_path, "pretrain.epochs=5000", "stages=[pretrain]", f"+trainer.max_time=00:00:00:0{seconds}")
        steps.append(int(str(stopped.value).split("step ")[1].split()[0].replace(",", "")))
    assert 0 < steps[0] < steps[1] and len([path for path in tmp_path.iterdir() if path.name[0] != "."]) == 1
    with_it = settings(*TINY, "+trainer.max_time=00:01:00:00")
    assert seconds_of("01:01:01:01") == 90061 == seconds_of({"days": 1, "hours": 1, "minutes": 1, "seconds": 1})
    assert of_the_run(with_it) == of_the_run(settings(*TINY))
    for wrong in ("5", "'00:10'", "{years: 1}", "'a:b:c:d'"):
        with pytest.raises(ConfigError, match=r"trainer\.max_time=.*: days, hours, minutes and seconds"):
            prepare(settings(*TINY, f"+trainer.max_time={wrong}"), [])


def test_the_stages_of_a_session_share_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second stage has what the first has left of it, and does not begin when that is nothing."""
    given: list[timedelta | None] = []
    trainer = stages.build

    def noted(node: Any, **arguments: Any) -> Any:
        if "max_time" in arguments:
            given.append(arguments["max_time"])
        return trainer(node, **arguments)

    monkeypatch.setattr(stages, "build", noted)
    tiny_run(tmp_path, "+trainer.max_time=00:01:00:00", "name=shared")
    assert given[0] and given[1] and timedelta(hours=1) > given[0] > given[1] > timedelta(minutes=50)
    later = iter([0.0, 0.0, *[1000.0] * 1000])  # the clock is looked at before a stage and when its Trainer is made
    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + next(later)))
    with pytest.raises(UnfinishedError, match="finetune has not begun: this session's time is over"):
        tiny_run(tmp_path, "+trainer.max_time={seconds: 500}", "name=over")
    monkeypatch.undo()
    assert tiny_run(tmp_path, "name=over").metrics()
