"""The sections of the page, each as its HTML; "" for one that these runs have nothing for."""

from collections.abc import Sequence
from functools import partial

from birthplace_lm.report import tables
from birthplace_lm.report.comparing import Variant
from birthplace_lm.report.curves import loss_curves, stage_curves, stages_with_curves
from birthplace_lm.report.looks import SERIES, inline_svg
from birthplace_lm.report.markup import Cell, Row, escaped, figure, folded, image, scrolling, table
from birthplace_lm.report.pictures import exact_match_by_variant
from birthplace_lm.report.slices import SLICES, Pooled, pooled, slice_labels, slice_picture
from birthplace_lm.report.tradeoffs import tradeoff

STAGES = {"pretrain": "pretraining", "finetune": "finetuning", "finetune_only": "finetuning without pretraining"}
MOST_IMAGES, MOST_BYTES = 6, 1_000_000  # of attention maps: a page is to open quickly


def results(variants: Sequence[Variant], baseline: str) -> str:
    """The headline: the table, what its columns mean, and the same as a picture."""
    rows = [[Cell(v.label), *map(Cell, tables.cells(v)[1:], _values(v))] for v in variants]
    reading = (
        "Exact match is the mean over seeds of the share of dev questions answered right, character for character. Its "
        "95 % interval is the wider of two: what other seeds would do (Student’s t) and what other questions would do "
        "(Wilson); with one seed it says nothing of other seeds. Against baseline: points of exact match, with a 95 % "
        "interval, the wider of a bootstrap over questions and seeds and Welch’s over seeds, and a two-sided p that is "
        "not corrected for the number of variants; where one of the two has one seed, the interval is the bootstrap’s, "
        "over questions and the other’s seeds, and there is no p: more seeds of the one might say otherwise. Vote of "
        "seeds: exact match of the answer that most seeds give, three seeds or more; that is as many models, so it is "
        "no figure of one. Loss is in nats a target at the end of pretraining, if any was done; characters of text a "
        "second (median over seeds) and minutes are those of all training stages, on whatever machine."
    )
    base = "" if any(v.label == baseline for v in variants) else f" There is no variant {baseline} to compare with."
    title, caption = (
        "Exact match by variant",
        "Exact match on dev: mean over seeds, every seed as a ring, 95 % interval.",
    )
    svg = inline_svg(partial(exact_match_by_variant, variants, ""), "variants", title, "The table above, drawn.")
    return (
        table("Variants, the best first. A column’s head sorts by it.", tables.HEADER, rows)
        + f'<p class="quiet">{escaped(reading + base)}</p>'
        + figure(svg, caption, title)
        + _rows_without_training(variants)
    )


def _values(variant: Variant) -> list[float | None]:
    """What the columns behind the first are sorted by."""
    found = variant.difference
    difference = (None, None) if found is None else (found.value, found.p)
    costs = [variant.mean("loss"), variant.mean("parameters"), variant.pace, variant.mean("seconds")]
    return [variant.seeds, variant.exact_match, variant.interval[0], variant.vote, *difference, *costs]


def _rows_without_training(variants: Sequence[Variant]) -> str:
    """What each run compares itself with: guessing rules, and models without pretraining."""
    shares: dict[str, list[float]] = {}
    for run in (run for variant in variants for run in variant.runs):
        rows = run.metrics.get("rows")
        for name, row in rows.items() if isinstance(rows, dict) else ():
            share = row.get("dev", {}).get("exact_match") if isinstance(row, dict) else None
            if isinstance(share, int | float):
                shares.setdefault(str(name), []).append(share)
    told: list[Row] = [
        [name, Cell(str(len(own)), len(own)), *(Cell(f"{v:.1%}", v) for v in (sum(own) / len(own), min(own), max(own)))]
        for name, own in shares.items()
    ]
    inner = table("Rows of all runs", ("row", "runs", "mean exact match", "lowest", "highest"), told) if told else ""
    return folded("Beside guessing rules and models without pretraining", inner) if inner else ""


