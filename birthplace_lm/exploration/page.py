"""What demonstrations leave in a folder: their pictures, README.md for people and demonstrations.json for programs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from birthplace_lm.exploration import Claim, Demonstration
from birthplace_lm.exploration.drawing import save
from birthplace_lm.exploration.lookup_table import read_table
from birthplace_lm.replacing import replace_file

_INTRODUCTION = """\
# What one attention layer can do, by hand

**Question.** Attention answers a query q with c = Σ α_i v_i, α = softmax(k_iᵀq). What can one such layer be made to
do, and where does it fail, if one is free to choose keys, queries and values?

The questions are those of part 1 of the fifth assignment of Stanford's CS224N (Winter 2021), where they are argued on
paper. Here each is built with numbers, measured in float64, and held against a bound that follows from the theory; the
derivation stands at the head of its file in `birthplace_lm/exploration/`.
"""


def write(demonstrations: Sequence[Demonstration], folder: Path, seed: int, command: str) -> None:
    """Draw every picture, then write the JSON and the page, each beside and moved into place.

    Without dates or paths, so that the same command writes the same bytes. What `lookup --table` left in the folder,
    lookup.json and those of other sequences, lookup_*.json, is shown on the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for demonstration in demonstrations:
        save(demonstration.draw(), folder, picture_name(demonstration))
    record = {"seed": seed, "demonstrations": [as_record(demonstration) for demonstration in demonstrations]}
    replace_file(
        folder / "demonstrations.json", json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    tables = map(lookup_table, [folder / "lookup.json", *sorted(folder.glob("lookup_*.json"))])
    replace_file(folder / "README.md", "".join([markdown(demonstrations, command), *tables]))


def picture_name(demonstration: Demonstration) -> str:
    """The name of the picture without its ending: it says what it is, also in a folder with other files."""
    return f"demonstration_{demonstration.name}"


def as_record(demonstration: Demonstration) -> dict[str, Any]:
    """A demonstration as JSON can hold it: words, claims with measured values and bounds, figures."""
    claims = [
        {"claim": c.sentence, "measured": c.measured, "relation": c.relation, "bound": c.bound, "holds": c.holds}
        for c in demonstration.claims
    ]
    return {
        "name": demonstration.name,
        "title": demonstration.title,
        "proves": demonstration.proves,
        "holds": demonstration.holds,
        "claims": claims,
        "notes": list(demonstration.notes),
        "figures": dict(demonstration.figures),
    }


def line(claim: Claim) -> str:
    """A claim on one line of a terminal."""
    verdict = "holds        " if claim.holds else "DOES NOT HOLD"
    measured, bound = numbers(claim)
    return f"  {verdict}  {measured:>9} {claim.relation} {bound:<9}  {claim.sentence}"


def numbers(claim: Claim) -> tuple[str, str]:
    """Measured value and bound to three significant digits, or as many as it takes to tell them apart.

    >>> numbers(Claim("", 0.0002759, 1.0)), numbers(Claim("", 1.41421, 1.41092, ">"))
    (('0.000276', '1'), ('1.414', '1.411'))
    """
    pairs = ((f"{claim.measured:.{digits}g}", f"{claim.bound:.{digits}g}") for digits in range(3, 18))
    return next((pair for pair in pairs if pair[0] != pair[1]), (repr(claim.measured), repr(claim.bound)))


def markdown(demonstrations: Sequence[Demonstration], command: str) -> str:
    """The page: question, command, a table of what was shown, and a section a demonstration."""
    table = "\n".join(
        f"| [{d.name}](#{d.name}) | {escaped(d.proves)} | {sum(c.holds for c in d.claims)} of {len(d.claims)} |"
        for d in demonstrations
    )
    return (
        f"{_INTRODUCTION}\n**Command.** `{command}` writes this page, the pictures (PNG and SVG) and every number\n"
        "(`demonstrations.json`).\n\n"
        f"| demonstration | what it proves | claims that hold |\n|---|---|---|\n{table}\n\n"
        + "\n".join(section(demonstration) for demonstration in demonstrations)
    )


def section(demonstration: Demonstration) -> str:
    """One demonstration: what was built, the sentence it proves, the picture, the claims, what differs."""
    rows = "\n".join(_row(claim) for claim in demonstration.claims)
    notes = "\n".join(f"- {note}" for note in demonstration.notes)
    return (
        f'<a name="{demonstration.name}"></a>\n\n## {demonstration.title}\n\n'
        + (f"{demonstration.construction}\n\n" if demonstration.construction else "")
        + f"**{demonstration.proves}**\n\n![{demonstration.title}]({picture_name(demonstration)}.png)\n\n"
        f"| claim | measured | bound | |\n|---|---|---|---|\n{rows}\n"
        + (f"\nWhere this differs from the usual statement, and what else to know:\n\n{notes}\n" if notes else "")
    )


def lookup_table(path: Path) -> str:
    """What every attention can look up, as a section of the page; nothing where it is not measured to the end."""
    if not (path.is_file() and path.with_suffix(".png").is_file()):  # the picture is drawn last
        return ""
    setting, rows = read_table(path)
    cells = {(row["attention"], row["task"], row["layers"]): row["accuracy"] for row in rows}
    columns = sorted({(task, layers) for _, task, layers in cells})
    names = sorted({name for name, _, _ in cells})
    head = " | ".join(f"{task}, {layers} layer{'s' * (layers > 1)}" for task, layers in columns)
    shares = {key: f"{share:.1%}" for key, share in cells.items()}
    body = "\n".join(f"| {name} | {' | '.join(shares.get((name, *at), '–') for at in columns)} |" for name in names)
    seeds = "–".join(map(str, sorted({row["seeds"] for row in rows})))
    told = f"share of right answers, mean over {seeds} seed{'s' * (seeds != '1')}"
    return (
        f"\n## {_title(setting)}\n\n`birthplace-explore lookup --table{_options(path)}`: {told}.\n"
        f"{_chance(setting)}\n\n"
        f"![share of right answers of every attention]({path.stem}.png)\n\n"
        f"| attention | {head} |\n|---|{'---|' * len(columns)}\n{body}\n"
    )


def _title(setting: Mapping[str, Any]) -> str:
    """What the sequences of a table are."""
    apart = ", key and value at a place of their own each" if setting["apart"] else ""
    return f"Every attention on the lookups, asked {setting['gap']} places behind the pairs{apart}"


def _chance(setting: Mapping[str, Any]) -> str:
    """What a figure by content has to be held against."""
    told = f"By content {setting['content_blind']:.1%} is what there is for whoever does not know which value is whose."
    if not setting["apart"]:
        return told
    return (
        f"{told} Here a value has to learn first which key stands before it, which takes two layers; who is at that "
        "share had not found it when the share stayed level and the training ended."
    )


def _options(path: Path) -> str:
    """The options that make a file of this name: lookup_apart_gap8 is made by --apart --gap 8."""
    parts = path.stem.split("_")[1:]
    return "".join(f" --gap {part[3:]}" if part.startswith("gap") else f" --{part}" for part in parts)


def escaped(text: str) -> str:
    """Text for a cell of a Markdown table, where a bar would end the cell.

    >>> escaped("|x| < 1")
    '\\\\|x\\\\| < 1'
    """
    return text.replace("|", "\\|")


def _row(claim: Claim) -> str:
    measured, bound = numbers(claim)
    verdict = "holds" if claim.holds else "**does not hold**"
    return f"| {escaped(claim.sentence)} | {measured} | {claim.relation} {bound} | {verdict} |"
