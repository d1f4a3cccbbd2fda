"""What a user may set of a run's stages, names and folders: a mistake is told before any data are looked for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from birthplace_lm.composing import ConfigError, check_whole
from birthplace_lm.runs import STAGES

_ORDER = (*STAGES, "evaluate")
_GROUPS = ("optimizer", "schedule", "averaging", "adaptation", "distillation", "self_training")
_OF_PRETRAINING = ("distillation", "self_training")
_WHOLE = {"epochs": 1, "batch_size": 1, "micro_batches": 1, "validations": 0}  # and the least of each
_SWITCHES = ("shuffle", "static_width")


def check_recipes(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for stages, recipes, a name or folders that could not be, or that would not be what was meant.

    Also for whole numbers where others would be rounded somewhere, or two seeds become one.
    """
    _check_stages(settings["stages"])
    check_whole("seed", settings["seed"], 0)
    if settings["threads"] is not None:
        check_whole("threads", settings["threads"], 1)
    for stage in (stage for stage in STAGES if stage in settings["stages"]):
        _check_recipe(stage, settings[stage])
    _check_name(settings["name"])
    for key, folder in _folders(settings):
        if str(folder).startswith("~"):
            raise ConfigError(f"{key}={folder}: a shell writes ~ out only where a word begins with it, use $HOME")


def _check_stages(stages: Any) -> None:
    known = isinstance(stages, list) and set(stages) <= set(_ORDER)
    if not known or stages != sorted(stages, key=_ORDER.index):
        raise ConfigError(f"stages is a list of {', '.join(_ORDER)}, in this order, not {stages}")


def _check_recipe(stage: str, recipe: Mapping[str, Any]) -> None:
    for group in _GROUPS:
        if isinstance(option := recipe.get(group), str):
            raise ConfigError(f"{stage}.{group}={option} sets a value, a choice is {group}@{stage}.{group}={option}")
    for group in _OF_PRETRAINING:
        if stage != "pretrain" and recipe.get(group):
            raise ConfigError(f"{stage}.{group}: only a pretraining learns that, set pretrain.{group}")
    for key, least in _WHOLE.items():
        check_whole(f"{stage}.{key}", recipe[key], least)
    for key in _SWITCHES:
        if not isinstance(recipe.get(key, False), bool):  # no and off are words to Hydra, and words are true
            raise ConfigError(f"{stage}.{key}={recipe[key]}: true or false is needed")


def _check_name(name: Any) -> None:
    if name is not None and (str(name) != Path(str(name)).name or str(name).startswith(".")):
        raise ConfigError(f"name={name}: it becomes a folder in paths.runs, so no / and no dot at its beginning")


def _folders(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every setting that names a folder."""
    yield "paths.runs", settings["paths"]["runs"]
    yield "data.dir", settings["data"].get("dir")
    yield "init_from", settings["init_from"]
    for group in _OF_PRETRAINING:
        runs = (settings["pretrain"].get(group) or {}).get("runs")
        yield from ((f"pretrain.{group}.runs", run) for run in (runs if isinstance(runs, list) else []))
