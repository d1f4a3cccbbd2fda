"""birthplace-bench: how fast this machine trains and answers, and what every attention costs."""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birthplace_lm.transformer import Transformer

COLUMNS = ("parameters", "flops", "cache", "speed", "lookup")  # of `facts`


def main(arguments: list[str] | None = None) -> None:
    """Measure one of four things; everything is a median of repetitions by turns.

    training: a textbook loop, this package bare and through Lightning, then decoding. attention: one layer of every
    attention against vanilla's, forward and backward, beside what its arithmetic says. peers: our layers against
    x-transformers', same weights. facts: the table of birthplace_lm/attention/README.md.
    """
    options = _parser().parse_args(arguments)
    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.jobs import as_config_errors

    with in_plain_words(), as_config_errors(options.what):
        figures, markdown = _MEASURES[options.what](options)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="birthplace-bench", description=main.__doc__)
    parser.add_argument("what", nargs="?", default="training", choices=list(_MEASURES), help="(default: training)")
    parser.add_argument(
        "--attention",
        nargs="+",
        metavar="NAME",
        help="files of configs/attention (training: vanilla, else all)",
    )
    parser.add_argument("--repetitions", type=int, default=5, metavar="N", help="of each way, in turn (default: 5)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown too")
    training = parser.add_argument_group("training")
    training.add_argument("--data", metavar="FOLDER", help="the four files (default: an invented world)")
    training.add_argument("--model", default="cs224n", help="a file of configs/model (default: cs224n)")
    training.add_argument("--batch-size", type=int, default=128, metavar="N")
    training.add_argument("--steps", type=int, default=4, metavar="N", help="optimizer steps a repetition (default: 4)")
    training.add_argument("--questions", type=int, default=500, metavar="N", help="to decode (default: 500)")
    attention = parser.add_argument_group("attention")
    lengths = [128, 256, 512, 1024, 2048, 4096]
    attention.add_argument("--lengths", nargs="+", type=int, default=lengths, metavar="T", help="(default: 128 … 4096)")
    attention.add_argument(
        "--patience", type=float, default=20.0, metavar="SECONDS", help="after which a variant is repeated no more"
    )
    attention.add_argument("--tokens", type=int, default=4096, metavar="N", help="a batch at any T (default: 4096)")
    facts = parser.add_argument_group("facts")
    facts.add_argument(
        "--only", type=_columns, default=COLUMNS, metavar="A,B", help=f"these columns anew: {','.join(COLUMNS)}"
    )
    facts.add_argument("--lookup", type=Path, metavar="FILE", help="what birthplace-explore lookup --table wrote")
    facts.add_argument("--folder", type=Path, metavar="FOLDER", help="instead of birthplace_lm/attention")
    return parser


def _columns(text: str) -> tuple[str, ...]:
    unknown = sorted({*text.split(",")} - {*COLUMNS})
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no column {', '.join(unknown)}: choose from {', '.join(COLUMNS)}")
    return tuple(text.split(","))


