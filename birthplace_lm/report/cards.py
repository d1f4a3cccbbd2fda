"""What the runs know, and whether they know that they know: figures of knowledge.json, where runs have one.

A file that lacks a figure, or that another version wrote, leaves a dash; it never keeps the other figures out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birthplace_lm import knowledge_figures
from birthplace_lm.report.comparing import Variant
from birthplace_lm.report.looks import inline_svg
from birthplace_lm.report.markup import Cell, Row, figure, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Card = Mapping[str, Any]
_CLOZE, _OWN = ("stored", "cloze", "either"), ("confidence", "signals", "sequence_log_probability")
_HOLDS = ("thresholds_hold", "0.1")
# What stands in the tables, where a card has it: a share of people or a measure with its interval, by its path.
_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "Stored and extracted": {
        "place completed in the biography": (*_CLOZE, "stored"),
        "right if stored": (*_CLOZE, "right_given_stored"),
        "right if not stored": (*_CLOZE, "right_given_not_stored"),
    },
    "If only the surest are answered, by the answer's probability": {
        "AURC": (*_OWN, "aurc"),
        **{f"answered at {float(risk):.0%} risk": (*_OWN, "coverage_at_risk", risk) for risk in ("0.05", "0.1", "0.2")},
        "threshold for 10% wrong: answered": (*_HOLDS, "answered"),
        "wrong of these": (*_HOLDS, "wrong"),
    },
    "Calibration": {
        "error, as the model says": ("probabilities", "raw", "ece"),
        "after temperature scaling": ("probabilities", "temperature_scaled", "ece"),
        "after Platt scaling": ("probabilities", "calibrated", "ece"),
        "Brier, as the model says": ("probabilities", "raw", "brier"),
        "Brier, after Platt scaling": ("probabilities", "calibrated", "brier"),
        "Brier of a constant": ("probabilities", "base_rate", "brier"),
        "abstaining at 0.75": ("probabilities", "raw", "abstaining", "0.75", "score"),
        "never abstaining": ("probabilities", "raw", "abstaining", "0.75", "always"),
    },
}
# The same of each family of names that somebody was asked about.
_UNKNOWN = "Unknown names: answered with a known place, and AUROC of known against unknown by the answer's probability"
_OF_FAMILY = {
    "known place": ("known_place",),
    "AUROC": (*_OWN[1:], "auroc"),
    "by all signals": ("signals", "detector", "auroc"),
}
# What there is to draw of one card: the part of the card, the picture, what it is, how to read it.
_PICTURES: tuple[tuple[str, Callable[[Card], "Figure"], str, str], ...] = (
    ("confidence", knowledge_figures.auroc_bars, "How well each signal tells right from wrong answers",
     "AUROC: how often a right answer has the higher signal of a right and a wrong one. 0.5 is chance."),
    ("confidence", knowledge_figures.risk_coverage, "Risk and coverage",
     "If only the surest answers are given: how many of them are wrong."),
    ("probabilities", knowledge_figures.reliability_diagram, "Probability and share of right answers",
     "On the diagonal the probabilities are what they say."),
    ("signals_as_probabilities", knowledge_figures.signal_reliability, "Reliability of every signal",
     "Each signal read as a probability, before and after scaling."),
)  # fmt: skip


def knowledge_cards(variants: Sequence[Variant]) -> str:
    """Tables of the runs that have a knowledge.json, and pictures of the first, the best variant's; "" of none."""
    folders = [run.folder for variant in variants for run in variant.runs]
    names = [folder.name for folder in folders]  # which two folders may share
    cards = {folder.name if names.count(folder.name) == 1 else str(folder): _card(folder) for folder in folders}
    cards = {name: card for name, card in cards.items() if card}
    if not cards:
        return ""
    signals = list(dict.fromkeys(name for card in cards.values() for name in _part(card, "confidence", "signals")))
    errors = list(dict.fromkeys(name for card in cards.values() for name in _part(card, "errors", "types")))
    tables: dict[str, dict[str, tuple[str, ...]]] = {
        **_TABLES,
        _UNKNOWN: {
            f"{family}, {what}": ("unknown_names", family, *path)
            for family in dict.fromkeys(name for card in cards.values() for name in _asked_about(card))
            for what, path in _OF_FAMILY.items()
        },
        "AUROC of every signal of confidence": {name: ("confidence", "signals", name, "auroc") for name in signals},
        "Wrong answers, and all that lie in the right country": {
            **{name: ("errors", "types", name) for name in errors},
            "of all in the right country": ("errors", "right_country", "of_wrong"),
            "right answers too": ("errors", "right_country"),
        },
    }
    told = "".join(_table(title, columns, cards) for title, columns in tables.items())
    first, card = next(iter(cards.items()))
    return told + "".join(_picture(number, first, card) for number in range(len(_PICTURES)))


def _table(title: str, columns: Mapping[str, tuple[str, ...]], cards: Mapping[str, Card]) -> str:
    """A row a run; "" where no run has any of it."""
    found = {name: [_part(card, *path) for path in columns.values()] for name, card in cards.items()}
    if not any(map(any, found.values())):
        return ""
    rows: list[Row] = [[name, *map(_figure, figures)] for name, figures in found.items()]
    return table(title, ["run", *columns], rows)


def _card(folder: Path) -> Card:
    """knowledge.json as it is; empty where there is none or where it can't be read."""
    try:
        card = json.loads((folder / "knowledge.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _asked_about(card: Card) -> list[str]:
    """The families of unknown names with anybody in them."""
    families = _part(card, "unknown_names")
    return [name for name in families if _part(families, name).get("asked")]


def _part(card: Any, *path: str) -> Card:
    """What lies at a path of keys, empty where it does not."""
    for key in path:
        card = card.get(key) if isinstance(card, Mapping) else None
    return card if isinstance(card, Mapping) else {}


def _figure(measure: Card) -> Cell:
    """A share with its counts, or a measure with its interval; why it has no value, or a dash where it is not there."""
    value = measure.get("value")
    if not isinstance(value, int | float):
        return Cell(f"not defined: {measure['why']}" if measure.get("why") else "–")
    if "total" in measure:
        return Cell(f"{value:.1%} ({measure.get('count', '?')} of {measure['total']})", value)
    low, high = measure.get("low"), measure.get("high")
    known = isinstance(low, int | float) and isinstance(high, int | float)
    return Cell(f"{value:.3f} ({low:.2f} – {high:.2f})" if known else f"{value:.3f}", value)


def _picture(number: int, run: str, card: Card) -> str:
    """One of the pictures of a card, "" where the card does not hold what it shows."""
    part, draw, title, reading = _PICTURES[number]
    try:
        svg = inline_svg(lambda: draw(card[part]), f"card{number}", f"{title}, {run}", reading, themed=False)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return ""
    return figure(svg, f"{title}, of {run}. {reading}", title, on_white=True)
