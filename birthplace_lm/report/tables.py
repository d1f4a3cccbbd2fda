"""Variants as a table: on the console, in Markdown, CSV and LaTeX. Names are data: markup in them stays text."""

import csv
import io
import re
from collections.abc import Sequence

from birthplace_lm.report.comparing import Variant

HEADER = (
    "variant", "seeds", "exact match", "95 % interval", "vote of seeds", "against baseline", "p", "loss", "parameters",
    "characters/s", "minutes",
)  # fmt: skip
CSV_HEADER = (
    "variant", "seed", "correct", "total", "exact_match", "loss", "parameters", "seconds", "characters",
    "commit", "run",
)  # fmt: skip


def cells(variant: Variant) -> list[str]:
    """One row of the table for people; a dash where there is no figure."""
    low, high = variant.interval
    difference, loss = variant.difference, variant.mean("loss")
    return [
        variant.label,
        str(variant.seeds),
        f"{variant.exact_match:.1%}",
        f"{low:.1%} – {high:.1%}",
        "–" if variant.vote is None else f"{variant.vote:.1%}",
        "–"
        if difference is None
        else f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} … {100 * difference.high:+.1f})",
        "–" if difference is None or difference.p is None else _p(difference.p),
        "–" if loss is None else f"{loss:.3f}",
        f"{variant.mean('parameters'):,.0f}",
        "–" if variant.pace is None else f"{variant.pace:,.0f}",
        f"{(variant.mean('seconds') or 0) / 60:.1f}",
    ]


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def markdown(variants: Sequence[Variant]) -> str:
    """A table of Markdown."""
    rows = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)], *([_plain(cell) for cell in cells(v)] for v in variants)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _plain(cell: str) -> str:
    """What Markdown or the HTML in it would take for markup, escaped."""
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", cell)


def latex(variants: Sequence[Variant]) -> str:
    """A tabular in the style of booktabs."""
    columns = "l" + "r" * (len(HEADER) - 1)
    rows = [" & ".join(map(_tex, row)) + r" \\" for row in (HEADER, *map(cells, variants))]
    body = "\n".join(rows[1:])
    return f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{rows[0]}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def _tex(cell: str) -> str:
    signs = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "–": "--",
        "…": r"\dots{}",
    }
    return "".join(signs.get(c, "\\" + c if c in "&%$#_{}" else c) for c in cell)


def as_csv(variants: Sequence[Variant]) -> str:
    """One line a run. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for variant in variants:
        for run in variant.runs:
            loss = "" if run.loss is None else f"{run.loss:.4f}"
            texts = [variant.label, run.commit, run.folder.name]
            label, commit, name = ("'" + text if text[:1] in tuple("=+-@\t\r") else text for text in texts)
            numbers = [run.seed, sum(run.right.values()), len(run.right), f"{run.exact_match:.4f}", loss]
            writer.writerow([label, *numbers, run.parameters, f"{run.seconds:.0f}", run.characters, commit, name])
    return out.getvalue()
