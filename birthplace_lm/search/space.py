"""What a search may try: ranges and lists of options for keys of the configuration, and the overrides they become."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import Trial

from birthplace_lm.composing import ConfigError
from birthplace_lm.runs import STAGES

Value = bool | int | float | str | None
_BARE = re.compile(r"[A-Za-z_][\w./-]*")  # text that Hydra reads as text without quotes
_READ_AS_SOMETHING_ELSE = {"null", "true", "false", "nan", "inf"}
_NOT_TO_SEARCH = {
    "seed": "a lucky seed is no better setting: search with one, then confirm with others",
    "data": "every trial would be asked about another world",
    "held_out_share": "every trial would be asked about other people",
    "stages": "a stage more or less is another training: choose on the command line",
    "name": "the trials would share a folder",
    "init_from": "weights are no setting: choose on the command line",
    "validations": "the trials are compared at the validations, so all have the same",
} | dict.fromkeys(
    ("paths", "logger", "wandb", "callbacks", "checkpoint", "choices", "threads"), "no result depends on it"
)


@dataclass(frozen=True)
class Range:
    """Every number from `low` to `high`, both included: whole ones where both are; `log` spreads them by ratio."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: Trial, key: str) -> Value:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    def ends(self) -> Sequence[Value]:
        return (self.low, self.high)

    def holds(self, value: Value) -> bool:
        """Whether a trial may have this value."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9)


@dataclass(frozen=True)
class Options:
    """One of some values, none nearer to another: words, numbers, or the files of a configuration group."""

    options: tuple[Value, ...]

    def suggest(self, trial: Trial, key: str) -> Value:
        value: Value = trial.suggest_categorical(key, self.options)
        return value

    def ends(self) -> Sequence[Value]:
        return self.options

    def holds(self, value: Value) -> bool:
        """Whether a trial may have this value."""
        return any(value == option and type(value) is type(option) for option in self.options)


Space = Mapping[str, Range | Options]


def read_space(node: Mapping[str, Any], settings: Mapping[str, Any]) -> Space:
    """The search space of a YAML mapping, every key looked up in the composed settings that it is to vary.

    A value {low: …, high: …, log: …, step: …} is a Range, a list is one of Options. Raises ConfigError with the key
    for what cannot be searched: no such key, nothing between low and high, a logarithm of zero, a fraction of layers.
    """
    if not node:
        raise ConfigError(
            "search.space is empty: name a key and its range, pretrain.optimizer.lr: {low: 1e-3, high: 1e-2}"
        )
    return {key: _read_one(str(key), given, settings) for key, given in node.items()}


def _read_one(key: str, given: Any, settings: Mapping[str, Any]) -> Range | Options:
    where = f"search.space: {key}"
    _check_key(key, settings, where)
    now = value_of(key, settings)
    if isinstance(given, list):
        return _options(given, where)
    if not isinstance(given, Mapping) or not {"low", "high"} <= set(given) <= {"low", "high", "log", "step"}:
        raise ConfigError(f"{where} is a list of options or {{low: …, high: …}} with log or step, not {given}")
    if key in settings["choices"]:
        raise ConfigError(f"{where} is a group of configurations: give a list of its files, not a range")
    if isinstance(now, bool | str | list):
        raise ConfigError(f"{where} is {now!r} in the configuration, which lies in no range: give a list of options")
    return _range(given, isinstance(now, int), isinstance(now, float), where)


def _check_key(key: str, settings: Mapping[str, Any], where: str) -> None:
    parts = key.split(".")
    for reason in (_NOT_TO_SEARCH.get(parts[0]), _NOT_TO_SEARCH.get(parts[-1])):
        if reason:
            raise ConfigError(f"{where} cannot be searched: {reason}")
    stage = next((stage for stage in STAGES if stage in (parts[0], key.partition("@")[2].split(".")[0])), None)
    if stage and stage not in settings["stages"]:
        raise ConfigError(f"{where}: {stage} is not among stages={settings['stages']}, so nothing would change")
    if key not in settings["choices"] and key not in leaves(settings):
        near = difflib.get_close_matches(key, [*leaves(settings), *settings["choices"]], n=1)
        raise ConfigError(f"{where} is no key of the configuration" + (f"; did you mean {near[0]}?" if near else ""))


def _options(given: Sequence[Any], where: str) -> Options:
    if any(not isinstance(value, Value) for value in given):
        raise ConfigError(f"{where}: an option is a word, a number, true, false or null, not {list(given)}")
    if len(set(map(repr, given))) < max(len(given), 2):
        raise ConfigError(f"{where}: {list(given)} is no choice: give two options or more, each once")
    return Options(tuple(given))


def _range(given: Mapping[str, Any], whole: bool, fraction: bool, where: str) -> Range:
    """A range of whole numbers if the configuration has one there, or if it has none there and both ends are whole."""
    low, high, log, step = given["low"], given["high"], given.get("log", False), given.get("step")
    numbers = [low, high] if step is None else [low, high, step]
    if any(isinstance(n, bool) or not isinstance(n, int | float) or not math.isfinite(n) for n in numbers):
        raise ConfigError(f"{where}: low, high and step are finite numbers, not {', '.join(map(repr, numbers))}")
    if whole and not all(isinstance(n, int) for n in numbers):
        raise ConfigError(f"{where} is a whole number in the configuration; so are low, high and step, not {numbers}")
    if fraction or not all(isinstance(n, int) for n in numbers):
        low, high, step = float(low), float(high), None if step is None else float(step)
    if not isinstance(log, bool):
        raise ConfigError(f"{where}: log is true or false, not {log!r}")
    if low >= high:
        raise ConfigError(f"{where}: low is {low} and high is {high}: nothing lies between")
    if log and (low <= 0 or step is not None):
        wrong = (
            f"low is {low}, and only positive numbers have a logarithm"
            if low <= 0
            else "log and step exclude each other"
        )
        raise ConfigError(f"{where}: {wrong}")
    if step is not None and (step <= 0 or not Range(low, high, step=step).holds(high)):
        raise ConfigError(f"{where}: steps of {step} do not lead from {low} to {high}")
    return Range(low, high, log, step)


def leaves(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Every value of some nested settings by its dotted key.

    >>> leaves({"model": {"n_layers": 2}, "seed": 0})
    {'model.n_layers': 2, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        dotted = f"{above}{key}"
        found |= leaves(value, f"{dotted}.") if isinstance(value, Mapping) else {dotted: value}
    return found


def value_of(key: str, settings: Mapping[str, Any]) -> Any:
    """What the settings have at a dotted key, or the chosen file of a group."""
    return settings["choices"][key] if key in settings["choices"] else leaves(settings)[key]


def override(key: str, value: Value) -> str:
    """A key and its value as they stand on the command line, so written that the same value is read again.

    >>> override("pretrain.optimizer.lr", 0.1 + 0.2), override("corruption.max_length", None), override("a", "true")
    ('pretrain.optimizer.lr=0.30000000000000004', 'corruption.max_length=null', "a='true'")
    """
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    if not isinstance(value, str) or (_BARE.fullmatch(value) and value.lower() not in _READ_AS_SOMETHING_ELSE):
        return f"{key}={value}"
    quoted = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), value)
    return f"{key}='{quoted}'"
