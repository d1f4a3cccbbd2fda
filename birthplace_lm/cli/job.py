"""One job of a sweep in a process of its own: `python -m birthplace_lm.cli.job SWEEP/3.yaml`, as a launcher says it.

The file is the whole configuration, composed when the sweep was launched: what is changed in configs/ while a job waits
or is queued again does not reach it. Its end is noted in the file that the environment names (see sweeps.py).
"""

import argparse
import json
import os
import sys
from pathlib import Path

from birthplace_lm.cli.children import end_with_starter
from birthplace_lm.cli.ranks import INTERRUPTED, carry_out
from birthplace_lm.cli.sweeps import RECORD, rows_of
from birthplace_lm.composing import literal, load_config


def main(arguments: list[str] | None = None) -> None:
    """Carry out the job; exit status 1 unless it came to its end, so that Slurm's own accounting shows it, too."""
    parser = argparse.ArgumentParser(prog="python -m birthplace_lm.cli.job")
    parser.add_argument("file", type=Path)
    parser.add_argument("--ends-with-starter", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    if options.ends_with_starter:
        end_with_starter()
    file = options.file
    sweep = json.loads((file.parent / "sweep.json").read_text(encoding="utf-8"))
    overrides = sweep["tasks"][file.stem]["overrides"]
    _compare_commits(sweep["commit"])
    sys.argv = ["birthplace-train", *overrides]  # what the run's provenance is to say: the command that repeats it
    settings = load_config(file)
    try:
        carry_out(literal(settings), settings["choices"], [], overrides)
    except KeyboardInterrupt:  # before there was anything to save
        sys.exit(INTERRUPTED)
    sys.exit(0 if _ended_well() else 1)


def _compare_commits(launched: str | None) -> None:
    from birthplace_lm.commits import commit

    now = commit()["commit"]
    if now != launched:
        print(f"warning: launched at commit {launched}, the code is now at {now}", file=sys.stderr)


def _ended_well() -> bool:
    """What was noted last; a rank beside the first notes nothing, and srun tells Slurm the worst of all."""
    record = Path(os.environ.get(RECORD, os.devnull))
    rows = rows_of(record)
    return not rows or rows[-1]["status"] in ("done", "skipped")


if __name__ == "__main__":
    main()
