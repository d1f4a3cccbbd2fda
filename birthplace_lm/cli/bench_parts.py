"""What the measures of birthplace-bench share: configuration files and models of them, people, rows as they come."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birthplace_lm.corpus import Corpus
    from birthplace_lm.transformer import Transformer


def variants(options: argparse.Namespace) -> list[str]:
    """The names that were asked for, or all of configs/attention."""
    from birthplace_lm.composing import ConfigError, config_folder

    known = sorted(path.stem for path in (config_folder() / "attention").glob("*.yaml"))
    if unknown := sorted({*(options.attention or ())} - {*known}):
        raise ConfigError(f"there is no attention {', '.join(map(repr, unknown))}: choose from {', '.join(known)}")
    return options.attention or known


def config(group: str, name: str) -> Any:
    """One configuration file with those that it builds on; ConfigError with the choices when there is none such."""
    from hydra import compose, initialize_config_dir

    from birthplace_lm.composing import ConfigError, config_folder

    path = config_folder() / group / f"{name}.yaml"
    if not path.is_file():
        choices = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise ConfigError(f"there is no {group} {name!r}: choose from {choices}")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose(f"{group}/{name}")[group]


def model_of(attention: str, model: str, dropout: float | None = None) -> "Callable[[int], Transformer]":
    """A maker of models with learned positions, given how many characters there are; dropout as its file says or so."""
    from birthplace_lm.architecture import build_model

    parts = {group: config(group, name) for group, name in
             (("model", model), ("attention", attention), ("positions", "learned"))}  # fmt: skip
    if dropout is not None:
        parts["model"]["dropout"] = dropout
    return lambda vocabulary_size: build_model(parts, vocabulary_size)


def corpus_of(options: argparse.Namespace) -> "Corpus":
    """The people of a folder, or of the run to start from, or an invented world of as many as the real one has."""
    from birthplace_lm import run_corpus
    from birthplace_lm.runs import RunFolder
    from birthplace_lm.sources import Folder
    from birthplace_lm.world import World

    if options.start_from:
        return run_corpus.corpus_of(RunFolder(options.start_from), options.data)
    return Folder(options.data).corpus() if options.data else World(people=2937).corpus()


def printed(rows: Iterator[dict[str, Any]], line: Callable[[Mapping[str, Any]], str]) -> list[dict[str, Any]]:
    """The rows, each printed as soon as it is there."""
    kept = []
    for row in rows:
        print(line(row), flush=True)
        kept.append(row)
    return kept


def machine(data: str = "") -> dict[str, Any]:
    """Where figures come from, and the sum of the data that went into them, if any did."""
    from birthplace_lm.provenance import provenance

    return provenance(data)


def in_words() -> str:
    """The machine, torch and commit of figures in one line."""
    told = machine()
    hardware, commit = told["hardware"], told["commit"]
    of = "an installed package" if commit is None else f"commit {commit[:10]}{' with changes' if told['dirty'] else ''}"
    threads = f"{hardware['threads']} thread{'s' * (hardware['threads'] > 1)}"
    return f"{hardware['processor']} ({hardware['instructions']}), {threads}, torch {told['versions']['torch']}, {of}"
