"""From configuration to objects: the one place where a `_target_` becomes a call.

Only classes and functions that modules on an allow-list define are called, none of their methods and nothing that they
import. Configurations that are read back from a run folder may come from somebody else: of these only the model and the
data are ever built, from this package's own parts.
"""

import hashlib
import inspect
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from birthplace_lm.replacing import replace_file

_PARTS = (
    *("adaptation", "attention", "callbacks", "corruption", "distillation", "loggers", "optimization", "positions"),
    *("schedules", "search.choosing", "self_training", "sources", "torch_optimizers", "transformer", "world"),
)
_OF_LIGHTNING = ("callbacks", "plugins", "profilers", "strategies", "trainer")
ALLOWED = (
    *(f"birthplace_lm.{part}." for part in _PARTS),
    "pytorch_lightning.Trainer",
    *(f"pytorch_lightning.{part}." for part in _OF_LIGHTNING),
)
OF_A_RUN = tuple(f"birthplace_lm.{part}." for part in ("attention", "positions", "sources", "transformer", "world"))
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
_HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


class ConfigError(ValueError):
    """A configuration that cannot be run, with the reason and what to change."""


@contextmanager
def as_config_errors(where: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Errors of constructors that a setting caused, told as such; those of the kinds `but` as they are."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, (ConfigError, *but)) else ConfigError(f"{where}: {error}") from error


def in_one_line(error: BaseException) -> str:
    """Which error it is and what it says, for a table or a list."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def check_whole(name: str, value: Any, least: int, sign: str = "=") -> None:
    """Raise ConfigError unless a setting is a whole number of at least so much; true and 1.0 are none.

    `sign` is what the message has between name and value: " is " for what is seldom set on a command line.
    """
    if type(value) is not int or value < least:
        raise ConfigError(f"{name}{sign}{value}: a whole number is needed, {least} or more")


def config_folder() -> Path:
    """The folder of the configurations: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def check_targets(config: Any, where: str = "config", allowed: tuple[str, ...] = ALLOWED) -> None:
    """Raise ConfigError for any `_target_` outside the allow-list, however deep."""
    if isinstance(config, Mapping | DictConfig):
        target = config.get("_target_")
        if target is not None and not str(target).startswith(allowed):
            raise ConfigError(f"{where}._target_ is {target!r}; only names under {', '.join(allowed)} are called")
        for key, value in config.items():
            check_targets(value, f"{where}.{key}", allowed)
    elif isinstance(config, list | tuple | ListConfig):
        for i, value in enumerate(config):
            check_targets(value, f"{where}[{i}]", allowed)


def _check_resolved(config: Any, where: str = "config") -> None:
    """Raise ConfigError for an interpolation: Hydra would look it up in the midst of building, past all checks.

    A resolver may make a node with a `_target_` of its own, or put a secret of the environment into a message.
    """
    if isinstance(config, Mapping):
        for key, value in config.items():
            _check_resolved(key, where)
            _check_resolved(value, f"{where}.{key}")
    elif isinstance(config, list | tuple):
        for i, value in enumerate(config):
            _check_resolved(value, f"{where}[{i}]")
    elif isinstance(config, str) and "${" in config:
        raise ConfigError(f"{where} is {config!r}: what is built has values, and nothing in it is looked up")


def _check_origins(config: Any, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError for a `_target_` that is not what it is called, or that is no class or function of a module.

    A module's attributes are also what it imports, and a class's are its methods: Lightning has some that unpickle.
    """
    from hydra.utils import get_object

    if isinstance(config, Mapping | DictConfig):
        if (target := config.get("_target_")) is not None:
            try:
                found = get_object(str(target))
            except (ImportError, ValueError) as error:
                raise ConfigError(f"{target} cannot be found: {error}") from error
            name = getattr(found, "__qualname__", "")
            home = f"{getattr(found, '__module__', '')}.{name}"
            if not home.startswith(allowed):
                raise ConfigError(f"{target} is {home}, which no configuration may call")
            if allowed is OF_A_RUN and (name.startswith("_") or "_args_" in config):  # neither is what a run writes
                raise ConfigError(f"{target} is called in a way that no run writes down, so it is not")
            if "." in name or not (inspect.isclass(found) or inspect.isfunction(found)):
                raise ConfigError(f"{target} is no class or function of a module, so no configuration may call it")
            _check_kinds(str(target), found, config)
        config = list(config.values())
    if isinstance(config, list | tuple | ListConfig):
        for value in config:
            _check_origins(value, allowed)


def _check_kinds(target: str, found: Any, config: Mapping[Any, Any] | DictConfig) -> None:
    """Raise ConfigError where our own parameters that are numbers, words or switches were given something else.

    Half a window would be a TypeError in the first step, and true counts as 1.
    """
    if not target.startswith("birthplace_lm."):
        return
    for name, parameter in inspect.signature(found).parameters.items():
        kind = parameter.annotation
        kinds = get_args(kind) if isinstance(kind, UnionType) else [kind]
        if name in config and all(one in _KINDS for one in kinds) and not _is_one_of(config[name], kinds):
            wanted = " or ".join(_KINDS[one] for one in kinds)
            raise ConfigError(f"{target}: {name} is {config[name]!r}, but {wanted} is needed")


def _is_one_of(value: Any, kinds: Collection[type]) -> bool:
    """A whole number is a number, too; nan and infinity are none."""
    as_number = float in kinds and type(value) in (int, float) and math.isfinite(value)
    return as_number or (type(value) in kinds and type(value) is not float)


def build(config: Any, allowed: tuple[str, ...] = ALLOWED, **arguments: Any) -> Any:
    """Instantiate a node: its `_target_` called with its keys and the arguments (or a partial of it).

    Of a node that may come from a run folder `allowed` is OF_A_RUN. Raises ConfigError for a target that may not be
    called, for what it refuses, and for interpolations but those that Hydra has just composed.
    """
    if OmegaConf.is_config(config):
        config = OmegaConf.to_container(config, resolve=True)
    if not (isinstance(config, Mapping) and "_target_" in config):
        raise ConfigError(f"{config!r} does not say what to build: a node with a _target_ is needed, as configs/ has")
    _check_resolved(config)
    check_targets(config, allowed=allowed)
    _check_origins(config, allowed)
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        # Lightning's own error goes by its name: to import it would take longer than all else here
        refused = type(cause).__name__ == "MisconfigurationException"
        if refused or isinstance(cause, ValueError | TypeError | OSError | ImportError):
            partial = "required positional argument" in str(cause) and not config.get("_partial_")
            hint = " (is _partial_: true missing beside _target_?)" if partial else ""
            raise ConfigError(f"{config.get('_target_')}: {cause}{hint}") from cause
        raise


def plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as plain containers with all interpolations resolved."""
    node = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    try:
        container = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from None
    assert isinstance(container, dict)
    return container  # type: ignore[return-value]


def literal(settings: Mapping[str, Any]) -> DictConfig:
    """Settings as a configuration in which nothing is left to resolve: of a `${` in a text `plain` gives the text back.

    >>> plain(literal({"prefix": "${oc.env:HOME}", "sizes": [1, 2]}))
    {'prefix': '${oc.env:HOME}', 'sizes': [1, 2]}
    """
    config = OmegaConf.create(_escaped(settings))
    assert isinstance(config, DictConfig)
    return config


def _escaped(value: Any) -> Any:
    """Every `${` escaped for OmegaConf, where a backslash before it means two."""
    if isinstance(value, Mapping):
        return {key: _escaped(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(one) for one in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def save_config(config: Mapping[str, Any], path: Path) -> None:
    """Write a configuration as YAML, for `load_config` and for people."""
    replace_file(path, OmegaConf.to_yaml(OmegaConf.create(dict(config))))


def load_config(path: Path) -> dict[str, Any]:
    """A configuration that a run wrote, its targets checked; it was written resolved, so nothing in it is looked up."""
    try:
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {in_one_line(error)}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds {type(config).__name__}, not settings")
    check_targets(config, str(path))
    return config  # type: ignore[return-value]


def differences(one: Any, other: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """(key, in one, in other) wherever two configurations differ; None for what one of them lacks."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other}, key=str)
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{where}.{key}".lstrip("."))]
    return [] if one == other else [(where, one, other)]


def short_hash(*parts: Any) -> str:
    """Eight hex digits of some plain containers."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:8]
