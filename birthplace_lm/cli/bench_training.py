"""birthplace-bench training and jobs: whole training steps, this package's and other libraries'."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from birthplace_lm.cli.bench_decoding import questions_for
from birthplace_lm.cli.bench_parts import config, corpus_of, machine, model_of

if TYPE_CHECKING:
    from birthplace_lm.benchmarks.training import Timing
    from birthplace_lm.benchmarks.ways import Way
    from birthplace_lm.benchmarks.ways.recording import Recording
    from birthplace_lm.corpus import Corpus
    from birthplace_lm.transformer import Transformer


def training(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Every way to train that can be had here, then decoding: figures, and their table."""
    from birthplace_lm.benchmarks import decoding, training, training_table
    from birthplace_lm.callbacks import quieten_lightning
    from birthplace_lm.sources import sha256_of_corpus

    corpus = corpus_of(options)
    model, recording = material(options, corpus)
    peers = training.PEERS if options.start_from else ()
    ways, missing = training.make_all([way for way in options.ways if way not in peers], model, recording)
    missing |= {way: "it cannot begin with weights of ours" for way in options.ways if way in peers}
    quieten_lightning()  # not earlier: what other libraries import on their way sets loggers anew
    for way, reason in missing.items():
        print(f"{way} is left out: {reason}", flush=True)
    rate = _matmul_rate(model, recording)
    with _where_they_run(ways, options) as timed:
        timings = training.compare(ways, options.steps, options.repetitions, rate.measure, timed)
    _profile(options, model, recording)
    rows = training_table.rows(timings, rate.rates, _memory(ways, options))
    asked = questions_for(options, corpus)
    figures = {
        **machine(sha256_of_corpus(corpus)),
        "libraries": _libraries(),
        "missing": missing,
        "apart": options.apart,
        "training": rows,
        "matmul_rate": rate.rates,
        "lightning_overhead": training_table.lightning_overhead(timings),
        "decoding": decoding.compare(*asked, options.repetitions) if asked else None,
    }
    told = _told(figures, timings, model)
    print(training_table.text(rows) + told, end="")
    return figures, training_table.markdown(rows) + "\n" + "".join(f"{line}  \n" for line in told.splitlines())


