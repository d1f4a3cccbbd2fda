"""The model that a configuration describes, and whether weights of another fit it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from birthplace_lm.composing import OF_A_RUN, ConfigError, build, config_folder, differences, load_config
from birthplace_lm.transformer import Transformer

ARCHITECTURE = ("model", "attention", "positions")


def with_layers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with files of configs/attention/ for their names in `attention.layers`, so that a run knows them.

    Raises ConfigError for a name that is no such file, and for more layers than the model has.
    """
    attention = settings["attention"]
    if not isinstance(attention.get("layers"), list):
        return dict(settings)
    listed, n_layers = len(attention["layers"]), settings["model"]["n_layers"]
    if listed > n_layers:
        raise ConfigError(
            f"attention.layers lists {listed} attentions for a model of {n_layers} layers: list {n_layers} or fewer, "
            f"or set model.n_layers={listed}"
        )
    layers = [_named(layer) if isinstance(layer, str) else layer for layer in attention["layers"]]
    return {**settings, "attention": {**attention, "layers": layers}}


def _named(name: str) -> dict[str, Any]:
    files = {path.stem: path for path in (config_folder() / "attention").glob("*.yaml") if path.stem != "hybrid"}
    if name not in files:
        raise ConfigError(f"attention.layers: no attention {name!r} for a layer, but {', '.join(sorted(files))}")
    return {**load_config(files[name]), "_partial_": True}


def build_model(config: Mapping[str, Any], vocabulary_size: int) -> Transformer:
    """The untrained model that a configuration describes."""
    config = with_layers(config)
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
