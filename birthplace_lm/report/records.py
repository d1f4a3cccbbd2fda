"""What every run was told and where it comes from: settings with what tells the variants apart, and provenance."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from birthplace_lm.durations import duration
from birthplace_lm.report.comparing import Variant
from birthplace_lm.report.markup import Cell, Row, facts, folded, table

_MACHINE = ("hardware", "versions")


def flat(settings: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Settings by dotted key, as text; without `_partial_`, which says how a part is built and not what it is.

    >>> flat({"model": {"_partial_": True, "n_layers": 4, "norm": {}}, "stages": ["pretrain"], "name": None})
    {'model.n_layers': '4', 'model.norm': '{}', 'stages': '["pretrain"]', 'name': 'null'}
    """
    found: dict[str, str] = {}
    for key, value in settings.items():
        if key == "_partial_":
            continue
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{where}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            found[f"{where}{key}"] = text
    return found


def settings(variants: Sequence[Variant]) -> str:
    """A row a variant with the settings that not all share; what is unlike most of them is marked."""
    own = [flat(variant.runs[0].settings) for variant in variants]
    keys = sorted({key for one in own for key in one})
    differ = [key for key in keys if len({one.get(key) for one in own}) > 1]
    common = {key: Counter(one.get(key) for one in own).most_common(1)[0] for key in differ}
    usual = {key: value for key, (value, often) in common.items() if 2 * often > len(own)}
    rows: list[Row] = [
        [variant.label, *(_setting(one.get(key), key in usual and one.get(key) != usual[key]) for key in differ)]
        for variant, one in zip(variants, own, strict=True)
    ]
    shared = facts([(key, own[0][key]) for key in keys if key not in differ])
    caption = "Settings that differ; marked: unlike that of most variants"
    told = table(caption, ["variant", *differ], rows, numbers_from=len(differ) + 1) if differ else ""
    return told + folded(f"The {len(keys) - len(differ)} settings that all variants share", shared)


def _setting(value: str | None, unusual: bool) -> Cell:
    """Marked where more than half of the variants have one other value; where no value has so many, none stands out."""
    return Cell("–" if value is None else value, mark=unusual)


def provenance(variants: Sequence[Variant]) -> str:
    """A row a run; the machines and versions that runs share are named once, by a letter."""
    environments: dict[str, int] = {}
    rows: list[Row] = []
    for variant in variants:
        for run in variant.runs:
            first = run.sessions[0]
            number = environments.setdefault(_environment(first), len(environments) + 1)
            rows.append(
                [
                    run.folder.name, variant.label, str(run.seed),
                    Cell(f"{run.exact_match:.1%}", run.exact_match), Cell(duration(run.seconds), run.seconds),
                    _commit(first), run.data[:12], str(number), _minute(first),
                    str(len(run.sessions)), _command(first),
                ]
            )  # fmt: skip
    header = (
        "run", "variant", "seed", "exact match", "trained for", "commit", "data (sha256)", "environment",
        "started (UTC)", "sessions", "command",
    )  # fmt: skip
    machines = facts([(str(number), text) for text, number in environments.items()])
    return table("Runs", header, rows, numbers_from=len(header)) + f"<h3>Environments</h3>{machines}"


def _minute(session: Mapping[str, Any]) -> str:
    """When it began, to the minute."""
    return str(session.get("started", "–"))[:16].replace("T", " ")


def _commit(session: Mapping[str, Any]) -> Cell:
    """The first ten digits; marked where the tree had changes that no commit holds."""
    commit = session.get("commit")
    if commit is None:
        return Cell("installed package")
    return Cell(f"{str(commit)[:10]}{' with changes' if session.get('dirty') else ''}", mark=bool(session.get("dirty")))


def _command(session: Mapping[str, Any]) -> str:
    command = session.get("command", [])
    return " ".join(map(str, command)) if isinstance(command, list) else str(command)


def _environment(session: Mapping[str, Any]) -> str:
    """Hardware and versions in one line."""
    hardware, versions = (found if isinstance(found := session.get(key), Mapping) else {} for key in _MACHINE)
    parts = [f"{key} {value}" for key, value in hardware.items() if value is not None]
    return ", ".join([*parts, f"python {session.get('python', '?')}", *(f"{k} {v}" for k, v in versions.items())])
