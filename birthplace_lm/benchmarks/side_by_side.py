"""Many small trainings or one large at a time: jobs of one thread each against one job of as many threads."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from birthplace_lm.benchmarks.own_process import at_once


def compare(command: Sequence[str], threads: int, repetitions: int) -> dict[str, Any]:
    """Real characters a second in total, both ways by turns, medians; the command trains for a while and reports.

    All jobs of a turn begin together and train for the same time, so that the machine is as full at the end as at the
    beginning.
    """
    if threads < 2:
        raise ValueError(f"there is nothing to compare with {threads} thread: --threads is at least 2")
    ways = {f"{threads} jobs, 1 thread each": (threads, 1), f"1 job, {threads} threads": (1, threads)}
    totals: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, (jobs, each) in ways.items():
            reports = at_once([[*command, "--threads", str(each)]] * jobs, each)
            totals[name].append(sum(report["characters"] / report["seconds"] for report in reports))
    many, one = totals.values()
    return {
        "ways": [{"name": name, "characters_per_second": median(found)} for name, found in totals.items()],
        "ratio": median(a / b for a, b in zip(many, one, strict=True)),
    }


def text(figures: dict[str, Any]) -> str:
    """One line a way, then the ratio."""
    lines = [f"{way['name']:24} {way['characters_per_second']:9,.0f} characters/s in all" for way in figures["ways"]]
    return "\n".join([*lines, f"side by side over one: {figures['ratio']:.2f} x"]) + "\n"
