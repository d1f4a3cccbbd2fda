"""From configuration to objects: the one place where a `_target_` becomes a call.

Only what modules on an allow-list define is called, nothing that they import: also in configurations that are read
back from a run folder, since such a folder may come from somebody else.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_PARTS = (
    *("adaptation", "attention", "callbacks", "corruption", "distillation", "loggers", "optimization", "positions"),
    *("schedules", "search.choosing", "sources", "transformer", "world"),
)
_OF_LIGHTNING = ("callbacks", "loggers", "plugins", "profilers", "strategies", "trainer")
ALLOWED = (
    *(f"birthplace_lm.{part}." for part in _PARTS),
    "pytorch_lightning.Trainer",
    *(f"pytorch_lightning.{part}." for part in _OF_LIGHTNING),
    "torch.optim.",
)
_HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


class ConfigError(ValueError):
    """A configuration that cannot be run, with the reason and what to change."""


@contextmanager
def as_config_errors(where: str) -> Iterator[None]:
    """Errors of constructors that a setting caused, told as such."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{where}: {error}") from error


def config_folder() -> Path:
    """The folder of the configurations: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def check_targets(config: Any, where: str = "config") -> None:
    """Raise ConfigError for any `_target_` outside the allow-list, however deep."""
    if isinstance(config, Mapping | DictConfig):
        target = config.get("_target_")
        if target is not None and not str(target).startswith(ALLOWED):
            raise ConfigError(f"{where}._target_ is {target!r}; only names under {', '.join(ALLOWED)} are called")
        for key, value in config.items():
            check_targets(value, f"{where}.{key}")
    elif isinstance(config, list | tuple | ListConfig):
        for i, value in enumerate(config):
            check_targets(value, f"{where}[{i}]")


def _check_origins(config: Any) -> None:
    """Raise ConfigError for a `_target_` that is not what it is called: a module's import, found as its attribute."""
    from hydra.utils import get_object

    if isinstance(config, Mapping | DictConfig):
        if (target := config.get("_target_")) is not None:
            try:
                found = get_object(str(target))
            except (ImportError, ValueError) as error:
                raise ConfigError(f"{target} cannot be found: {error}") from error
            home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
            if not home.startswith(ALLOWED):
                raise ConfigError(f"{target} is {home}, which no configuration may call")
        config = list(config.values())
    if isinstance(config, list | tuple | ListConfig):
        for value in config:
            _check_origins(value)


def build(config: Any, **arguments: Any) -> Any:
    """Instantiate a node: its `_target_` called with its keys and the arguments (or a partial of it)."""
    check_targets(config)
    _check_origins(config)
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError | TypeError | OSError):
            raise ConfigError(f"{config.get('_target_')}: {cause}") from cause
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


def save_config(config: Mapping[str, Any], path: Path) -> None:
    """Write a configuration as YAML, for `load_config` and for people."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(dict(config))), encoding="utf-8")


def load_config(path: Path) -> dict[str, Any]:
    """A configuration that a run wrote, its targets checked."""
    config = plain(OmegaConf.load(path))  # type: ignore[arg-type]
    check_targets(config, str(path))
    return config


def differences(one: Any, other: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """(key, in one, in other) wherever two configurations differ; None for what one of them lacks."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other}, key=str)
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{where}.{key}".lstrip("."))]
    return [] if one == other else [(where, one, other)]


def short_hash(*parts: Any) -> str:
    """Eight hex digits of some plain containers."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:8]
