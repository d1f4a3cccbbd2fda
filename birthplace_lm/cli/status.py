"""birthplace-status: which runs are at work, how far they are, when they will end."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from birthplace_lm.stopping import in_terminal

if TYPE_CHECKING:
    from rich.console import Group

HEADER = ("state", "run", "at", "ends about", "exact match", "")
_STYLES = {"running": "cyan", "interrupted": "yellow", "failed": "red", "finished": "green"}


def main(arguments: list[str] | None = None) -> None:
    """Running, interrupted, failed and finished runs of a folder, each with how far it is; nothing is touched.

    An interrupted or failed run goes on with its own command, from its last checkpoint.
    """
    parser = argparse.ArgumentParser(prog="birthplace-status", description=main.__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help="that holds runs (default: runs)")
    parser.add_argument("--watch", action="store_true", help="in a terminal: look again and again, until Ctrl-C")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="with --watch (default: 2)")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        print(f"error: there is no folder {options.folder}", file=sys.stderr)
        sys.exit(2)
    if options.watch and in_terminal():
        _watch(options.folder, max(options.every, 0.2))
    else:
        _print(options.folder)


def _print(folder: Path) -> None:
    """A line a run, its columns apart by two spaces or more."""
    from birthplace_lm.report.progress import cells, statuses, summary

    runs, left_out = statuses(folder)
    rows = [cells(run) for run in runs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(summary(runs))
    for sentence in left_out:
        print(f"left out: {sentence}", file=sys.stderr)


def _watch(folder: Path, seconds: float) -> None:
    from rich.live import Live

    with Live(_view(folder), auto_refresh=False) as live:
        try:
            while True:
                time.sleep(seconds)
                live.update(_view(folder), refresh=True)
        except KeyboardInterrupt:
            live.update(_view(folder), refresh=True)


def _view(folder: Path) -> "Group":
    """The table as it is now; what runs stands on top, where a terminal that is too small still shows it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from birthplace_lm.report.progress import STATES, cells, statuses, summary

    runs, left_out = statuses(folder)
    table = Table(*HEADER)
    for run in sorted(runs, key=lambda run: STATES.index(run.state)):
        state, *rest = cells(run)
        table.add_row(Text(state, style=_STYLES[state]), *map(Text, rest))
    more = f"; {len(left_out)} folders left out" if left_out else ""
    return Group(table, Text(summary(runs) + more))


if __name__ == "__main__":
    main()
