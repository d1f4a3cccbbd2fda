"""One way to train in a process of its own, started by birthplace-bench: `python -m birthplace_lm.cli.bench_way NAME`.

It makes the way, says `ready` after a step to warm up, and waits. At every line that it is given it trains, and prints
as JSON: real characters, seconds, and the bytes it held before the first step and at most.
"""

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from birthplace_lm.cli.bench_parts import corpus_of
from birthplace_lm.cli.bench_training import material


def main(arguments: list[str] | None = None) -> None:
    """Train for so many seconds at every line of input, at least once for all steps."""
    options = _parser().parse_args(arguments)
    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.composing import as_config_errors
    from birthplace_lm.process import KEPT_PRODUCTS, set_up_process

    if options.plain:
        os.environ.pop(KEPT_PRODUCTS, None)  # birthplace-bench has set it for itself
    with in_plain_words(), as_config_errors(options.name), nullcontext() if options.plain else set_up_process():
        _train(options)


def _train(options: argparse.Namespace) -> None:
    import torch

    from birthplace_lm.benchmarks import memory, training
    from birthplace_lm.benchmarks.own_process import READY
    from birthplace_lm.callbacks import quieten_lightning

    torch.set_num_threads(options.threads)
    options.attention = [options.attention]
    way = training.make(options.name, *material(options, corpus_of(options)))
    quieten_lightning()
    before = memory.held()
    way.run(1)
    print(READY, flush=True)
    for _ in sys.stdin:
        seconds, characters = 0.0, 0
        while not characters or seconds < options.seconds:
            took, seen = way.run(options.steps)
            seconds, characters = seconds + took, characters + seen
        found = {"characters": characters, "seconds": seconds, "before": before, "peak": memory.peak()}
        print(json.dumps(found), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m birthplace_lm.cli.bench_way", description=main.__doc__)
    parser.add_argument("name", help="as in the tables of birthplace-bench training")
    parser.add_argument("--threads", type=int, required=True, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.0, metavar="S", help="(default: one run)")
    parser.add_argument("--plain", action="store_true", help="leave the process as Python and torch make it")
    parser.add_argument("--data", metavar="FOLDER")
    parser.add_argument("--start-from", type=Path, metavar="RUN")
    parser.add_argument("--model", default="cs224n")
    parser.add_argument("--attention", default="vanilla")
    parser.add_argument("--dropout", type=float, metavar="P")
    parser.add_argument("--batch-size", type=int, default=128, metavar="N")
    parser.add_argument("--steps", type=int, default=4, metavar="N")
    return parser


if __name__ == "__main__":
    main()
