"""Which settings there are: what configs/train.yaml composes, so that a wrong name is told and not passed over.

Hydra adds whatever a command line adds with +, and takes away what ~ takes away; nothing asks for the one or finds the
other.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

import yaml

from birthplace_lm.composing import ConfigError, config_folder

_OF_HYDRA = {"defaults", "hydra"}
_GLOBAL = {"experiment", "debug"}  # groups whose options set what others have
_OF_STAGES = {"adaptation": "finetune"}  # of which stage a group is that is no setting of its own; else of pretraining


def check_names(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting that nobody asks for, and for one that is missing."""
    known = setting_names()
    for name in sorted(map(str, settings.keys() - known)):
        raise ConfigError(f"there is no setting {name}: {_instead(name, known)}")
    for name in sorted(known - settings.keys()):
        raise ConfigError(
            f"the setting {name} is missing: choose an option of it instead ({name}=none, where there is one)"
        )
    told = settings["wandb"].keys() - _names_of("wandb") if isinstance(settings["wandb"], Mapping) else {"wandb"}
    for name in sorted(told):
        raise ConfigError(f"there is no setting wandb.{name}: {', '.join(sorted(_names_of('wandb')))}")


@cache
def setting_names() -> frozenset[str]:
    """The settings at the top, groups among them."""
    told = _composed_of()
    groups = {str(key) for entry in told["defaults"] if isinstance(entry, dict) for key in entry}
    named = {group.split("@")[-1] for group in groups if not group.startswith("override ")}
    return frozenset({*map(str, told), *named} - _OF_HYDRA - _GLOBAL)


@cache
def _names_of(name: str) -> frozenset[str]:
    return frozenset(_composed_of()[name])


def _composed_of() -> dict[str, Any]:
    told = yaml.safe_load((config_folder() / "train.yaml").read_text(encoding="utf-8"))
    assert isinstance(told, dict)
    return told


def _instead(name: str, known: frozenset[str]) -> str:
    if (config_folder() / name).is_dir():
        return f"it is chosen for a stage, {name}@{_OF_STAGES.get(name, 'pretrain')}.{name}=…"
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
