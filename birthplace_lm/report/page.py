"""The report as one page: a single file, opened from disk, that asks for nothing from anywhere.

`page.html`, `browser.html`, `page.css` and `page.js` beside this file are the page without its content. Its policy
forbids every request and every script but that one, whose hash it names. Whatever comes from runs reaches the page as
escaped text, or in one block of JSON that the script reads and shows as text.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from birthplace_lm.attention_page import script_safe
from birthplace_lm.report import sections
from birthplace_lm.report.browsing import answers_of
from birthplace_lm.report.cards import knowledge_cards
from birthplace_lm.report.comparing import Variant
from birthplace_lm.report.markup import escaped
from birthplace_lm.report.records import provenance, settings

_HERE = Path(__file__).parent
TITLE = "Which attention gets the facts out?"


def page(
    variants: Sequence[Variant], left_out: Sequence[str] = (), baseline: str = "vanilla", title: str = TITLE
) -> str:
    """The whole page as HTML, of variants as `compare` returns them; `left_out` are sentences on what is not in it."""
    parts = {
        "Results": sections.results(variants, baseline),
        "What accuracy costs": sections.tradeoffs(variants),
        "How the loss fell": sections.losses(variants, baseline),
        "Where accuracy comes from": sections.slices(variants, baseline),
        "Known and guessed": knowledge_cards(variants),
        "Answers": _read("browser.html"),
        "Attention": sections.attention(variants),
        "Settings": settings(variants),
        "Provenance": provenance(variants),
        "Left out": sections.left_out(left_out),
    }
    parts = {name: inner for name, inner in parts.items() if inner}
    script, style = (_read(f"page.{kind}") for kind in ("js", "css"))
    content = {
        "TITLE": escaped(title),
        "ABOUT": escaped(_about(variants)),
        "CONTENTS": "".join(f'<li><a href="#{_anchor(name)}">{name}</a></li>' for name in parts),
        "SECTIONS": "\n".join(
            f'<section aria-labelledby="{_anchor(name)}"><h2 id="{_anchor(name)}">{name}</h2>\n{inner}</section>'
            for name, inner in parts.items()
        ),
        "STYLE": style,
        "DATA": script_safe(answers_of(variants)),
        "SCRIPT": script,
        "HASH": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    }
    # One pass, so that nothing inserted is looked at again.
    return re.sub(r"<!--([A-Z]+)-->", lambda found: content[found[1]], _read("page.html"))


def _about(variants: Sequence[Variant]) -> str:
    """How much there is, of what, and the best of it."""
    runs, best = sum(variant.seeds for variant in variants), variants[0]
    asked = sorted({len(run.right) for variant in variants for run in variant.runs})
    questions = f"{asked[0]}" if len(asked) == 1 else f"{asked[0]} to {asked[-1]}"
    seeds = f"{best.seeds} seeds" if best.seeds > 1 else "one seed"
    return (
        f"{_count(runs, 'run')} of {_count(len(variants), 'variant')}, asked {questions} questions each. "
        f"The best: {best.label}, {best.exact_match:.1%} ({seeds})."
    )


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
