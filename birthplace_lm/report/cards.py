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
_STORED = {
    "place completed in the biography": ("stored",),
    "right if stored": ("right_given_stored",),
    "right if not stored": ("right_given_not_stored",),
}
# What there is to draw of one card: the part of the card, the picture, what it is, how to read it.
_PICTURES: tuple[tuple[str, Callable[[Card], "Figure"], str, str], ...] = (
    ("confidence", knowledge_figures.auroc_bars, "How well each signal tells right from wrong answers",
     "AUROC: how often a right answer has the higher signal of a right and a wrong one. 0.5 is chance."),
    ("confidence", knowledge_figures.risk_coverage, "Risk and coverage",
     "If only the surest answers are given: how many of them are wrong."),
    ("probabilities", knowledge_figures.reliability_diagram, "Probability and share of right answers",
     "On the diagonal the probabilities are what they say."),
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
    rows: list[Row] = [
        [name, *(_share(_cloze(card, *path)) for path in _STORED.values())] for name, card in cards.items()
    ]
    told = table("Stored and extracted", ["run", *_STORED], rows)
    if signals:
        rows = [
            [name, *(_auroc(_part(card, "confidence", "signals", signal, "auroc")) for signal in signals)]
            for name, card in cards.items()
        ]
        told += table("AUROC of every signal of confidence", ["run", *signals], rows)
    first, card = next(iter(cards.items()))
    return told + "".join(_picture(number, first, card) for number in range(len(_PICTURES)))


def _card(folder: Path) -> Card:
    """knowledge.json as it is; empty where there is none or where it can't be read."""
    try:
        card = json.loads((folder / "knowledge.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _part(card: Any, *path: str) -> Card:
    """What lies at a path of keys, empty where it does not."""
    for key in path:
        card = card.get(key) if isinstance(card, Mapping) else None
    return card if isinstance(card, Mapping) else {}


def _cloze(card: Card, key: str) -> Card:
    """A figure of the cloze test, by whichever reading got the place out."""
    return _part(card, "stored", "cloze", "either", key)


def _share(share: Card) -> Cell:
    value = share.get("value")
    if not isinstance(value, int | float):
        return Cell(f"not defined: {share['why']}" if share.get("why") else "–")
    return Cell(f"{value:.1%} ({share.get('count', '?')} of {share.get('total', '?')})", value)


def _auroc(measure: Card) -> Cell:
    value = measure.get("value")
    if not isinstance(value, int | float):
        return Cell(f"not defined: {measure['why']}" if measure.get("why") else "–")
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