def gpu(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """A textbook loop on a GPU, this package bare and through Lightning: figures, and their table."""
    from birthplace_lm.benchmarks import on_gpu
    from birthplace_lm.callbacks import quieten_lightning
    from birthplace_lm.sources import sha256_of_corpus

    corpus = corpus_of(options)
    quieten_lightning()
    model, recording = material(options, corpus)
    found = on_gpu.figures(on_gpu.compare(model, recording, options.steps, options.repetitions))
    table = on_gpu.markdown(found)
    print(table, end="")
    _profile_gpu(options, model, recording)
    return {**machine(sha256_of_corpus(corpus)), **found}, table


def jobs(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Trainings of one thread side by side against one of as many threads: figures, and their lines."""
    from birthplace_lm.benchmarks import side_by_side
    from birthplace_lm.sources import sha256_of_corpus

    material(options, corpus := corpus_of(options))  # what cannot be trained is told here, not by each process
    command = [*_own_process(options, "this package, bare"), "--seconds", str(options.seconds)]
    figures = side_by_side.compare(command, options.threads, options.repetitions)
    told = side_by_side.text(figures)
    print(told, end="")
    where = machine(sha256_of_corpus(corpus))
    return {**where, "jobs": figures}, "".join(f"    {line}\n" for line in told.splitlines())


def material(options: argparse.Namespace, corpus: "Corpus") -> "tuple[Transformer, Recording]":
    """The model to train, new or as a run has pretrained it, and the batches to train it on."""
    from birthplace_lm.benchmarks.ways.recording import Recording
    from birthplace_lm.runs import RunFolder
    from birthplace_lm.tokenizer import CharTokenizer

    if options.start_from:
        folder = RunFolder(options.start_from)
        model, tokenizer = folder.load_model("pretrain"), folder.tokenizer()
        block_size = folder.config()["model"]["block_size"]
    else:
        shown = (text for question in corpus.train for text in (question.text, question.answer or ""))
        tokenizer = CharTokenizer.fit([*corpus.documents, *shown])  # as a training does
        model = model_of((options.attention or ["vanilla"])[0], options.model, options.dropout)(len(tokenizer))
        block_size = config("model", options.model).block_size
    if options.batch_size > len(corpus.documents):
        raise ValueError(
            f"--batch-size {options.batch_size} is more than the {len(corpus.documents)} documents there are"
        )
    return model, Recording(corpus.documents, tokenizer, block_size, options.batch_size, options.steps)


@contextmanager
def _where_they_run(
    ways: "Mapping[str, Way]", options: argparse.Namespace
) -> "Iterator[Callable[[str], tuple[float, int]] | None]":
    """Here, or each apart in a process that only this package's ways set up as they set up theirs."""
    from birthplace_lm.benchmarks.own_process import by_turns

    if not options.apart:
        yield None
        return
    commands = {name: [*_own_process(options, name, apart=True), "--threads", str(options.threads)] for name in ways}
    with by_turns(commands, options.threads) as turns:

        def timed(name: str) -> tuple[float, int]:
            found = turns[name]()
            return found["seconds"], found["characters"]

        yield timed


def _libraries() -> dict[str, str]:
    """The versions of the peers that are installed."""
    from importlib.metadata import distributions

    names = ("accelerate", "litgpt", "transformers", "x-transformers")
    return {found.name: found.version for found in distributions() if found.name in names}


def _matmul_rate(model: "Transformer", recording: "Recording") -> Any:
    from birthplace_lm.benchmarks.matmul import MatmulRate

    rows = {batch.inputs[0].numel() for batch in (*recording.padded, *recording.length_aware)}
    return MatmulRate(model, [min(rows), max(rows)])


def _own_process(options: argparse.Namespace, name: str, apart: bool = False) -> list[str]:
    """The command that trains one way in a process of its own; apart, only this package's is set up as it does."""
    from birthplace_lm.benchmarks.training import is_this_package

    command = [sys.executable, "-m", "birthplace_lm.cli.bench_way", name, "--model", options.model]
    command += ["--batch-size", str(options.batch_size), "--steps", str(options.steps)]
    command += ["--attention", (options.attention or ["vanilla"])[0]]
    command += ["--data", options.data] if options.data else []
    command += ["--start-from", str(options.start_from)] if options.start_from else []
    command += ["--plain"] if apart and not is_this_package(name) else []
    return command if options.dropout is None else [*command, "--dropout", str(options.dropout)]


def _memory(names: Iterable[str], options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Bytes before and at the peak of one run of each way, each in a process of its own; what fails is told."""
    from birthplace_lm.benchmarks.own_process import EndedError, at_once

    found: dict[str, dict[str, int]] = {}
    for name in names if options.memory else ():
        command = [*_own_process(options, name, options.apart), "--threads", str(options.threads)]
        try:
            (found[name],) = at_once([command], options.threads)
        except EndedError as error:
            print(f"memory of {name} was not measured: {error}", flush=True)
    return found


def _profile(options: argparse.Namespace, model: "Transformer", recording: "Recording") -> None:
    if options.profile is None:
        return
    from birthplace_lm.benchmarks import profiling, training
    from birthplace_lm.benchmarks.ways.bare import Bare
    from birthplace_lm.replacing import replace_file

    heading = f"{_of_what(options)}, {options.threads} thread{'s' if options.threads > 1 else ''}"
    parts = []
    chosen = {"bare": training.BARE, "bfloat16": training.BFLOAT16}
    for name in [chosen[way] for way in chosen if way in options.ways] or [training.BARE]:
        way = training.make(name, model, recording)
        assert isinstance(way, Bare)
        parts.append(profiling.markdown(profiling.profile_step(way), heading + ", bfloat16" * way.bfloat16))
    replace_file(options.profile, "\n".join(parts))


def _profile_gpu(options: argparse.Namespace, model: "Transformer", recording: "Recording") -> None:
    if options.profile is None:
        return
    import torch

    from birthplace_lm.benchmarks import kernels, on_gpu
    from birthplace_lm.replacing import replace_file

    found, milliseconds = kernels.profile_steps(on_gpu.replayed(model, recording), on_gpu.LONGER * options.steps)
    heading = f"{_of_what(options)}, {torch.cuda.get_device_name()}, bfloat16"
    replace_file(options.profile, kernels.markdown(found, milliseconds, heading))


def _of_what(options: argparse.Namespace) -> str:
    which = options.start_from or options.model
    return f"Where the time of a training step goes: {which}, {options.batch_size} examples"


def _told(figures: dict[str, Any], timings: "list[Timing]", model: "Transformer") -> str:
    """What stands below the table, a line each."""
    from statistics import median

    from birthplace_lm.benchmarks import decoding

    lines = [f"this machine multiplies matrices of these sizes at {median(figures['matmul_rate']) / 1e9:,.0f} GFLOP/s"]
    shares = [f"{t.name.split(',')[0]} {t.parameters / model.n_parameters():.1%}" for t in timings]
    lines.append(f"weights against ours, {model.n_parameters():,}: {', '.join(dict.fromkeys(shares))}")
    if figures["lightning_overhead"] is not None:
        lines.append(f"Lightning adds {figures['lightning_overhead']:+.1%} to the bare loop's time")
    if (found := figures["decoding"]) is not None:
        lines.append(decoding.told(found))
    return "\n".join(lines) + "\n"
