"""The model that a configuration describes, and whether weights of another fit it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from birthplace_lm.composing import OF_A_RUN, ConfigError, build, differences
from birthplace_lm.transformer import Transformer

ARCHITECTURE = ("model", "attention", "positions")


def build_model(config: Mapping[str, Any], vocabulary_size: int) -> Transformer:
    """The untrained model that a configuration describes."""
    attention, positions = (build(config[part], OF_A_RUN) for part in ("attention", "positions"))
    make = build(config["model"], OF_A_RUN, vocabulary_size=vocabulary_size, attention=attention, positions=positions)
    try:
        model: Transformer = make()
    except ValueError as error:  # parts that do not go together
        raise ConfigError(str(error)) from error
    return model


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that weights depend on."""
    return {key: config[key] for key in ARCHITECTURE}


def check_same_architecture(wanted: Mapping[str, Any], found: Mapping[str, Any], source: Path) -> None:
    """Raise ConfigError with a table of what differs between two configurations' architectures."""
    rows = differences(architecture(wanted), architecture(found))
    if rows:
        table = "\n".join(f"  {key:40} {ours!s:30} {theirs}" for key, ours, theirs in rows)
        raise ConfigError(
            f"{source} holds weights of another architecture:\n  {'setting':40} {'asked for':30} in the run\n{table}\n"
            "leave these settings out to take them from the run"
        )
