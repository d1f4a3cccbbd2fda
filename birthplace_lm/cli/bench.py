"""birthplace-bench: how fast this machine trains and answers, and what every attention costs."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from birthplace_lm.cli import bench_decoding, bench_layers, bench_training

COLUMNS = ("parameters", "flops", "cache", "speed", "lookup")  # of `facts`
WAYS = ("textbook", "bare", "lightning", "bfloat16", "transformers", "x-transformers", "litgpt")  # of `training`


def main(arguments: list[str] | None = None) -> None:
    """Measure one of seven things; everything is a median of repetitions by turns.

    training: a textbook loop, this package bare and through Lightning, other libraries on the same batches, then
    decoding. gpu: the first three on a GPU. jobs: trainings of one thread side by side against one of as many threads.
    decoding: questions answered all at once with a cache against one by one, by a new model or by a run.
    attention: one layer of every attention against vanilla's, forward and backward, beside what its arithmetic says.
    peers: our layers against x-transformers', same weights. facts: the table of birthplace_lm/attention/README.md.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.what in _MODELS and len(options.attention or ()) > 1:
        parser.error(f"{options.what} has one model: choose one of {', '.join(options.attention)}")
    for name, measures in _READ_BY.items():
        if getattr(options, name) != parser.get_default(name) and options.what not in measures:
            parser.error(f"{options.what} does not read --{name.replace('_', '-')}: that is for {', '.join(measures)}")
    if options.start_from and (options.model or options.attention or options.dropout is not None):
        parser.error("--start-from takes the model of the run: leave --model, --attention and --dropout out")
    options.model = options.model or "cs224n"
    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.composing import as_config_errors
    from birthplace_lm.corpus import CorpusError
    from birthplace_lm.process import set_up_process
    from birthplace_lm.replacing import replace_file

    options.threads = _set_threads(options.threads)
    told_as_they_are = as_config_errors(options.what, but=(CorpusError,))
    with in_plain_words(), told_as_they_are, set_up_process():  # as birthplace-train, for all compared
        for path in filter(None, (options.out, options.markdown, options.profile)):
            _check_writable(path)
        figures, markdown = _MEASURES[options.what](options)
        if options.out:
            replace_file(options.out, json.dumps(figures, indent=2) + "\n")
        if options.markdown:
            replace_file(options.markdown, markdown)


_MEASURES: dict[str, Callable[[argparse.Namespace], tuple[dict[str, Any], str]]] = {
    "training": bench_training.training,
    "gpu": bench_training.gpu,
    "jobs": bench_training.jobs,
    "decoding": bench_decoding.decoding,
    "attention": bench_layers.attention,
    "peers": bench_layers.peers,
    "facts": bench_layers.facts,
}


_STEPS = ("training", "gpu", "jobs")
_MODELS = (*_STEPS, "decoding")
_READ_BY = {  # which measures read an option; the others are read by all
    "attention": (*_MODELS, "attention", "facts"),
    **dict.fromkeys(("data", "model", "start_from"), _MODELS),
    **dict.fromkeys(("dropout", "batch_size", "steps"), _STEPS),
    **dict.fromkeys(("ways", "memory", "apart"), ("training",)),
    "questions": ("training", "decoding"),
    "profile": ("training", "gpu", "decoding"),
    "seconds": ("jobs",),
    **dict.fromkeys(("lengths", "patience", "tokens"), ("attention",)),
    **dict.fromkeys(("only", "lookup", "folder"), ("facts",)),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="birthplace-bench", description=main.__doc__)
    parser.add_argument("what", nargs="?", default="training", choices=list(_MEASURES), help="(default: training)")
    parser.add_argument(
        "--attention",
        nargs="+",
        metavar="NAME",
        help="files of configs/attention (attention, facts: by default all; the others have one, by default vanilla)",
    )
    parser.add_argument("--repetitions", type=_positive, default=5, metavar="N", help="of each, in turn (default: 5)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="of a process (default: as torch has them)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown too")
    _add_training(parser)
    _add_layers(parser)
    return parser


def _add_training(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("training, gpu, jobs and decoding (some as they say for one of them)")
    training.add_argument("--data", metavar="FOLDER", help="the four files (default: an invented world)")
    training.add_argument("--model", help="a file of configs/model (default: cs224n)")
    training.add_argument(
        "--start-from", type=Path, metavar="RUN", help="go on from what a run has pretrained, with its model"
    )
    training.add_argument("--dropout", type=float, metavar="P", help="instead of the model's own")
    training.add_argument("--batch-size", type=_positive, default=128, metavar="N")
    training.add_argument("--steps", type=_positive, default=4, metavar="N", help="a repetition (default: 4)")
    training.add_argument(
        "--ways",
        nargs="+",
        choices=WAYS,
        default=list(WAYS),
        metavar="WAY",
        help=f"training: some of {', '.join(WAYS)}",
    )
    training.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, default=True, help="training: peak memory, a process a way"
    )
    training.add_argument(
        "--apart",
        action="store_true",
        help="training: a process a way, and only ours set up as birthplace-train sets up its own",
    )
    training.add_argument(
        "--profile", type=Path, metavar="FILE", help="training, gpu, decoding: write where the time goes"
    )
    training.add_argument(
        "--questions",
        type=_natural,
        default=500,
        metavar="N",
        help="training, decoding: to answer, by a new model or the run started from (default: 500)",
    )
    training.add_argument("--seconds", type=float, default=20.0, metavar="S", help="jobs: a turn (default: 20)")


def _add_layers(parser: argparse.ArgumentParser) -> None:
    attention = parser.add_argument_group("attention")
    lengths = [128, 256, 512, 1024, 2048, 4096]
    attention.add_argument(
        "--lengths", nargs="+", type=_positive, default=lengths, metavar="T", help="(default: 128 … 4096)"
    )
    attention.add_argument(
        "--patience", type=float, default=20.0, metavar="SECONDS", help="after which a variant is repeated no more"
    )
    attention.add_argument(
        "--tokens", type=_positive, default=4096, metavar="N", help="a batch at any T (default: 4096)"
    )
    facts = parser.add_argument_group("facts")
    facts.add_argument(
        "--only", type=_columns, default=COLUMNS, metavar="A,B", help=f"these columns anew: {','.join(COLUMNS)}"
    )
    facts.add_argument("--lookup", type=Path, metavar="FILE", help="what birthplace-explore lookup --table wrote")
    facts.add_argument("--folder", type=Path, metavar="FOLDER", help="instead of birthplace_lm/attention")


def _set_threads(wanted: int | None) -> int:
    import torch

    if wanted is not None:
        torch.set_num_threads(wanted)
    return torch.get_num_threads()


def _check_writable(path: Path) -> None:
    """Make the folder of a file to be written, before minutes of measuring; raises OSError where that cannot be."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)


def _positive(text: str) -> int:
    return _natural(text, least=1)


def _natural(text: str, least: int = 0) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"at least {least}, not {number}")
    return number


def _columns(text: str) -> tuple[str, ...]:
    unknown = sorted({*text.split(",")} - {*COLUMNS})
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no column {', '.join(unknown)}: choose from {', '.join(COLUMNS)}")
    return tuple(text.split(","))


if __name__ == "__main__":
    main()
