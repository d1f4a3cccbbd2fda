"""The answers of all runs, put small enough for a page: every string stands once, answers are numbers of strings."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from birthplace_lm.report.collecting import read_answers
from birthplace_lm.report.comparing import Variant

UNKNOWN = -1  # in place of a probability that was not recorded


class _Table:
    """Strings by number, each once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def answers_of(variants: Sequence[Variant]) -> dict[str, Any]:
    """What the page's script browses: {"strings", "sets", "runs"}.

    A set is [questions, answers], as numbers of strings; runs that were asked the same share it. A run is {"name",
    "variant", "set", "said", "sure"}: what it said as numbers of strings, and the probability of that in thousandths,
    -1 where it is not known.
    """
    strings, sets, runs = _Table(), dict[str, int](), []
    for variant in variants:
        for run in variant.runs:
            rows = _rows(run.folder / "predictions" / "dev.jsonl")
            asked = [[strings.number(row[key]) for row in rows] for key in ("question", "answer")]
            runs.append(
                {
                    "name": run.folder.name,
                    "variant": variant.label,
                    "set": sets.setdefault(json.dumps(asked), len(sets)),
                    "said": [strings.number(row["prediction"]) for row in rows],
                    "sure": [_thousandths(row["log_probability"]) for row in rows],
                }
            )
    return {"strings": list(strings.numbers), "sets": [json.loads(text) for text in sets], "runs": runs}


def _rows(path: Path) -> list[dict[str, Any]]:
    texts = ("question", "answer", "prediction")
    return [
        {key: str(row.get(key, "")) for key in texts} | {"log_probability": row.get("log_probability")}
        for row in read_answers(path)
    ]


def _thousandths(log_probability: Any) -> int:
    known = isinstance(log_probability, int | float) and log_probability <= 0
    return round(1000 * math.exp(log_probability)) if known else UNKNOWN
