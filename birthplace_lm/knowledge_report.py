"""knowledge.json with its pictures in the run folder, and six lines for whoever watches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from birthplace_lm.asking import Inquiry
from birthplace_lm.corpus import Corpus
from birthplace_lm.evaluation.unknown_names import GIBBERISH, HELD_OUT, RECOMBINED
from birthplace_lm.knowledge import Card, knowledge_card
from birthplace_lm.knowledge_figures import auroc_bars, reliability_diagram, risk_coverage, signal_reliability
from birthplace_lm.runs import RunFolder, write_json

_CHOSEN = "sequence_log_probability"


def judge(folder: RunFolder, corpus: Corpus, inquiry: Inquiry | None = None, into: Path | None = None) -> Card:
    """Make the card, write knowledge.json and knowledge/ with pictures into the run, or `into`; print the six lines."""
    card, into = knowledge_card(folder, corpus, inquiry), into or folder.root
    write_json(into / "knowledge.json", card)
    draw(into / "knowledge", card)
    print("\n".join(in_six_lines(card)))
    return card


def draw(pictures: Path, card: Card) -> None:
    """Risk and coverage, AUROC and reliability as PNG files; a picture of which nothing is defined is left out.

    One of an earlier card goes in any case.
    """
    pictures.mkdir(exist_ok=True)
    for name in ("risk_coverage", "auroc", "reliability", "signal_reliability"):
        (pictures / f"{name}.png").unlink(missing_ok=True)
    confidence, dpi = card["confidence"], 130
    measured = {name: signal for name, signal in confidence["signals"].items() if signal["auroc"]["value"] is not None}
    if measured:
        risk_coverage(confidence).savefig(pictures / "risk_coverage.png", dpi=dpi)
        auroc_bars(confidence).savefig(pictures / "auroc.png", dpi=dpi)
    if card["probabilities"]["raw"]["reliability"] is not None:
        reliability_diagram(card["probabilities"]).savefig(pictures / "reliability.png", dpi=dpi)
        signal_reliability(card["signals_as_probabilities"]).savefig(pictures / "signal_reliability.png", dpi=dpi)


def in_six_lines(card: Card) -> list[str]:
    """What the card says, in words: the questions, what is stored, signals, calibration, unknown names, errors."""
    return [_asked(card), _stored(card), _signals(card), _calibration(card), _unknown(card), _errors(card)]


def _asked(card: Card) -> str:
    asked = card["asked"]
    left_out = f", {asked['left_out']} could not be asked" if asked["left_out"] else ""
    chosen = card["chosen"]["right"]
    choosing = (
        "" if chosen is None else f", {chosen} when one of the {len(card['places'])} known places has to be chosen"
    )
    beam = card["beam"]
    searching = "" if beam["right"] is None else f", {beam['right']} by a beam of {beam['width']}"
    right = f"{asked['right']} of {asked['questions']} questions answered right"
    return f"{asked['people']}: {right}{searching}{choosing}{left_out}"


def _stored(card: Card) -> str:
    table, probe = card["stored"]["cloze"]["either"], card["stored"]["probe"]
    return (
        f"stored: {_of(table['stored'])} places come out of the biography; of these {_of(table['right_given_stored'])} "
        f"are answered right, of the others {_of(table['right_given_not_stored'])}; "
        f"a linear probe finds {_percent(probe['right'])} (chance {_percent(probe['chance'])})"
    )


def _signals(card: Card) -> str:
    """By the probability of the answer, which is a signal chosen beforehand: the best one of many would flatter."""
    signal = card["confidence"]["signals"].get(_CHOSEN)
    why = "nobody was asked" if signal is None else signal["auroc"]["why"]
    if signal is None or signal["auroc"]["value"] is None:
        return f"does it know that it knows: not defined, {why}"
    auroc, hold = signal["auroc"], card["thresholds_hold"]["0.1"]
    words = f"does it know that it knows: its probability tells right from wrong with AUROC {auroc['value']:.2f}"
    if "answered" not in hold:
        return f"{words}; no threshold, {hold['why']}"
    given = f"{_of(hold['answered'])} are answered and {_of(hold['wrong'])} of them wrong"
    return f"{words}; with a threshold for 10 % wrong, {given} ({_fitted(card)})"


def _calibration(card: Card) -> str:
    probabilities = card["probabilities"]
    raw, after = probabilities["raw"]["ece"], (probabilities["calibrated"] or {}).get("ece")
    if raw["value"] is None:
        return f"calibration error: not defined, {raw['why']}"
    words = f"calibration error: {raw['value']:.1%} as the model says"
    if after is None:
        return f"{words}, not calibrated: {card['calibration']['why']}"
    return f"{words}, {after['value']:.1%} calibrated ({_fitted(card)})"


def _unknown(card: Card) -> str:
    families = card["unknown_names"]
    told = [
        f"{family} {_percent(families[family]['known_place'])} (AUROC {_auroc(families[family])})"
        for family in (HELD_OUT, RECOMBINED, GIBBERISH)
        if families[family]["asked"]
    ]
    surname = families["swaps"][RECOMBINED]["decided_by"]["surname"]
    answered = ", ".join(told) or "none asked"
    return f"unknown names answered with a known place: {answered}; the surname alone decides {_percent(surname)}"


def _auroc(family: Mapping[str, Any]) -> str:
    """How well known people are told from a family by the probability of the answer."""
    value = family["signals"].get(_CHOSEN, {"auroc": {"value": None}})["auroc"]["value"]
    return "not defined" if value is None else f"{value:.2f}"


def _errors(card: Card) -> str:
    types = {name: row for name, row in card["errors"]["types"].items() if row["count"]}
    told = ", ".join(f"{row['count']} {name}{_by_chance(row['expected'])}" for name, row in types.items())
    at_home = card["errors"]["right_country"]
    country = f"{_of(at_home)} answers" if at_home["total"] else f"not defined, {at_home['why']}"
    wrong = f"wrong answers: {card['errors']['wrong']} of {card['errors']['total']}"
    return f"{wrong}{f': {told}' if told else ''}; in the right country: {country}"


def _by_chance(expected: float | None) -> str:
    """How many a guesser would have made; nothing where none could be."""
    return "" if expected is None else f" ({expected:.1f} by chance)"


def _fitted(card: Card) -> str:
    """Whose answers stand behind it: crosswise those of the people asked, or those of others."""
    whose = card["fitted_on"]["people"]
    return f"{'cross-' if whose == card['asked']['people'] else ''}fitted on {whose}"


def _of(share: Mapping[str, Any]) -> str:
    return f"{share['count']} of {share['total']}"


def _percent(share: Mapping[str, Any]) -> str:
    return "not defined" if share["value"] is None else f"{share['value']:.0%}"
