"""Runs that go on from other runs: which of them are seeds of one variant.

Each run keeps the name of the weights that it started from, which would make a variant of every one: three seeds of a
pretraining, each finetuned in a run of its own. What they have in common is how these weights were made.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from birthplace_lm.composing import ConfigError, short_hash
from birthplace_lm.identity import of_the_run
from birthplace_lm.report.collecting import FinishedRun, read_config
from birthplace_lm.report.comparing import comparable
from birthplace_lm.runs import RunFolder


def with_alike_starts(runs: Sequence[FinishedRun], roots: Sequence[Path]) -> list[FinishedRun]:
    """The same runs; of those that differ by seed, and by a start that differs by its seed, it says how that was made.

    Starts are looked for by name among `roots`, which are run folders, and beside the run, and known by their weights'
    sum. One that is not found, or that two of the runs share, is told as before.
    """
    named = {root.name: root for root in roots}
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        name, _, digits = str(run.settings.get("init_from") or "").rpartition("@")
        if (
            name
            and name == Path(name).name
            and (made := _how_it_was_made(named.get(name, run.folder.parent / name), digits))
        ):
            alike = replace(run, settings={**run.settings, "init_from": made})
            groups.setdefault(json.dumps(comparable(alike.settings), sort_keys=True), []).append(alike)
    started = {run.folder: str(run.settings.get("init_from")) for run in runs}
    told: dict[Path, FinishedRun] = {}
    for group in groups.values():
        seeds, starts = {run.seed for run in group}, {started[run.folder] for run in group}
        if len(group) == len(seeds) == len(starts) > 1:
            told |= {run.folder: run for run in group}
    return [told.get(run.folder, run) for run in runs]


def _how_it_was_made(root: Path, digits: str) -> str | None:
    """All that a start's weights depend on but the seed, None where the folder or weights of that sum are not there."""
    source = RunFolder(root)
    try:
        if not source.starting_weights_sha256().startswith(digits):
            return None
        settings = {key: value for key, value in of_the_run(read_config(source)).items() if key != "seed"}
        return f"another seed of the same, settings {short_hash(comparable(settings))}"
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError, OSError):
        return None