def _in_colour(variants: int) -> str:
    """Which variants a picture shows in colour where it does not show all."""
    most = len(SERIES)
    return f" In colour: the best {most} of {variants}, the baseline among them." if variants > most else ""


def losses(variants: Sequence[Variant], baseline: str) -> str:
    """A picture a stage."""
    parts = []
    for stage in stages_with_curves(variants):
        name, many = STAGES[stage], len(stage_curves(variants, stage))
        title = f"Loss in {name}"
        caption = f"{title}: mean over seeds, each smoothed over a twentieth of its steps.{_in_colour(many)}"
        svg = inline_svg(partial(loss_curves, variants, stage, baseline), f"loss-{stage}", title, caption)
        parts.append(f"<h3>{escaped(name.capitalize())}</h3>{figure(svg, caption, title)}")
    return "".join(parts)


def tradeoffs(variants: Sequence[Variant]) -> str:
    """Accuracy against minutes and against parameters."""
    parts = []
    for of, name in (("minutes", "minutes of training"), ("parameters", "parameters")):
        title = f"Exact match against {name}"
        caption = f"{title}. Filled and numbered: variants that none beats, for as much or less (the Pareto front)."
        svg = inline_svg(partial(tradeoff, variants, of), f"cost-{of}", title, caption)
        minutes = " Minutes compare only where the machine and its load were the same." if of == "minutes" else ""
        parts.append(f"<h3>Against {escaped(name)}</h3>{figure(svg, caption + minutes, title)}")
    return "".join(parts)


def slices(variants: Sequence[Variant], baseline: str) -> str:
    """A picture and a table a slice."""
    parts = []
    for name, (title, _) in SLICES.items():
        labels = slice_labels(variants, name)
        if not labels:
            continue
        caption = (
            "Answers of all seeds together, with Wilson’s 95 % intervals: how sure these models’ share is, since seeds "
            f"answer the same questions. A gap is a label without questions.{_in_colour(len(variants))}"
        )
        svg = inline_svg(partial(slice_picture, variants, name, baseline), f"slice-{name}", title, caption)
        rows = [[Cell(v.label), *(_pooled(pooled(v, name).get(label)) for label in labels)] for v in variants]
        everything = folded("All variants as a table", table(f"{title}, all variants", ["variant", *labels], rows))
        parts.append(f"<h3>{escaped(title)}</h3>{figure(svg, caption, title)}{everything}")
    return "".join(parts)


def _pooled(cell: Pooled | None) -> Cell:
    if cell is None or cell.share is None:
        return Cell("–")
    return Cell(f"{cell.share:.1%} ({cell.correct} of {cell.total})", cell.share)


def attention(variants: Sequence[Variant]) -> str:
    """The first few pictures that lie in attention/ of the runs, one a run before the second of any."""
    found = [
        (number, run.folder.name, path)
        for run in (run for variant in variants for run in variant.runs)
        for number, path in enumerate(sorted((run.folder / "attention").glob("*.png")))
    ]
    parts: list[str] = []
    for _, run, path in sorted(found, key=lambda one: one[0]):
        element = image(path, f"Attention maps of {run}: {path.stem}", MOST_BYTES)
        if element and len(parts) < MOST_IMAGES:
            caption = f"<figcaption>{escaped(path.stem)}, of {escaped(run)}</figcaption>"
            parts.append(f"<figure>{scrolling(element, f'Attention maps, {path.stem}')}{caption}</figure>")
    if not parts:
        return ""
    more = (
        f" {len(found) - len(parts)} more lie in the attention folders of these runs."
        if len(found) > len(parts)
        else ""
    )
    return "".join(parts) + f'<p class="quiet">A page to explore lies beside each of the files.{more}</p>'


def left_out(sentences: Sequence[str]) -> str:
    """What was found and is not in this report, with the reasons."""
    return f'<ul class="plain">{"".join(f"<li>{escaped(s)}</li>" for s in sentences)}</ul>' if sentences else ""
