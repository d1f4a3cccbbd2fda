"""birthplace-report: one table, one picture and one page from many runs."""

import argparse
import sys
from pathlib import Path

FIGURES = (".png", ".svg", ".pdf")


def main(arguments: list[str] | None = None) -> None:
    """Compare finished runs: runs that differ by their seed alone are one variant, with mean and 95 % interval.

    A run that is unfinished, damaged or none at all is named and left out.
    """
    parser = argparse.ArgumentParser(prog="birthplace-report", description=main.__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything as one HTML page")
    parser.add_argument("--title", metavar="TEXT", help="of the page")
    parser.add_argument("--baseline", default="vanilla", metavar="NAME", help="the variant others are compared with")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one line a run")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="write the table as a LaTeX tabular (booktabs)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw it: .png, .svg or .pdf")
    parser.add_argument("--mix", action="store_true", help="average runs of different commits or data all the same")
    options = parser.parse_args(arguments)
    if options.figure and options.figure.suffix not in FIGURES:
        parser.error(f"--figure {options.figure}: the name has to end with {', '.join(FIGURES)}")

    from birthplace_lm.cli.errors import in_plain_words

    with in_plain_words():
        _report(options)


def _report(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from birthplace_lm.composing import ConfigError
    from birthplace_lm.replacing import replace_file
    from birthplace_lm.report import collecting, comparing, looks, page, pictures, starts, tables
    from birthplace_lm.stopping import in_terminal

    runs, left_out = collecting.collect(options.runs)
    runs = starts.with_alike_starts(runs, [root for place in options.runs for root in collecting.run_folders(place)])
    for sentence in left_out:
        print(f"left out: {sentence}", file=sys.stderr)
    if not runs:
        raise ConfigError("no finished run to report on")
    variants = comparing.compare(runs, options.baseline, options.mix)
    table = Table()
    for column in tables.HEADER:
        table.add_column(column, justify="left" if column == "variant" else "right")
    for variant in variants:
        table.add_row(*map(Text, tables.cells(variant)))
    Console(width=None if in_terminal() else 160, highlight=False).print(table)
    labels = [variant.label for variant in variants]
    known = f"the baseline is {options.baseline}"
    unknown = (
        f"none is called {options.baseline!r}, so there is no baseline: name one with --baseline {labels[0]!r}, say"
    )
    print(f"{len(runs)} runs of {len(labels)} variants; {known if options.baseline in labels else unknown}")
    for path, write in (
        (options.markdown, tables.markdown),
        (options.csv, tables.as_csv),
        (options.latex, tables.latex),
    ):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(write(variants), encoding="utf-8")
    if options.figure:
        options.figure.parent.mkdir(parents=True, exist_ok=True)
        with looks.drawing():
            pictures.exact_match_by_variant(variants).savefig(options.figure, dpi=140)
    if options.out:
        replace_file(options.out, page.page(variants, left_out, options.baseline, options.title or page.TITLE))
        print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
