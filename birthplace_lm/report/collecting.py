"""The finished runs under some folders, each with what a comparison needs of it."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import yaml

from birthplace_lm.composing import check_targets, in_one_line
from birthplace_lm.history import read_history
from birthplace_lm.identity import of_the_run
from birthplace_lm.runs import STAGES, RunFolder, read_json

Asked = tuple[str, str, int]  # question, place, and how many of the same stood before: two people may have one name


@dataclass(frozen=True)
class FinishedRun:
    """One run with scored answers.

    `settings` is what the result depends on besides the seed, the stages that the answers come from among it; `right`
    says of every dev question whether its answer was, `said` what it was and its log-probability, -inf where none was
    noted, each time that it was asked, so that as many count as in metrics.json; `loss` is the mean over the last
    twentieth of pretraining, in nats a target, None where there was none; `seconds` and `characters` are those of all
    training stages. `curves` has the loss of every stage over the characters seen, as (2, steps) of characters and
    loss; `metrics` is metrics.json, `sessions` what is noted of each time it was started.
    """

    folder: Path
    choices: Mapping[str, str]
    seed: int
    settings: Mapping[str, Any]
    commit: str
    data: str
    right: Mapping[Asked, bool]
    said: Mapping[Asked, tuple[str, float]] = field(repr=False)
    parameters: int
    seconds: float
    characters: int
    loss: float | None
    curves: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    metrics: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sessions: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    @property
    def exact_match(self) -> float:
        return mean(self.right.values())


def collect(places: Sequence[Path]) -> tuple[list[FinishedRun], list[str]]:
    """Every finished run at or below the folders, by name, and a sentence on each that had to be left out."""
    runs: dict[Path, FinishedRun] = {}
    left_out = []
    for place in places:
        found = list(run_folders(place))
        left_out += no_runs(place, found)
        for root in found:
            try:
                runs[root.resolve()] = _read(RunFolder(root))
            except _UnfinishedRunError as error:
                left_out.append(f"{root}: {error}")
            except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
                left_out.append(unreadable(root, error))
    return sorted(runs.values(), key=lambda run: (run.folder.name, str(run.folder))), left_out


class _UnfinishedRunError(Exception):
    """A run without scored answers yet."""


def run_folders(place: Path) -> Iterator[Path]:
    """The place itself or what lies below it; folders inside a run (mirrors keep a config.yaml of theirs) are none.

    What is removed while this looks is passed over.
    """
    for folder, folders, files in os.walk(place):
        folders.sort()
        if {"vocabulary.json", "config.yaml"} <= set(files):
            folders.clear()
            yield Path(folder)


def no_runs(place: Path, runs: Sequence[Path]) -> list[str]:
    """A sentence on each folder in a place that neither is one of its runs nor holds one, or on the place itself."""
    if place in runs:
        return []
    beside = [path for path in sorted(place.glob("[!.]*/")) if path.is_dir()]
    others = [path for path in beside if not any(path == run or path in run.parents for run in runs)]
    lacking = "no run folder (one holds config.yaml and vocabulary.json)"
    return [f"{path}: {lacking}" for path in others or ([] if runs else [place])]


def unreadable(root: Path, error: Exception) -> str:
    """A sentence on a run that cannot be read, in one line whatever the error says."""
    return f"{root}: not a run that this version can read ({in_one_line(error)})"


def _read(folder: RunFolder) -> FinishedRun:
    metrics = folder.metrics()
    answers = folder.root / "predictions" / "dev.jsonl"
    config = read_config(folder)
    if not metrics.get("dev", {}).get("total") or not answers.is_file():
        raise _UnfinishedRunError("no scored answers yet; its command again goes on where it stopped")
    if folder.is_trained_further(metrics):
        raise _UnfinishedRunError("trained further than it was scored; its command again goes on where it stopped")
    sessions = read_json(folder.root / "provenance.json").get("sessions") or [{}]
    first, curves, rows = sessions[0], _curves(folder), read_answers(answers)
    _check_kinds(config, metrics, first, rows)
    if len(rows) != metrics["dev"]["total"]:
        raise ValueError(f"{answers.name} has {len(rows)} answers, metrics.json scores {metrics['dev']['total']}")
    asked = _by_asked(rows)
    facts = [folder.stage(stage).facts() for stage in STAGES]
    stages = _of_the_answers([stage for stage, fact in zip(STAGES, facts, strict=True) if fact])
    return FinishedRun(
        folder=folder.root,
        choices={group: str(option) for group, option in config["choices"].items() if option is not None},
        seed=config["seed"],
        settings={**{key: value for key, value in of_the_run(config).items() if key != "seed"}, "stages": stages},
        commit=f"{first['commit']}{' with changes' if first['dirty'] else ''}",
        data=first["data"],
        right={one: row["prediction"] == row["answer"] for one, row in asked.items()},
        said={one: (row["prediction"], _sure(row)) for one, row in asked.items()},
        parameters=metrics["parameters"],
        seconds=sum(fact.get("seconds", 0.0) for fact in facts),
        characters=sum(fact.get("characters", 0) for fact in facts),
        loss=_last_twentieth(*curves["pretrain"]) if "pretrain" in curves else None,
        curves=curves,
        metrics=metrics,
        sessions=sessions,
    )


def read_config(folder: RunFolder) -> dict[str, Any]:
    """What `RunFolder.config` returns, thirty times as fast: what a run saved is resolved, so it is plain YAML."""
    text = (folder.root / "config.yaml").read_text(encoding="utf-8")
    try:
        config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(f"config.yaml is no YAML: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"config.yaml holds {type(config).__name__}, not settings")
    check_targets(config, str(folder.root / "config.yaml"))
    return config


def read_answers(path: Path) -> list[dict[str, Any]]:
    """The rows of predictions/*.jsonl, read as one list: three times as fast as line by line."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return list(json.loads("[" + ",".join(lines) + "]"))


def _check_kinds(
    config: Mapping[str, Any], metrics: Mapping[str, Any], session: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """ValueError where something is not what it is later reckoned with as, which only a file of another program has."""
    wanted: tuple[tuple[str, Any, type], ...] = (
        ("config.yaml: seed", config["seed"], int),
        ("metrics.json: parameters", metrics["parameters"], int),
        ("provenance.json: data of the first session", session.get("data"), str),
    )
    for what, value, kind in wanted:
        if not isinstance(value, kind):
            raise ValueError(f"{what} is {value!r}, not of type {kind.__name__}")
    texts = ("question", "answer", "prediction")
    if odd := [row for row in rows if not all(isinstance(row[key], str) for key in texts)]:
        raise ValueError(f"predictions/dev.jsonl: {len(odd)} of {len(rows)} rows hold no text where they should")


def _of_the_answers(finished: Sequence[str]) -> list[str]:
    """The stages behind the answers, as `final_stage` chooses: a control without pretraining is no seed of a run."""
    if "finetune_only" not in finished:
        return list(finished)
    return [stage for stage in finished if stage != "finetune_only"] if "finetune" in finished else ["finetune_only"]


def _last_twentieth(_: np.ndarray, loss: np.ndarray) -> float:
    return float(loss[-max(len(loss) // 20, 1) :].mean())


def _sure(row: Mapping[str, Any]) -> float:
    """The log-probability of an answer, -inf where none is noted."""
    value = row.get("log_probability")
    return value if isinstance(value, int | float) else -math.inf


def _by_asked(rows: Sequence[Mapping[str, Any]]) -> dict[Asked, Mapping[str, Any]]:
    """The rows by what they ask, none of them lost; the same in every run, whatever order it asked in."""
    before = Counter[tuple[str, str]]()
    found: dict[Asked, Mapping[str, Any]] = {}
    for row in rows:
        pair = row["question"], row["answer"]
        found[(*pair, before[pair])] = row
        before[pair] += 1
    return found


def _curves(folder: RunFolder) -> dict[str, np.ndarray]:
    """(2, steps) of every stage that has a history, in the order of the stages; NaN characters where none are noted."""
    curves = {}
    for stage in STAGES:
        history = read_history(folder.stage(stage).history)
        if losses := history.get("train/loss"):
            steps, seen = zip(*history.get("train/characters", [(0, float("nan"))]), strict=True)
            curves[stage] = np.array([np.interp([step for step, _ in losses], steps, seen), [at for _, at in losses]])
    return curves