def _training(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    figures = _measure_training(options)
    lines = [
        f"{row['name']:24} {row['characters_per_second']:9,.0f} characters/s "
        f"{row['step_milliseconds']:8,.0f} ms a step   {row['ratio']:5.2f} x"
        for row in figures["training"]
    ]
    decoding = figures["decoding"]
    lines.append(
        f"{decoding['questions']} questions: {decoding['batched_seconds']:.2f} s, one by one "
        f"{decoding['one_by_one_seconds']:.1f} s, {decoding['ratio']:.0f} x; "
        f"{decoding['same_answers']} of {decoding['compared']} compared answers agree"
    )
    print("\n".join(lines))
    return figures, "".join(f"    {line}\n" for line in lines)


def _measure_training(options: argparse.Namespace) -> dict[str, Any]:
    from birthplace_lm.benchmarks import decoding, training
    from birthplace_lm.callbacks import quieten_lightning
    from birthplace_lm.provenance import provenance
    from birthplace_lm.sources import Folder, sha256_of_corpus
    from birthplace_lm.tokenizer import CharTokenizer
    from birthplace_lm.world import World

    quieten_lightning()
    corpus = Folder(options.data).corpus() if options.data else World(people=2937).corpus()
    make = _model_of((options.attention or ["vanilla"])[0], options.model)
    tokenizer = CharTokenizer.fit([*corpus.documents, *(question.text for question in corpus.dev)])
    model, trained = make(len(tokenizer)), make(len(CharTokenizer.fit(corpus.documents)))
    timings = training.compare(
        corpus.documents, trained, _config("model", options.model).block_size,
        options.batch_size, options.steps, options.repetitions,
    )  # fmt: skip
    questions = [question.text for question in corpus.dev][: options.questions]
    return {
        **provenance(sha256_of_corpus(corpus)),
        "training": [timing.row(timings[0]) for timing in timings],
        "decoding": decoding.compare(model, tokenizer, questions),
    }


def _attention(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from birthplace_lm.benchmarks import attention
    from birthplace_lm.composing import build

    names = dict.fromkeys([attention.BASELINE, *_variants(options)])
    factories = {name: build(_config("attention", name)) for name in names}
    size = attention.Size(tokens=options.tokens)
    rows = attention.compare(factories, options.lengths, options.repetitions, options.patience, size)
    print(f"{'T':>5} {'attention':30} {'µs a token':>10} {'ratio':>7} {'arithmetic':>10} {'over it':>8}")
    shown = _printed(
        rows,
        lambda row: (
            f"{row['length']:5} {row['attention']:30} {row['microseconds_a_token']:10.1f} {row['ratio']:7.2f} "
            f"{row['arithmetic_ratio']:10.2f} {row['over_arithmetic']:8.2f}"
        ),
    )
    return {**_machine(), "attention": shown}, attention.markdown(shown)


def _peers(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from birthplace_lm.benchmarks import peers
    from birthplace_lm.composing import ConfigError

    try:
        import x_transformers  # noqa: F401
    except ImportError:
        raise ConfigError("x-transformers is not installed: pip install 'birthplace-lm[peers]'") from None
    print(f"{'variant':16} {'difference':>11} {'in float64':>11} {'ours / theirs':>14}")
    shown = _printed(
        peers.compare(options.repetitions),
        lambda row: (
            f"{row['variant']:16} {row['difference_float32']:11.1e} {row['difference_float64']:11.1e} "
            f"{row['ratio']:14.2f}   ({', '.join(f'{way} {ms:.0f} ms' for way, ms in row['milliseconds'].items())})"
        ),
    )
    return {**_machine(), "peers": shown}, peers.markdown(shown)


def _facts(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from birthplace_lm.benchmarks import facts
    from birthplace_lm.world import World

    where = options.folder or facts.folder()
    models = {name: _model_of(name, "cs224n") for name in _variants(argparse.Namespace(attention=None))}
    chosen = {name: models[name] for name in options.attention or models}
    before = facts.read(where / "facts.json")
    documents = World(people=2937).corpus().documents if "speed" in options.only else ()
    made = facts.regenerate(chosen, options.only, before, documents, options.lookup, options.repetitions)
    rows = {name: made.get(name, before.get(name, {})) for name in models}
    facts.write(rows, where)
    print(facts.table(rows), end="")
    return {"attention": rows}, facts.table(rows)


_MEASURES: dict[str, Callable[[argparse.Namespace], tuple[dict[str, Any], str]]] = {
    "training": _training,
    "attention": _attention,
    "peers": _peers,
    "facts": _facts,
}


def _variants(options: argparse.Namespace) -> list[str]:
    """The names that were asked for, or all of configs/attention."""
    from birthplace_lm.composing import config_folder

    return options.attention or sorted(path.stem for path in (config_folder() / "attention").glob("*.yaml"))


def _config(group: str, name: str) -> Any:
    """One configuration file; ConfigError with the choices when there is none of that name."""
    from omegaconf import OmegaConf

    from birthplace_lm.composing import ConfigError, config_folder

    path = config_folder() / group / f"{name}.yaml"
    if not path.is_file():
        choices = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise ConfigError(f"there is no {group} {name!r}: choose from {choices}")
    return OmegaConf.load(path)


def _model_of(attention: str, model: str) -> "Callable[[int], Transformer]":
    """A maker of models with learned positions, given how many characters there are."""
    from birthplace_lm.runs import build_model

    config = {group: _config(group, name) for group, name in
              (("model", model), ("attention", attention), ("positions", "learned"))}  # fmt: skip
    return lambda vocabulary_size: build_model(config, vocabulary_size)


def _printed(rows: Iterator[dict[str, Any]], line: Callable[[Mapping[str, Any]], str]) -> list[dict[str, Any]]:
    """The rows, each printed as soon as it is there."""
    kept = []
    for row in rows:
        print(line(row), flush=True)
        kept.append(row)
    return kept


def _machine() -> dict[str, Any]:
    from birthplace_lm.provenance import provenance

    return provenance("")


if __name__ == "__main__":
    main()
