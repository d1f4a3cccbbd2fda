"""birthplace-explore: what one attention layer can do and what it cannot, shown with numbers and pictures."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birthplace_lm.exploration import Demonstration

# The demonstrations in the order in which they are read, and the files of `birthplace_lm.exploration` that hold them.
FILES = {
    "copy": "copying",
    "average": "averaging",
    "fragile": "fragile",
    "two_heads": "two_heads",
    "kqv": "keys_queries_values",
    "lookup": "lookup",
}


def main(arguments: list[str] | None = None) -> None:
    """Build small attention layers by hand and check what is claimed of them; exit status 1 if a claim does not hold.

    Prints a line a claim and leaves pictures (PNG, SVG), README.md and demonstrations.json in the folder. All but
    `lookup` take seconds; `lookup` trains one-layer models for some ten seconds.
    """
    parser = argparse.ArgumentParser(prog="birthplace-explore", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(FILES)} or all (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/attention_exploration"), metavar="FOLDER")
    parser.add_argument("--seed", type=int, metavar="N", help="of every random draw, 0 or more (default: 0)")
    parser.add_argument(
        "--table", action="store_true", help="with lookup: train every attention on it, write lookup.json"
    )
    parser.add_argument(
        "--apart", action="store_true", default=None, help="with --table: key and value at a place of their own each"
    )
    parser.add_argument(
        "--gap", type=int, metavar="N", help="with --table: empty places before the asking (default: 32)"
    )
    parser.add_argument("--attention", nargs="+", metavar="NAME", help="with --table: only these of configs/attention")
    options = parser.parse_args(arguments)
    names = _chosen(parser, options)

    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.process import set_up_process

    with in_plain_words(), set_up_process():
        if options.table:
            _measure_lookups(options)
        elif not _show(names, options):
            sys.exit(1)


def _chosen(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """The demonstrations that were asked for, in their order; a wrong combination ends with status 2."""
    unknown = sorted({*options.names} - {*FILES, "all"})
    if unknown:
        parser.error(f"there is no demonstration {', '.join(unknown)}: choose from {', '.join(FILES)} or all")
    if options.table and options.names != ["lookup"]:
        parser.error("--table goes with lookup alone: birthplace-explore lookup --table")
    for name in ("attention", "apart", "gap"):
        if getattr(options, name) is not None and not options.table:
            parser.error(f"--{name} goes with lookup --table")
    if options.table and options.seed is not None:
        parser.error("--table trains with seeds 0, 1 and 2: leave --seed out")
    options.seed = options.seed or 0
    if options.seed < 0:
        parser.error(f"--seed {options.seed}: use 0 or more")
    return [name for name in FILES if name in options.names or not options.names or "all" in options.names]


def _show(names: list[str], options: argparse.Namespace) -> bool:
    """Demonstrate one after the other, print each at once, write the folder; whether all claims hold."""
    from importlib import import_module

    from birthplace_lm.composing import as_config_errors
    from birthplace_lm.exploration.page import line, write

    options.out.mkdir(parents=True, exist_ok=True)  # where it cannot be, that is known before anything is drawn
    shown: list[Demonstration] = []
    for name in names:
        demonstrate = import_module(f"birthplace_lm.exploration.{FILES[name]}").demonstrate
        shown.append(demonstrate(options.seed))
        print(f"{name}: {shown[-1].proves}")
        print(*(line(claim) for claim in shown[-1].claims), sep="\n", flush=True)
    asked = " ".join(names) if len(names) < len(FILES) else "all"
    with as_config_errors("explore"):  # a table of lookups in the folder that is none
        write(shown, options.out, options.seed, f"birthplace-explore {asked} --seed {options.seed}")
    verdicts = [claim.holds for demonstration in shown for claim in demonstration.claims]
    print(f"{sum(verdicts)} of {len(verdicts)} claims hold; pictures and {options.out / 'README.md'}")
    return all(verdicts)


def _measure_lookups(options: argparse.Namespace) -> None:
    """Train every attention on lookup by content and by position; a broken-off table is gone on with."""
    from birthplace_lm.composing import as_config_errors
    from birthplace_lm.exploration import lookup
    from birthplace_lm.exploration.lookup_task import LookupTask

    with as_config_errors("lookup --table"):
        chosen = {name: value for name in ("apart", "gap") if (value := getattr(options, name)) is not None}
        task = LookupTask(**chosen)
        stem = "_".join(["lookup", *(name if value is True else f"{name}{value}" for name, value in chosen.items())])
        path = options.out / f"{stem}.json"
        lookup.measure(_factories(options.attention), path=path, task=task)
    print(f"{path} and {stem}.png; birthplace-explore --out {options.out} puts them on its page")


def _factories(names: list[str] | None) -> dict[str, Callable[..., Any]]:
    """The constructors that configs/attention names; raises ConfigError for a file that is not there."""
    from omegaconf import OmegaConf

    from birthplace_lm.composing import ConfigError, build, config_folder

    folder = config_folder() / "attention"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    unknown = sorted({*(names or [])} - {*known})
    if unknown:
        raise ConfigError(f"there is no attention {', '.join(unknown)}: choose from {', '.join(known)}")
    return {name: build(OmegaConf.load(folder / f"{name}.yaml")) for name in names or known}


if __name__ == "__main__":
    main()
